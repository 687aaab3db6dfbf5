"""A codebook seen as a population of time cells: when each unit fires, in which order, and along which path.

Everything here is a function of entries ``(K, T, D)`` or of activities ``(U, T)`` and returns tensors; drawing is up to
the caller. To leave unused entries out, pass ``codebook[counts > 0]``.
"""

from typing import NamedTuple

import torch
from jaxtyping import Float, Int, Int64
from torch import Tensor

from tcvq_codebook.usage import usage_weights


class Tuning(NamedTuple):
    """When each unit is active.

    Attributes:
        peak: The earliest step at which the unit is highest.
        width: Full width at half height around the peak, in steps, between 0 (exclusive) and T.
        centre: Mean step, weighted by the normalised activity; (T − 1)/2 for a constant unit.
        depth: Highest minus lowest activity; 0 says that the unit is not tuned at all.
    """

    peak: Int64[Tensor, "*unit"]
    width: Float[Tensor, "*unit"]
    centre: Float[Tensor, "*unit"]
    depth: Float[Tensor, "*unit"]


class Raster(NamedTuple):
    """Units in the order in which they fire.

    Attributes:
        matrix: Normalised activity, earliest unit first.
        order: Which unit stands in each row: ``matrix == normalise(activity)[order]``.
        peak_counts: How many units peak at each step, by the activity that was sorted by.
    """

    matrix: Float[Tensor, "U T"]
    order: Int64[Tensor, "U"]
    peak_counts: Int64[Tensor, "T"]


class Paths(NamedTuple):
    """Entries projected to their principal components.

    Attributes:
        paths: ``(e_{k,t} − mean) · components``.
        components: Orthonormal rows; the coordinate largest in magnitude is positive, so that signs are reproducible.
        mean: The point that is projected to 0.
        explained: Share of the variance along each component; 0 where there is no variance.
    """

    paths: Float[Tensor, "K T P"]
    components: Float[Tensor, "P D"]
    mean: Float[Tensor, "D"]
    explained: Float[Tensor, "P"]


def unit_activity(codebook: Float[Tensor, "K T D"]) -> Float[Tensor, "KD T"]:
    """Return each coordinate of each entry as a unit over time; unit ``k · D + d`` is coordinate d of entry k."""
    return codebook.detach().mT.flatten(0, 1)


def entry_activity(codebook: Float[Tensor, "K T D"]) -> Float[Tensor, "K T"]:
    """Return a_k(t) = ‖e_{k,t}‖: each entry as one unit over time."""
    return codebook.detach().norm(dim=2)


def normalise(activity: Float[Tensor, "*unit T"]) -> Float[Tensor, "*unit T"]:
    """Return (a − min_t a) / (max_t a − min_t a), so that each unit spans [0, 1]; a constant unit becomes 0."""
    low, high = activity.aminmax(dim=-1, keepdim=True)
    return torch.where(high > low, (activity - low) / (high - low), 0.0)


def tuning(activity: Float[Tensor, "*unit T"]) -> Tuning:
    """Return peak step, width, centre and depth of each unit.

    The width is taken on the normalised activity, with linear interpolation between steps: from where the activity
    last reaches ½ before it falls below on the left of the peak, to the same on the right. Step t occupies
    [t − ½, t + ½], so a unit still above ½ at an end reaches to −½ or T − ½. One isolated step has width 1 wherever it
    is; a constant unit, and any unit of one step, has width T.
    """
    n_steps = activity.shape[-1]
    steps = torch.arange(n_steps, device=activity.device)
    a = normalise(activity)
    low, high = activity.aminmax(dim=-1)
    peak = activity.argmax(dim=-1)
    right = _reach(a, peak)
    left = n_steps - 1 - _reach(a.flip(-1), n_steps - 1 - peak)
    mass = a.sum(-1)
    middle = torch.full_like(mass, (n_steps - 1) / 2)
    tuned = high > low
    return Tuning(
        peak=peak,
        width=torch.where(tuned, right - left, float(n_steps)),
        centre=torch.where(tuned, (a * steps).sum(-1) / mass, middle),
        depth=high - low,
    )


