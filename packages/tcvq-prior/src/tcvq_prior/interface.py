"""The contract of tcvq-prior: what any model of code grids offers to the sampler."""

from typing import Protocol, runtime_checkable

from jaxtyping import Float, Int
from torch import Tensor

INTERFACE_VERSION = "0.1"


@runtime_checkable
class CodePrior(Protocol):
    """An autoregressive distribution over grids of code indices, in raster order."""

    n_embed: int
    grid: tuple[int, int]
    n_classes: int

    def __call__(
        self, tokens: Int[Tensor, "B L"], labels: Int[Tensor, " B"] | None = None
    ) -> Float[Tensor, "B L_out K"]:
        """Return the logits of positions 0 … min(L, H·W − 1); output i scores token i given the tokens before it."""
        ...

    def sample(
        self,
        n: int,
        *,
        labels: Int[Tensor, " n"] | None = None,
        temperature: float = 1.0,
        top_k: int | None = None,
        top_p: float | None = None,
        seed: int = 0,
        micro_batch: int = 64,
    ) -> Int[Tensor, "n H W"]:
        """Draw grids; sample i depends on the seed and on i, not on the batch it was computed in."""
        ...
