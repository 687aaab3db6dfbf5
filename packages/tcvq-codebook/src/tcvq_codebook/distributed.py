"""What the ranks of a training run agree on: sums, pooled rows and drawn numbers. Without a process group, nothing.

Every function but `world_size` is a collective: all ranks call it, in the same order, whatever number of sites each of
them has, none included.
"""

import torch
import torch.distributed as dist
from jaxtyping import Float
from torch import Tensor


def world_size() -> int:
    """Return the number of ranks, 1 without a process group."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def add_over_ranks(x: Tensor) -> Tensor:
    """Replace ``x`` in place by its sum over the ranks, and return it."""
    if world_size() > 1:
        dist.all_reduce(x)
    return x


def total_over_ranks(n: int, device: torch.device) -> int:
    """Return the sum of ``n`` over the ranks."""
    return int(add_over_ranks(torch.tensor(n, device=device))) if world_size() > 1 else n


def copy_from_first_rank(x: Tensor) -> Tensor:
    """Replace ``x`` in place by rank 0's, and return it."""
    if world_size() > 1:
        dist.broadcast(x, 0)
    return x


def rows_of_all_ranks(rows: Float[Tensor, "n width"]) -> Float[Tensor, "all width"]:
    """Return the rows of all ranks, one rank after the other, the same on every rank.

    Ranks may hold different numbers of rows: all pad to the longest first, so that all send the same shape.
    """
    ranks = world_size()
    if ranks == 1:
        return rows
    lengths = [torch.zeros(1, dtype=torch.int64, device=rows.device) for _ in range(ranks)]
    dist.all_gather(lengths, torch.tensor([len(rows)], device=rows.device))
    sizes = [int(length) for length in lengths]
    padded = rows.new_zeros(max(sizes), rows.shape[1])
    padded[: len(rows)] = rows
    parts = [torch.empty_like(padded) for _ in range(ranks)]
    dist.all_gather(parts, padded)
    return torch.cat([part[:size] for part, size in zip(parts, sizes, strict=True)])
