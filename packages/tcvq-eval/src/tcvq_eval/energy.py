"""Energy of the arithmetic of one image, in three accountings that are read side by side; no hardware was measured.

With F_l the multiply-accumulates of layer l with dense inputs for one image and one step, r_l the share of its inputs
that are not zero (measured), T the SNN steps, and E the energy of one operation:

    ac_convention   E_MAC F_1 + E_AC Σ_{l>1} r_l T F_l     every input counted as spikes, as most papers do
    graded          Σ_l r_l T F_l E_AC     where the inputs were 0 or 1
                  + Σ_l r_l T F_l E_MAC    where they had zeros and other values: the gate x·LIF(x)
                  + Σ_l s_l F_l E_MAC      where they had no zeros; s_l steps ran: 1 for an input constant in time
                  + what is not a layer: attention, neurons, norms, search of codes
    ann             E_MAC Σ_l F_l          the same network once, without time

r_l enters once. The first layer of ``ac_convention`` counts once because its input, an image, is constant.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

InputKind = Literal["spikes", "graded", "analog"]
DISCLAIMER = "Arithmetic only, no memory traffic, not a hardware measurement."
DENSE = 0.6  # from this share of non-zero inputs on a layer counts as analog: a border of zeros is no sparsity


@dataclass(frozen=True, kw_only=True, slots=True)
class EnergyTable:
    """Energy of one operation in picojoules; another technology is another table with another name.

    Attributes:
        name: Names and versions the table in reports.
        mac: 32-bit floating-point multiply and add.
        ac: 32-bit floating-point add: a spike adds a weight.
        multiply: 32-bit floating-point multiply.
        int_add: 32-bit integer add: counting spikes.
    """

    name: str = "horowitz-2014-45nm/1"
    mac: int | float = 4.6  # Horowitz, ISSCC 2014, 45 nm, 0.9 V: 3.7 + 0.9
    ac: int | float = 0.9
    multiply: int | float = 3.7
    int_add: int | float = 0.1

    def __post_init__(self) -> None:
        """Reject energies below zero."""
        for name in ("mac", "ac", "multiply", "int_add"):
            if getattr(self, name) < 0:
                raise ValueError(f"EnergyTable.{name} is {getattr(self, name)} pJ; it must not be negative")


HOROWITZ_45NM = EnergyTable()


@dataclass(frozen=True, kw_only=True, slots=True)
class LayerWork:
    """One linear or convolutional layer, for one image.

    Attributes:
        name: Its name in the network.
        part: What it belongs to, such as ``encoder``.
        macs: F_l, dense multiply-accumulates of one step.
        steps: s_l, how often it ran: T, or 1 where its input is constant in time.
        density: r_l, measured share of non-zero inputs.
        input: What the measured inputs were: ``spikes`` all 0 or 1, ``graded`` other values with zeros between them,
            ``analog`` no zeros to skip.
    """

    name: str
    part: str = ""
    macs: int | float
    steps: int
    density: int | float
    input: InputKind

    def __post_init__(self) -> None:
        """Reject what cannot have been measured."""
        if not 0 <= self.density <= 1:
            raise ValueError(f"layer {self.name}: density is {self.density}; a share lies in [0, 1]")
        if self.macs < 0 or self.steps < 1:
            raise ValueError(f"layer {self.name}: {self.macs} MACs in {self.steps} steps; need MACs >= 0, steps >= 1")


@dataclass(frozen=True, kw_only=True, slots=True)
class SideWork:
    """Work outside of layers with weights, for one image and all of its steps.

    Attributes:
        name: What it is, such as ``attention`` or ``norms``.
        part: What it belongs to.
        macs: Multiply-accumulates.
        adds: Floating-point adds and compares.
        multiplies: Floating-point multiplies.
        int_adds: Integer adds.
        ann_macs: Multiply-accumulates of the same thing in the network without time.
    """

    name: str
    part: str = ""
    macs: int | float = 0.0
    adds: int | float = 0.0
    multiplies: int | float = 0.0
    int_adds: int | float = 0.0
    ann_macs: int | float = 0.0


@dataclass(frozen=True, kw_only=True, slots=True)
class EnergyRow:
    """Energy of one layer, or of one side work, in nanojoules for one image.

    Attributes:
        name: As it was given.
        part: As it was given.
        input: What fed the layer; ``other`` for side work.
        density: r_l; None for side work.
        macs: F_l; for side work the multiply-accumulates of all steps.
        synops: Synaptic operations r_l T F_l; 0 for side work.
        ac_convention: In the first accounting.
        graded: In the second.
        ann: In the third.
    """

    name: str
    part: str
    input: InputKind | Literal["other"]
    density: int | float | None
    macs: int | float
    synops: int | float
    ac_convention: int | float
    graded: int | float
    ann: int | float


@dataclass(frozen=True, kw_only=True, slots=True)
class Energy:
    """Energy of one image in nanojoules, in three accountings.

    Attributes:
        table: What one operation costs.
        n_steps: SNN steps T.
        rows: Every layer in the order it was given, then the side work.
        synops: Synaptic operations of all layers.
        dense_macs: Σ_l F_l.
        ac_convention: Sum in the first accounting.
        graded: Sum in the second, the honest one.
        ann: Sum in the third.
        by_input: Share of the dense MACs of all steps behind each kind of input.
        note: What the numbers are not.
    """

    table: EnergyTable
    n_steps: int
    rows: tuple[EnergyRow, ...]
    synops: int | float
    dense_macs: int | float
    ac_convention: int | float
    graded: int | float
    ann: int | float
    by_input: dict[str, float] = field(default_factory=dict)
    note: str = DISCLAIMER

    def part(self, name: str) -> tuple[int | float, int | float, int | float]:
        """Return the three energies of one part."""
        rows = [row for row in self.rows if row.part == name]
        return (
            sum(row.ac_convention for row in rows),
            sum(row.graded for row in rows),
            sum(row.ann for row in rows),
        )


def input_kind(density: int | float, *, binary: bool) -> InputKind:
    """Say what fed a layer, from what was measured of its inputs, whatever the layer is called.

    Args:
        density: Share of non-zero inputs.
        binary: Whether every input was 0 or 1.
    """
    if binary:
        return "spikes"
    return "graded" if density < DENSE else "analog"


def estimate_energy(
    layers: Sequence[LayerWork],
    side: Sequence[SideWork] = (),
    *,
    n_steps: int,
    table: EnergyTable = HOROWITZ_45NM,
) -> Energy:
    """Add up the energy of one image; the module says how.

    Args:
        layers: Layers with weights in the order in which they run; the first one takes the image.
        side: Everything else, which only ``graded`` and, where it has ``ann_macs``, ``ann`` count.
        n_steps: SNN steps T.
        table: Energy of one operation.

    Raises:
        ValueError: There is no layer, or T is not positive.
    """
    if not layers or n_steps < 1:
        raise ValueError(f"an energy estimate needs layers and n_steps >= 1; got {len(layers)} layers, {n_steps} steps")
    rows = [_layer_row(layer, n_steps, table, first=i == 0) for i, layer in enumerate(layers)]
    rows += [_side_row(work, table) for work in side]
    dense = dict.fromkeys(("spikes", "graded", "analog"), 0.0)
    for layer in layers:
        dense[layer.input] += layer.macs * layer.steps
    total = sum(dense.values())
    return Energy(
        table=table,
        n_steps=n_steps,
        rows=tuple(rows),
        synops=sum(row.synops for row in rows),
        dense_macs=sum(layer.macs for layer in layers),
        ac_convention=sum(row.ac_convention for row in rows),
        graded=sum(row.graded for row in rows),
        ann=sum(row.ann for row in rows),
        by_input={kind: macs / total if total else 0.0 for kind, macs in dense.items()},
    )


def _layer_row(layer: LayerWork, n_steps: int, table: EnergyTable, *, first: bool) -> EnergyRow:
    """Return the three energies of one layer; 1000 pJ are 1 nJ."""
    synops = layer.density * n_steps * layer.macs
    graded = {
        "spikes": synops * table.ac,
        "graded": synops * table.mac,
        "analog": layer.steps * layer.macs * table.mac,
    }[layer.input]
    return EnergyRow(
        name=layer.name,
        part=layer.part,
        input=layer.input,
        density=layer.density,
        macs=layer.macs,
        synops=synops,
        ac_convention=(layer.macs * table.mac if first else synops * table.ac) / 1000,
        graded=graded / 1000,
        ann=layer.macs * table.mac / 1000,
    )


def _side_row(work: SideWork, table: EnergyTable) -> EnergyRow:
    energy = work.macs * table.mac + work.adds * table.ac
    energy += work.multiplies * table.multiply + work.int_adds * table.int_add
    return EnergyRow(
        name=work.name,
        part=work.part,
        input="other",
        density=None,
        macs=work.macs,
        synops=0.0,
        ac_convention=0.0,
        graded=energy / 1000,
        ann=work.ann_macs * table.mac / 1000,
    )
