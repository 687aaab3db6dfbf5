"""The contract of tcvq-prior: what any model of code grids offers to the sampler."""

from typing import Literal, Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor

INTERFACE_VERSION = "0.3"

CacheKind = Literal["state", "kv", "none"]
CacheChoice = Literal["auto", "state", "kv", "none"]


@runtime_checkable
class Cache(Protocol):
    """What a prior remembers of the positions that it has seen, for a batch of rows.

    `CodePrior.extend` uses a cache up: go on with the one it returns, and take a copy of rows with `select` before it
    to go on in two ways.

    Attributes:
        kind: ``state``: one running sum, constant in memory and time; ``kv``: keys and values, growing with the
            length; ``none``: nothing, every call computes all positions again.
        length: Number of positions seen.
    """

    kind: CacheKind
    length: int

    @property
    def nbytes(self) -> int:
        """Bytes held."""
        ...

    def select(self, rows: Int[Tensor, " R"]) -> "Cache":
        """Return a copy that holds the given rows in the given order; a row may be left out or repeated."""
        ...


@runtime_checkable
class CodePrior(Protocol):
    """An autoregressive distribution over grids of code indices, in raster order.

    Attributes:
        n_embed: Number of codes.
        grid: Height and width of a grid.
        n_classes: Number of classes; 0 is an unconditional prior.
        null_class: Label of "no class", for classifier-free guidance; None if the prior has none.
    """

    n_embed: int
    grid: tuple[int, int]
    n_classes: int
    null_class: int | None

    @property
    def device(self) -> torch.device:
        """Where the prior computes."""
        ...

    def __call__(
        self, tokens: Int[Tensor, "B L"], labels: Int[Tensor, " B"] | None = None
    ) -> Float[Tensor, "B L_out K"]:
        """Return the logits of positions 0 … min(L, H·W − 1); output i scores token i given the tokens before it."""
        ...

    def new_cache(self, kind: CacheChoice = "auto") -> Cache:
        """Return an empty cache; ``auto`` chooses the kind by the length of the grid.

        Raises:
            ValueError: If the prior has no cache of that kind.
        """
        ...

    def extend(
        self, tokens: Int[Tensor, "B L"], labels: Int[Tensor, " B"] | None, position: int, cache: Cache | None
    ) -> tuple[Float[Tensor, "B P K"], Cache]:
        """Compute the positions from ``position`` on, given a cache of all positions before it.

        Args:
            tokens: All codes known so far, raster order; the first ``position`` of them are in the cache already.
            labels: Class of each row; None stands for "no class" where the prior knows it, or has no classes.
            position: Number of positions that the cache has seen.
            cache: The cache after those positions; None begins with an empty one.

        Returns:
            Logits of positions ``position`` … min(L, H·W − 1), equal to those of the whole forward, and the cache
            after them.
        """
        ...

    def cache_bytes(self, rows: int, kind: CacheChoice = "auto") -> int:
        """Return the bytes that a cache of ``rows`` full grids holds."""
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
