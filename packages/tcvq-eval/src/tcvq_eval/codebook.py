"""How much of a codebook is used: counts over a whole set of indices, never means over batches."""

from dataclasses import dataclass

import torch
from jaxtyping import Int
from torch import Tensor


@dataclass(frozen=True, kw_only=True, slots=True)
class CodeUsage:
    """Use of a codebook by a set of indices.

    Attributes:
        n_embed: Number of codes K.
        n_tokens: Number of indices counted.
        used: Codes that occur at least once.
        used_fraction: ``used / n_embed``.
        perplexity: exp(entropy) of the code frequencies, between 1 and K.
        counts: How often each code occurs, in the codebook's order.
    """

    n_embed: int
    n_tokens: int
    used: int
    used_fraction: float
    perplexity: float
    counts: tuple[int, ...]


def code_usage(indices: Int[Tensor, "*any"], n_embed: int) -> CodeUsage:
    """Count the codes of a whole set.

    Args:
        indices: Code indices in any shape, each in [0, n_embed).
        n_embed: Number of codes K.

    Raises:
        ValueError: There is no index, or one lies outside the codebook.
    """
    flat = indices.flatten()
    if not len(flat):
        raise ValueError("code usage needs at least one index; got an empty tensor")
    if flat.min() < 0 or flat.max() >= n_embed:
        raise ValueError(
            f"code indices span {int(flat.min())} to {int(flat.max())}; a codebook of {n_embed} has 0 to {n_embed - 1}"
        )
    counts = torch.bincount(flat.cpu(), minlength=n_embed)
    p = counts.double() / len(flat)
    used = int((counts > 0).sum())
    return CodeUsage(
        n_embed=n_embed,
        n_tokens=len(flat),
        used=used,
        used_fraction=used / n_embed,
        perplexity=torch.special.entr(p).sum().exp().item(),
        counts=tuple(counts.tolist()),
    )