def _reach(a: Float[Tensor, "*unit T"], peak: Int64[Tensor, "*unit"]) -> Float[Tensor, "*unit"]:
    """Return the time after the peak at which normalised activity first falls below ½, T − ½ if it never does."""
    n_steps = a.shape[-1]
    steps = torch.arange(n_steps, device=a.device)
    fallen = (a < 0.5) & (steps > peak.unsqueeze(-1))
    first = torch.where(fallen, steps, n_steps).amin(-1, keepdim=True)
    below = a.gather(-1, first.clamp(max=n_steps - 1))
    above = a.gather(-1, (first - 1).clamp(min=0))
    crossing = first - 1 + (above - 0.5) / (above - below)
    return torch.where(first < n_steps, crossing, n_steps - 0.5).squeeze(-1)


def raster(activity: Float[Tensor, "U T"], *, sort_by: Float[Tensor, "U T"] | None = None) -> Raster:
    """Sort units by peak step, then by centre, then by number: the sequence plot of a time-cell population.

    Any data sorted by its own peaks looks like a sequence. So sort by one half of the data and show the other, and
    compare with `permute_within_units`.

    Args:
        activity: What to show, one row per unit.
        sort_by: What to sort by, such as the activity of the same units on other data; ``activity`` by default.
    """
    found = tuning(activity if sort_by is None else sort_by)
    by_centre = found.centre.argsort(stable=True)
    order = by_centre[found.peak[by_centre].argsort(stable=True)]
    peak_counts = torch.zeros(activity.shape[1], dtype=torch.int64, device=activity.device)
    peak_counts.scatter_add_(0, found.peak, torch.ones_like(found.peak))
    return Raster(matrix=normalise(activity)[order], order=order, peak_counts=peak_counts)


def permute_within_units(activity: Float[Tensor, "U T"], *, seed: int) -> Float[Tensor, "U T"]:
    """Return each unit with its steps in a random order of its own: the null hypothesis of a raster.

    Drawn on the CPU from ``seed``, so that every device gives the same.
    """
    generator = torch.Generator().manual_seed(seed)
    order = torch.rand(activity.shape, generator=generator, dtype=torch.float64).argsort(1)
    return activity.gather(1, order.to(activity.device))


def principal_paths(
    codebook: Float[Tensor, "K T D"],
    n_components: int = 2,
    *,
    counts: Int[Tensor, "K"] | Float[Tensor, "K"] | None = None,
) -> Paths:
    """Project all entries to the principal components of the points e_{k,t} ∈ R^D.

    Args:
        codebook: The entries.
        n_components: Number of components P.
        counts: Use of each entry, to weight its points; equal weights by default.

    Returns:
        Paths in float64, whatever the codebook's dtype.

    Raises:
        ValueError: If P is below 1 or above min(D, K·T).
    """
    n_embed, n_steps, width = codebook.shape
    if not 1 <= n_components <= min(width, n_embed * n_steps):
        raise ValueError(
            f"{n_components} principal components of {n_embed * n_steps} points of width {width}; "
            f"ask for 1 to {min(width, n_embed * n_steps)}"
        )
    e = codebook.detach().double()
    w = usage_weights(n_embed, counts, device=e.device) / n_steps
    mean = torch.einsum("k,ktd->d", w, e)
    centred = e - mean
    points = (centred * w.sqrt().view(-1, 1, 1)).flatten(0, 1)
    _, singular, rows = torch.linalg.svd(torch.linalg.qr(points, mode="r").R, full_matrices=False)
    components = rows[:n_components]
    largest = components.gather(1, components.abs().argmax(1, keepdim=True))
    components = components * largest.sign()
    variance = singular.square()
    explained = variance[:n_components] / variance.sum().clamp(min=torch.finfo(torch.float64).tiny)
    return Paths(paths=centred @ components.T, components=components, mean=mean, explained=explained)


def slice_similarity(
    codebook: Float[Tensor, "K T D"], *, counts: Int[Tensor, "K"] | Float[Tensor, "K"] | None = None
) -> Float[Tensor, "T T"]:
    """Return the cosine between the steps of the codebook, S_st = ⟨E_s, E_t⟩ / (‖E_s‖ ‖E_t‖).

    ⟨E_s, E_t⟩ = Σ_k w_k e_{k,s} · e_{k,t} with w the use of the entries, or equal. In float64; a step of zeros has 0.
    """
    e = codebook.detach().double()
    inner = torch.einsum("k,ksd,ktd->st", usage_weights(len(e), counts, device=e.device), e, e)
    norm = inner.diagonal().sqrt()
    return inner / torch.outer(norm, norm).clamp(min=torch.finfo(torch.float64).tiny)
