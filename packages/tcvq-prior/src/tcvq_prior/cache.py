"""What attention remembers of earlier tokens: a running state, keys and values, or nothing."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from tcvq_prior.interface import CacheKind


class LayerCache:
    """The memory of one block; it starts empty, and its tensors have the rows on axis 1.

    Args:
        kind: ``state`` or ``kv``.
        capacity: Most tokens that ``kv`` will hold.
    """

    def __init__(self, kind: CacheKind, capacity: int) -> None:
        self.kind, self.capacity = kind, capacity
        self.tensors: tuple[Tensor, ...] = ()

    @property
    def state(self) -> Float[Tensor, "T B heads d d"] | None:
        """Σ kᵀv over the tokens seen, None before the first."""
        return self.tensors[0] if self.tensors else None

    def add(self, kv: Float[Tensor, "T B heads d d"]) -> Float[Tensor, "T B heads d d"]:
        """Add the products kᵀv of new tokens to the state, and return it."""
        if not self.tensors:
            self.tensors = (kv,)
        elif torch.is_grad_enabled():
            self.tensors = (self.tensors[0] + kv,)
        else:
            self.tensors[0].add_(kv)
        return self.tensors[0]

    def append(
        self, k: Float[Tensor, "T B heads L d"], v: Float[Tensor, "T B heads L d"], first: int, *, binary: bool
    ) -> tuple[Float[Tensor, "T B heads n d"], Float[Tensor, "T B heads n d"]]:
        """Store keys and values of the tokens from ``first`` on, and return those of all tokens.

        Args:
            k: Keys of the new tokens.
            v: Their values.
            first: Number of tokens stored before; none of a longer past is kept.
            binary: Keys and values are spikes, and are stored as one byte each.
        """
        last = first + k.shape[-2]
        if torch.is_grad_enabled():  # a buffer that is written in place has no gradient
            past = (x[..., :first, :].to(k.dtype) for x in self.tensors) if self.tensors else (k[..., :0, :],) * 2
            self.tensors = tuple(torch.cat([old, new], dim=-2) for old, new in zip(past, (k, v), strict=True))
            return self.tensors[0], self.tensors[1]
        if not self.tensors or self.tensors[0].shape[-2] < self.capacity:
            dtype = torch.bool if binary else k.dtype
            grown = [k.new_empty((*k.shape[:-2], self.capacity, k.shape[-1]), dtype=dtype) for _ in range(2)]
            for buffer, old in zip(grown, self.tensors, strict=False):
                buffer[..., :first, :] = old[..., :first, :].to(dtype)
            self.tensors = tuple(grown)
        for buffer, new in zip(self.tensors, (k, v), strict=True):
            buffer[..., first:last, :] = new.to(buffer.dtype)
        keys, values = (buffer[..., :last, :].to(k.dtype) for buffer in self.tensors)
        return keys, values

    def select(self, rows: Int[Tensor, " R"]) -> "LayerCache":
        """Return a copy that holds the given rows."""
        other = LayerCache(self.kind, self.capacity)
        other.tensors = tuple(tensor.index_select(1, rows.to(tensor.device)) for tensor in self.tensors)
        return other


class AttentionCache:
    """One `LayerCache` per block, and the number of positions they have seen.

    Args:
        kind: ``state``, ``kv``, or ``none`` for the full forward every time.
        n_layer: Number of blocks.
        capacity: Most positions there will be.
    """

    def __init__(self, kind: CacheKind, n_layer: int, capacity: int) -> None:
        self.kind, self.length = kind, 0
        self.tables: tuple[Float[Tensor, "K C"], Float[Tensor, "K C"]] | None = None  # the prior's own, for all rows
        self.layers = [] if kind == "none" else [LayerCache(kind, capacity) for _ in range(n_layer)]

    @property
    def nbytes(self) -> int:
        """Bytes held for the rows."""
        return sum(tensor.nbytes for layer in self.layers for tensor in layer.tensors)

    def clear(self) -> None:
        """Forget what the blocks have seen, where a sequence begins that does not know the one before."""
        for layer in self.layers:
            layer.tensors = ()

    def select(self, rows: Int[Tensor, " R"]) -> "AttentionCache":
        """Return a copy that holds the given rows in the given order; a row may be left out or repeated."""
        other = AttentionCache(self.kind, 0, 0)
        other.length, other.tables = self.length, self.tables
        other.layers = [layer.select(rows) for layer in self.layers]
        return other
