"""How much of a codebook is in use, computed from counts, so that windows and ranks can be summed first."""

import torch
from jaxtyping import Bool, Float, Int, Int64
from torch import Tensor


def code_counts(indices: Int[Tensor, "*shape"], n_embed: int) -> Int64[Tensor, "K"]:
    """Return how often each of the K = ``n_embed`` codes occurs in ``indices``, without a host synchronisation."""
    flat = indices.detach().reshape(-1).long()
    zeros = torch.zeros(n_embed, dtype=torch.int64, device=indices.device)
    return zeros.scatter_add_(0, flat, torch.ones_like(flat))


def perplexity(counts: Int[Tensor, "K"] | Float[Tensor, "K"]) -> Float[Tensor, ""]:
    """Return exp(−Σ_k p_k ln p_k) with p = counts / Σ counts: between 1 and K, and 1 if nothing was counted.

    Sum counts over batches before calling this: the mean of per-batch perplexities understates usage.
    """
    p = counts / counts.sum().clamp(min=1)
    return torch.special.entr(p).sum().exp()


def used_fraction(counts: Int[Tensor, "K"] | Float[Tensor, "K"]) -> Float[Tensor, ""]:
    """Return the share of codes that occur at least once, between 0 and 1."""
    return (counts > 0).float().mean()


def dead_codes(counts: Int[Tensor, "K"], min_usage: float) -> Bool[Tensor, "K"]:
    """Return which codes were used less than ``min_usage`` times as often as under uniform use.

    Nothing is dead before anything was counted.
    """
    return counts < min_usage * counts.sum() / len(counts)


def dead_fraction(counts: Int[Tensor, "K"], min_usage: float = 0.1) -> Float[Tensor, ""]:
    """Return the share of codes that `dead_codes` calls dead, between 0 and 1."""
    return dead_codes(counts, min_usage).float().mean()


def usage_weights(
    n_embed: int, counts: Int[Tensor, "K"] | Float[Tensor, "K"] | None = None, *, device: torch.device | None = None
) -> Float[Tensor, "K"]:
    """Return p_k = counts_k / Σ counts in float64, or 1/K for each code where nothing was counted or given.

    Raises:
        ValueError: If there is not one count per code.
    """
    if counts is None:
        counts = torch.ones(n_embed, device=device)
    if len(counts) != n_embed:
        raise ValueError(f"got {len(counts)} counts for {n_embed} codes; pass one count per code")
    p = counts.to(device, torch.float64)
    total = p.sum()
    return torch.where(total > 0, p / total, 1 / n_embed)
