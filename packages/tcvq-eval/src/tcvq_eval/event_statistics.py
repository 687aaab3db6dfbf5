"""What is counted in recordings of events, and how far two sets of recordings differ in it."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

HISTOGRAM_EDGES = (0.5, 1.5, 2.5, 4.5, 8.5)  # 0, 1, 2, 3-4, 5-8 and more events of a pixel in a step
INTEGER_TOLERANCE = 1e-3


@dataclass(frozen=True, kw_only=True, slots=True)
class StatisticDistance:
    """How a statistic of generated recordings differs from that of real ones.

    Attributes:
        name: Of the statistic, as in `event_statistics`.
        w1: Wasserstein-1 distance over recordings in units of the real standard deviation, mean over its components.
        w1_floor: The same of real against real.
        ks: Kolmogorov-Smirnov distance, between 0 and 1, mean over components.
        ks_floor: The same of real against real.
        real: Mean of the real ones, component by component.
        fake: Mean of the generated ones.
    """

    name: str
    w1: float
    w1_floor: float
    ks: float
    ks_floor: float
    real: tuple[float, ...]
    fake: tuple[float, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class CountCheck:
    """Whether values can be numbers of events at all.

    Attributes:
        negative: Share of values below zero.
        fractional: Share of values that are not whole numbers.
    """

    negative: float
    fractional: float


def event_statistics(counts: Float[Tensor, "N T P H W"]) -> dict[str, Float[Tensor, "N _"]]:
    """Return statistics of each recording; values below zero count as no events.

    - ``rate``: events of each step; ``total``: of all steps together.
    - ``on_share``: share of ON among all events (channel 1); not a number for an empty recording, nor is what follows
      where a step or recording is empty.
    - ``active_share``: share of pixels with any event.
    - ``autocorrelation``: ⟨x_t, x_{t+l}⟩ / ⟨x_t, x_t⟩, each averaged over t, for the lags l = 1 … T-1.
    - ``centroid_x``, ``centroid_y``: centre of the events of each step, from 0 (left, top) to 1.
    - ``histogram``: shares of cells with 0, 1, 2, 3-4, 5-8 and more events.
    - ``spectrum``: log10 of the mean power of all steps added, in rings of equal spatial frequency, without the mean.

    Args:
        counts: Numbers of events, of any scale that is the same for all; two channels OFF and ON.

    Returns:
        Each ``(N, components)``, float64.
    """
    x = counts.double().clamp_min(0)
    rate = x.sum(dim=(2, 3, 4))
    total = rate.sum(dim=1, keepdim=True)
    edges = torch.tensor(HISTOGRAM_EDGES, dtype=x.dtype)
    bins = torch.bucketize(x.flatten(1), edges)
    return {
        "rate": rate,
        "total": total,
        "on_share": x[:, :, 1].sum(dim=(1, 2, 3))[:, None] / _or_nan(total),
        "active_share": (x.sum(dim=(1, 2)) > 0).double().mean(dim=(1, 2))[:, None],
        "autocorrelation": _autocorrelation(x.flatten(2)),
        "centroid_x": _centroid(x.sum(dim=(2, 3))),
        "centroid_y": _centroid(x.sum(dim=(2, 4))),
        "histogram": torch.stack([(bins == i).double().mean(dim=1) for i in range(len(edges) + 1)], dim=1),
        "spectrum": _spectrum(x.sum(dim=(1, 2))),
    }


def count_check(values: Float[Tensor, "*any"], tolerance: float = INTEGER_TOLERANCE) -> CountCheck:
    """Look whether values are numbers of events: after inverting a normalisation, before rounding.

    Args:
        values: Numbers of events, perhaps.
        tolerance: How far from a whole number, or below zero, a value may lie.

    Raises:
        ValueError: There is no value.
    """
    if not values.numel():
        raise ValueError("a count check needs at least one value")
    x = values.double()
    slack = max(tolerance, INTEGER_TOLERANCE)
    negative, fractional = x < -slack, (x - x.round()).abs() > slack
    return CountCheck(negative=negative.double().mean().item(), fractional=fractional.double().mean().item())


def statistic_distances(
    real: Float[Tensor, "N T P H W"], other_real: Float[Tensor, "M T P H W"], fake: Float[Tensor, "K T P H W"]
) -> tuple[StatisticDistance, ...]:
    """Compare statistics of generated and real recordings, beside those of real and other real ones.

    Args:
        real: Counts of real recordings.
        other_real: Of others, for the noise floor; best as many as generated ones.
        fake: Of generated ones.

    Raises:
        ValueError: A set is empty.
    """
    if not min(len(real), len(other_real), len(fake)):
        raise ValueError(f"statistics need recordings; got {len(real)}, {len(other_real)} real, {len(fake)} generated")
    sets = [event_statistics(each) for each in (real, other_real, fake)]
    return tuple(_distance(name, *(each[name] for each in sets)) for name in sets[0])


def wasserstein_ks(a: Float[Tensor, "N C"], b: Float[Tensor, "M C"]) -> tuple[float, float]:
    """Return Wasserstein-1 in units of the standard deviation of ``a``, and Kolmogorov-Smirnov; means over components.

    Values that are not numbers are left out; a component that has none on one side, but some on the other, is at
    distance infinity and 1. Where ``a`` does not vary, the unit is the mean of its magnitudes, or 1.
    """
    from scipy.stats import wasserstein_distance

    w1, ks = [], []
    for left, right in zip(a.T.numpy(), b.T.numpy(), strict=True):
        x, y = left[~np.isnan(left)], right[~np.isnan(right)]
        if not len(x) or not len(y):
            w1.append(0.0 if len(x) == len(y) else np.inf)
            ks.append(float(len(x) != len(y)))
            continue
        unit = x.std() or np.abs(x).mean() or 1.0
        w1.append(wasserstein_distance(x, y) / unit)
        both = np.concatenate([x, y])
        ranks = [np.searchsorted(np.sort(each), both, side="right") / len(each) for each in (x, y)]
        ks.append(np.abs(ranks[0] - ranks[1]).max())
    return float(np.mean(w1)), float(np.mean(ks))


def class_histogram(classes: Int[Tensor, " N"], n_classes: int) -> tuple[float, ...]:
    """Return the share of each class."""
    return tuple((torch.bincount(classes, minlength=n_classes).double() / max(len(classes), 1)).tolist())


def _distance(name: str, real: Tensor, other: Tensor, fake: Tensor) -> StatisticDistance:
    (w1, ks), (w1_floor, ks_floor) = wasserstein_ks(real, fake), wasserstein_ks(real, other)
    means: Mapping[str, tuple[float, ...]] = {
        key: tuple(value.nanmean(dim=0).tolist()) for key, value in (("real", real), ("fake", fake))
    }
    return StatisticDistance(name=name, w1=w1, w1_floor=w1_floor, ks=ks, ks_floor=ks_floor, **means)


def _or_nan(total: Tensor) -> Tensor:
    """Return totals with zero replaced by not-a-number, so that a share of nothing is not zero."""
    return torch.where(total > 0, total, torch.nan)


def _autocorrelation(x: Float[Tensor, "N T C"]) -> Float[Tensor, "N _"]:
    steps = x.shape[1]
    power = _or_nan(x.square().sum(dim=2).mean(dim=1))
    lags = [(x[:, :-lag] * x[:, lag:]).sum(dim=2).mean(dim=1) / power for lag in range(1, steps)]
    return torch.stack(lags, dim=1) if lags else x.new_zeros(len(x), 0)


def _centroid(mass: Float[Tensor, "N T L"]) -> Float[Tensor, "N T"]:
    """Return the centre of mass along the last axis, from 0 to 1."""
    position = torch.linspace(0, 1, mass.shape[2], dtype=mass.dtype)
    return (mass * position).sum(dim=2) / _or_nan(mass.sum(dim=2))


def _spectrum(x: Float[Tensor, "N H W"]) -> Float[Tensor, "N R"]:
    height, width = x.shape[1:]
    power = torch.fft.fft2(x).abs().square() / (height * width)
    fy, fx = torch.fft.fftfreq(height)[:, None] * height, torch.fft.fftfreq(width)[None] * width
    ring = (fy.square() + fx.square()).sqrt().round().long()
    rings = range(1, min(height, width) // 2 + 1)
    return torch.stack([(power[:, ring == r].mean(dim=1) + 1e-12).log10() for r in rings], dim=1)
