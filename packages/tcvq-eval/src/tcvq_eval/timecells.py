"""Do units fire at steps of their own? A sequence is believed only where one half of the data predicts the other.

Any data sorted by its own peaks looks like a sequence. So units are sorted by one half of the samples and shown by the
other, and the share of units that peak at the same step in both halves is compared with the same share after the steps
of every unit were permuted.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int64
from torch import Tensor


@dataclass(frozen=True, kw_only=True, slots=True)
class TimeCells:
    """Order of a population of units in time, cross-validated, beside chance.

    Attributes:
        n_units: Units that have a peak in both halves.
        agreement: Share of them that peak at the same step in both halves.
        chance: Mean of that share over permutations of the steps of every unit.
        chance_high: What 95 % of the permutations stay below.
        p_value: Share of permutations that reach ``agreement``, itself counted.
        above_chance: Whether p is below 0.05.
        peak_counts: Units that peak at each step, in the half that sorts.
        null_low: 2.5 % of the permutations have fewer at that step.
        null_high: 2.5 % have more.
        shown: The other half, each unit from 0 to 1, in the order of the first half.
        shown_null: The same after the steps of every unit were permuted.
    """

    n_units: int
    agreement: float
    chance: float
    chance_high: float
    p_value: float
    above_chance: bool
    peak_counts: tuple[int, ...]
    null_low: tuple[float, ...]
    null_high: tuple[float, ...]
    shown: Float[Tensor, "U T"]
    shown_null: Float[Tensor, "U T"]

    @property
    def verdict(self) -> str:
        """One sentence about chance."""
        word = "above chance" if self.above_chance else "not above chance"
        return (
            f"{100 * self.agreement:.1f} % of {self.n_units} units peak at the same step in both halves of the data, "
            f"{100 * self.chance:.1f} % where steps are permuted (p = {self.p_value:.3f}): {word}"
        )


def evaluate_time_cells(
    first: Float[Tensor, "U T"], second: Float[Tensor, "V S"], *, seed: int = 0, n_null: int = 499
) -> TimeCells:
    """Compare the order of units in two halves of the data with chance.

    Args:
        first: Mean activity of each unit at each step over one half of the samples; it sorts.
        second: The same units over the other half; it is shown and tested.
        seed: Of the permutations.
        n_null: Number of permutations.

    Raises:
        ValueError: The halves differ in shape, or no unit varies in both of them.
    """
    if first.shape != second.shape:
        raise ValueError(f"halves have shapes {tuple(first.shape)} and {tuple(second.shape)}; they need the same units")
    tuned = _varies(first) & _varies(second)
    if not bool(tuned.any()):
        raise ValueError(f"none of {len(first)} units varies over {first.shape[1]} steps in both halves")
    a, b = first[tuned].double(), second[tuned].double()
    agreement = _agreement(a, b)
    generator = torch.Generator().manual_seed(seed)
    shares, counts = [], []
    for _ in range(n_null):
        shuffled = _permuted(b, generator)
        shares.append(_agreement(a, shuffled))
        counts.append(_peaks(_permuted(a, generator)))
    null, peaks = torch.tensor(shares, dtype=torch.float64), torch.stack(counts).double()
    p = (1 + int((null >= agreement).sum())) / (1 + n_null)
    shuffled_a, shuffled_b = _permuted(a, generator), _permuted(b, generator)
    return TimeCells(
        n_units=len(a),
        agreement=agreement,
        chance=null.mean().item(),
        chance_high=null.quantile(0.95).item(),
        p_value=p,
        above_chance=p < 0.05,
        peak_counts=tuple(int(n) for n in _peaks(a)),
        null_low=tuple(peaks.quantile(0.025, dim=0).tolist()),
        null_high=tuple(peaks.quantile(0.975, dim=0).tolist()),
        shown=_unit_range(b)[_order(a)].float(),
        shown_null=_unit_range(shuffled_b)[_order(shuffled_a)].float(),
    )


def _varies(x: Tensor) -> Tensor:
    return x.amax(1) > x.amin(1)


def _unit_range(x: Float[Tensor, "U T"]) -> Float[Tensor, "U T"]:
    """Return (x − min_t x) / (max_t x − min_t x)."""
    low, high = x.aminmax(dim=1, keepdim=True)
    return (x - low) / (high - low)


def _order(x: Float[Tensor, "U T"]) -> Int64[Tensor, "U"]:
    """Sort by peak step, then by centre of mass."""
    a = _unit_range(x)
    centre = (a * torch.arange(a.shape[1])).sum(1) / a.sum(1)
    by_centre = centre.argsort(stable=True)
    return by_centre[x.argmax(1)[by_centre].argsort(stable=True)]


def _agreement(a: Float[Tensor, "U T"], b: Float[Tensor, "U T"]) -> float:
    return (a.argmax(1) == b.argmax(1)).double().mean().item()


def _peaks(x: Float[Tensor, "U T"]) -> Int64[Tensor, "T"]:
    return torch.bincount(x.argmax(1), minlength=x.shape[1])


def _permuted(x: Float[Tensor, "U T"], generator: torch.Generator) -> Float[Tensor, "U T"]:
    return x.gather(1, torch.rand(x.shape, generator=generator).argsort(1))
