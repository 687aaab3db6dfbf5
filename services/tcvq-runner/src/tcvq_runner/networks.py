"""What the report says about the networks themselves: who fires when, what that costs, and time cells."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tcvq_eval import (
    Energy,
    Headline,
    Picture,
    Section,
    Table,
    energy_bars,
    firing_rate_map,
    time_cell_figure,
)
from tcvq_runner.activity import Activity, measure_activity
from tcvq_runner.config import Recipe
from tcvq_runner.recipe import ConfigError
from tcvq_runner.run_dir import RunFolder
from tcvq_runner.studies.time_cells import Population, answer_of, numbers_of, panels_of, populations
from tcvq_runner.wiring import Compute

_LIMIT = 1000
_KINDS = {
    "spikes": "binary spikes: adds weights",
    "graded": "the gate x·LIF(x) or spike counts: multiplies, zeros are skipped",
    "analog": "no zeros: multiplies densely at every step",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Networks:
    """Measurements of the networks of a run.

    Attributes:
        activity: Firing rates and energy.
        cells: The codes as units over time, trained and with random weights; None where there are none.
        skipped: Why not, then.
    """

    activity: Activity
    cells: tuple[Population, Population] | None
    skipped: str


def look_into(folder: RunFolder, recipe: Recipe, compute: Compute) -> Networks:
    """Measure the networks of a run on its test data; raises what the measurements raise."""
    activity = measure_activity(folder, recipe, compute, limit=_LIMIT)
    try:
        cells = populations(folder, recipe, compute, limit=_LIMIT)
    except (ConfigError, ValueError) as error:  # no temporal codebook, or too few images for a mean
        return Networks(activity=activity, cells=None, skipped=str(error))
    return Networks(activity=activity, cells=cells, skipped="")


def network_headlines(networks: Networks) -> list[Headline]:
    """Return the energy of a generated image and the order of the codes."""
    energy = networks.activity.generate or networks.activity.reconstruct
    found = [
        Headline(
            label="arithmetic of a generated image" if networks.activity.generate else "arithmetic of an image",
            value=energy.graded / 1000,
            unit="µJ",
            reference=f"as a network without time {energy.ann / 1000:.1f} µJ; estimate, 45 nm",
            digits=1,
            better="lower",
        )
    ]
    if networks.cells:
        ours, control = networks.cells
        found.append(
            Headline(
                label="codes that keep their peak step",
                value=100 * ours.order.agreement,
                digits=1,
                unit="%",
                reference=f"chance {100 * ours.order.chance:.1f} %, "
                f"random weights {100 * control.order.agreement:.1f}\u00a0%",
            )
        )
    return found


def network_sections(networks: Networks) -> list[Section]:
    """Return the sections on firing rates, energy and time cells."""
    return [_rates(networks.activity), _energy(networks.activity), _cells(networks)]


def network_metrics(networks: Networks) -> Mapping[str, Any]:
    """Return everything that was measured, for ``report.json``."""
    activity, cells = networks.activity, networks.cells
    return {
        "firing": {"n_images": activity.n_images, "layers": activity.neurons},
        "energy": {"reconstruct": activity.reconstruct, "generate": activity.generate},
        "time_cells": {"skipped": networks.skipped}
        if cells is None
        else {name: numbers_of(found) for name, found in zip(("trained", "random_weights"), cells, strict=True)},
    }


def _rates(activity: Activity) -> Section:
    codec = {name: rates for name, rates in activity.rates.items() if not name.startswith("prior.")}
    prior = {name: rates for name, rates in activity.rates.items() if name.startswith("prior.")}
    maps = [("firing-codec", codec, "VQ-VAE"), ("firing-prior", prior, "prior")]
    return Section(
        title="Firing rates",
        text=f"Share of neurons that fire at each step, over {activity.n_images:,} test images.",
        pictures=[
            Picture(
                name=name,
                data=firing_rate_map(rates, kind="png"),
                alt=f"Firing rates of the {what}",
                caption=f"The {what}.",
            )
            for name, rates, what in maps
            if rates
        ],
        tables=[
            Table(
                columns=("layer", "neurons", "rate", "silent", "saturated"),
                rows=[[name, a.neurons, a.rate, a.silent, a.saturated] for name, a in activity.neurons.items()],
                folded="Every layer of neurons",
            )
        ],
    )


def _energy(activity: Activity) -> Section:
    whole = {"reconstruct": activity.reconstruct} | ({"generate": activity.generate} if activity.generate else {})
    parts = {part: activity.reconstruct.part(part) for part in ("encoder", "decoder")}
    if activity.generate:
        parts["prior"] = activity.generate.part("prior")
    table = activity.reconstruct.table
    return Section(
        title="Energy",
        text=f"{activity.reconstruct.note} With F the dense multiply-accumulates of a layer for one image and step, r "
        f"the measured share of its inputs that are not zero, and T = {activity.reconstruct.n_steps} steps: "
        "ac_convention = E_MAC·F of the first layer + E_AC·Σ r·T·F of the others, as most papers count; graded = "
        "Σ r·T·F with E_AC only where the measured inputs were 0 or 1 and E_MAC where they were the gate's graded "
        "values, dense layers in full, plus attention, neurons, norms and search; ann = E_MAC·Σ F, the same network "
        "once without time. "
        f"E_MAC = {table.mac} pJ, E_AC = {table.ac} pJ ({table.name}).",
        pictures=[
            Picture(
                name="energy",
                data=energy_bars(parts),
                alt="Energy of encoder, decoder and prior in three accountings",
                caption="One image through each part; the prior draws all codes of an image.",
            )
        ],
        tables=[
            Table(
                columns=("one image", "synaptic operations, M", "ac_convention, µJ", "graded, µJ", "ann, µJ"),
                rows=[
                    [name, e.synops / 1e6, e.ac_convention / 1e3, e.graded / 1e3, e.ann / 1e3]
                    for name, e in whole.items()
                ],
            ),
            Table(
                columns=("inputs of a layer, as measured", "share of MACs, reconstruct", "generate"),
                rows=[
                    [f"{kind}: {text}", *(e.by_input[kind] for e in whole.values()), *([None] * (2 - len(whole)))]
                    for kind, text in _KINDS.items()
                ],
            ),
            *(layer_table(name, e) for name, e in whole.items()),
        ],
    )


def layer_table(name: str, energy: Energy) -> Table:
    """Return one row per layer and side work."""
    columns = ("layer", "part", "inputs", "r", "F, M", "synops, M", "ac_convention, nJ", "graded, nJ", "ann, nJ")
    return Table(
        columns=columns,
        rows=[
            [r.name, r.part, r.input, r.density, r.macs / 1e6, r.synops / 1e6, r.ac_convention, r.graded, r.ann]
            for r in energy.rows
        ],
        folded=f"Every layer, {name}",
    )


def _cells(networks: Networks) -> Section:
    if networks.cells is None:
        return Section(title="Time cells", text=f"Not measured: {networks.skipped}.")
    picture = Picture(
        name="time-cells",
        data=time_cell_figure(panels_of(*networks.cells)),
        alt="Sorted activity of the codes over time beside its controls, paths of the most used codes, profile",
    )
    return Section(title="Time cells", text=answer_of(*networks.cells), pictures=[picture])
