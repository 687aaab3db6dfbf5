"""How many bits a prior needs for given grids."""

import math

from jaxtyping import Float, Int
from torch import Tensor

from tcvq_prior.interface import CacheChoice, CodePrior
from tcvq_prior.sampling import draw_grids


def score(
    prior: CodePrior,
    indices: Int[Tensor, "N H W"],
    labels: Int[Tensor, " N"] | None = None,
    *,
    cache: CacheChoice = "auto",
    micro_batch: int | None = 64,
) -> Float[Tensor, "N H W"]:
    """Return -log2 p of each code given those before it, float64; the sum over a grid is its length in bits.

    Args:
        prior: The model.
        indices: Grids of codes.
        labels: Class of each grid.
        cache: What the prior remembers between chunks of the grid; changes memory and time.
        micro_batch: Grids computed at a time, as in `draw_grids`.

    Raises:
        ValueError: If a code or label is out of range or missing.
    """
    if indices.numel() and int(indices.min()) < 0:
        raise ValueError(f"code {int(indices.min())} is negative; score needs whole grids")
    drawn = draw_grids(
        prior,
        len(indices),
        labels=labels,
        known=indices,
        cache=cache,
        micro_batch=micro_batch,
        return_logprobs=True,
    )
    assert drawn.log_probs is not None
    return -drawn.log_probs / math.log(2)
