"""Measures of entries and of index maps: temporal profile, movement, neighbourhood."""

from typing import NamedTuple

import torch
from jaxtyping import Float, Int, Int64
from torch import Tensor

from tcvq_codebook.usage import usage_weights


class TemporalProfile(NamedTuple):
    """How entries behave over their steps, as means over entries weighted by use; float64.

    Attributes:
        norm: ‖e_t‖.
        change: ‖e_t − e_{t−1}‖ for t = 1 … T − 1.
        variance_share: ρ = Σ_t ‖e_t − ē‖² / Σ_t ‖e_t‖², numerator and denominator summed over entries: 0 if all
            entries stand still, 1 if each has mean 0 over time.
    """

    norm: Float[Tensor, "T"]
    change: Float[Tensor, "T-1"]
    variance_share: Float[Tensor, ""]


def temporal_profile(
    entries: Float[Tensor, "K T D"], counts: Int[Tensor, "K"] | Float[Tensor, "K"] | None = None
) -> TemporalProfile:
    """Return the temporal profile of a codebook, or of any sequences, such as those a vanilla codebook assigns.

    Args:
        entries: Trajectories.
        counts: Use of each, as weights; equal weights where nothing was counted or given.
    """
    e = entries.detach().double()
    w = usage_weights(len(e), counts, device=e.device)
    moved = (e - e.mean(1, keepdim=True)).square().sum((1, 2))
    energy = e.square().sum((1, 2))
    return TemporalProfile(
        norm=w @ e.norm(dim=2),
        change=w @ e.diff(dim=1).norm(dim=2),
        variance_share=(w @ moved) / (w @ energy).clamp(min=torch.finfo(torch.float64).tiny),
    )


def entry_drift(codebook: Float[Tensor, "K T D"], snapshot: Float[Tensor, "K T D"]) -> Float[Tensor, "K"]:
    """Return how far each entry moved, ‖e_k − e⁰_k‖, relative to the root mean square of ‖e⁰_j‖ over all j."""
    before = snapshot.detach().flatten(1).double()
    size = before.square().sum(1).mean().sqrt()
    moved = (codebook.detach().flatten(1).double() - before).norm(dim=1)
    return moved / size.clamp(min=torch.finfo(torch.float64).tiny)


def neighbour_counts(indices: Int[Tensor, "*maps H W"], n_embed: int) -> Int64[Tensor, "2 K K"]:
    """Count which codes are neighbours in grids of indices.

    Returns:
        ``[0, i, j]``: how often code j is the right neighbour of code i; ``[1, i, j]``: how often it is the one below.
    """
    tables = torch.zeros(2, n_embed, n_embed, dtype=torch.int64, device=indices.device)
    add_neighbours(tables, indices)
    return tables


def add_neighbours(tables: Int64[Tensor, "2 K K"], indices: Int[Tensor, "*maps H W"]) -> None:
    """Add the counts of `neighbour_counts` to tables in place."""
    pairs = (
        (indices[..., :-1], indices[..., 1:]),
        (indices[..., :-1, :], indices[..., 1:, :]),
    )
    for table, (first, second) in zip(tables, pairs, strict=True):
        flat = first.reshape(-1).long() * len(table) + second.reshape(-1).long()
        table.view(-1).scatter_add_(0, flat, torch.ones_like(flat))
