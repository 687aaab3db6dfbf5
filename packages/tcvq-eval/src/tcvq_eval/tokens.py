"""How far sampled grids of codes are from real ones, before any decoder: which codes, and which beside which."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Int
from torch import Tensor

from .comparison import halves


@dataclass(frozen=True, kw_only=True, slots=True)
class TokenDistances:
    """Jensen-Shannon divergences of sampled from real codes, in bits: 0 where they agree, 1 where they share nothing.

    Attributes:
        n: Grids on each side of every comparison.
        histogram: Of single codes.
        histogram_floor: The same of real against real.
        bigram: Of pairs of neighbours in the grid, mean over its axes; too few grids make it large, also its floor.
        bigram_floor: The same of real against real.
    """

    n: int
    histogram: float
    histogram_floor: float
    bigram: float
    bigram_floor: float


def token_distances(
    real: Int[Tensor, "N *grid"], fake: Int[Tensor, "M *sampled"], n_embed: int, *, seed: int = 0
) -> TokenDistances:
    """Compare sampled with real grids of codes, and real with real ones.

    ``n = min(M, N // 2)`` grids stand on each side, of the sampled ones the first: divergences of samples are biased
    upwards, all the more the fewer there are, so that only the floor at the same n says what a value means.

    Args:
        real: Codes of held-out images, each in [0, n_embed).
        fake: Sampled codes in grids of the same shape.
        n_embed: Number of codes K.
        seed: Of the division of the real ones.

    Raises:
        ValueError: There are too few grids, they differ in shape, or a code lies outside the codebook.
    """
    n = min(len(fake), len(real) // 2)
    if n < 1 or real.shape[1:] != fake.shape[1:]:
        raise ValueError(f"codes {tuple(real.shape)} and {tuple(fake.shape)} cannot be compared: grids of one shape")
    for codes in (real, fake):
        if codes.min() < 0 or codes.max() >= n_embed:
            raise ValueError(f"codes span {int(codes.min())} to {int(codes.max())}; a codebook has 0 to {n_embed - 1}")
    first, second = halves(len(real), n, seed)
    a, b, f = real[first].long(), real[second].long(), fake[:n].long()
    return TokenDistances(
        n=n,
        histogram=js_divergence(a.flatten(), f.flatten()),
        histogram_floor=js_divergence(a.flatten(), b.flatten()),
        bigram=_bigrams(a, f, n_embed),
        bigram_floor=_bigrams(a, b, n_embed),
    )


def js_divergence(a: Int[Tensor, " N"], b: Int[Tensor, " M"]) -> float:
    """Return H((p + q) / 2) - (H(p) + H(q)) / 2 in bits, p and q the frequencies of the values (Lin 1991, eq. 4.1)."""
    values, place = torch.cat([a, b]).unique(return_inverse=True)
    counts = [torch.bincount(part, minlength=len(values)).double() for part in place.split([len(a), len(b)])]
    p, q = (count / count.sum() for count in counts)
    entropy = [torch.special.entr(x).sum() for x in ((p + q) / 2, p, q)]
    return max(0.0, (entropy[0] - (entropy[1] + entropy[2]) / 2).item() / math.log(2))


def _bigrams(a: Tensor, b: Tensor, n_embed: int) -> float:
    """Return the mean divergence of pairs of neighbours along each axis of the grid that has any."""
    axes = [axis for axis in range(1, a.ndim) if a.shape[axis] > 1]

    def pairs(codes: Tensor, axis: int) -> Tensor:
        size = codes.shape[axis] - 1
        return (codes.narrow(axis, 0, size) * n_embed + codes.narrow(axis, 1, size)).flatten()

    return sum(js_divergence(pairs(a, axis), pairs(b, axis)) for axis in axes) / max(len(axes), 1)
