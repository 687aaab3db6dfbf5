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
