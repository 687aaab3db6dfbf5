"""Compaction to the codes in use, and back: a smaller vocabulary for a prior, without touching the codebook."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int, Int64
from torch import Tensor

from tcvq_codebook.nearest import nearest


@dataclass(frozen=True, kw_only=True, slots=True)
class CodeMap:
    """A renumbering of codes that leaves some out.

    Attributes:
        used: The original number of each compact code, ascending: maps back, ``used[compact]``.
        compact: The compact number of each original code, −1 for one that is left out without a substitute.
    """

    used: Int64[Tensor, "U"]
    compact: Int64[Tensor, "K"]

    def to_compact(self, indices: Int[Tensor, "*shape"]) -> Int64[Tensor, "*shape"]:
        """Return compact numbers for original ones; the argument is not changed.

        Raises:
            ValueError: If an index is not one of 0 … K − 1, or a code that was left out without a substitute.
        """
        compact = self.compact[_checked(indices, len(self.compact), "codebook")]
        if bool((compact < 0).any()):
            lost = indices[compact < 0]
            raise ValueError(
                f"{lost.numel()} indices name codes outside the {len(self.used)} used ones, such as {int(lost[0])}; "
                "count usage on all data, or pass the codebook to code_map to substitute the nearest used code"
            )
        return compact

    def to_original(self, indices: Int[Tensor, "*shape"]) -> Int64[Tensor, "*shape"]:
        """Return original numbers for compact ones; the argument is not changed.

        Raises:
            ValueError: If an index is not one of 0 … U − 1.
        """
        return self.used[_checked(indices, len(self.used), "compact codebook")]


def code_map(
    counts: Int[Tensor, "K"], *, min_count: int = 1, codebook: Float[Tensor, "K *entry"] | None = None
) -> CodeMap:
    """Number the codes that occur at least ``min_count`` times from 0 on, in their order.

    Args:
        counts: How often each code occurs.
        min_count: A code that occurs less often is left out.
        codebook: The entries; if given, a code that is left out is replaced by the used one nearest to it, so that
            `CodeMap.to_compact` takes every index. Without, it refuses such an index.

    Raises:
        ValueError: If no code occurs that often.
    """
    used = (counts >= min_count).nonzero().squeeze(1)
    if len(used) == 0:
        raise ValueError(f"none of the {len(counts)} codes occurs {min_count} times; count usage on some data first")
    if codebook is None:
        compact = torch.full_like(counts, -1, dtype=torch.int64)
    else:
        entries = codebook.detach().flatten(1)
        compact = nearest(entries, entries[used])
    compact[used] = torch.arange(len(used), device=used.device)
    return CodeMap(used=used, compact=compact)


def _checked(indices: Int[Tensor, "*shape"], n: int, what: str) -> Int64[Tensor, "*shape"]:
    if indices.numel():
        low, high = (int(bound) for bound in indices.aminmax())
        if low < 0 or high >= n:
            raise ValueError(f"indices reach from {low} to {high}, but the {what} has codes 0 to {n - 1}")
    return indices.long()
