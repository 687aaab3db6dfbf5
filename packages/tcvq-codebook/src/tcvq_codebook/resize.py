"""Trajectories of another number of steps: a codebook trained with T steps used with T'."""

from typing import Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor

Resize = Literal["truncate", "repeat-last", "nearest", "linear"]


def resize_entries(entries: Float[Tensor, "K T *width"], n_steps: int, mode: Resize) -> Float[Tensor, "K steps *width"]:
    """Resample trajectories along time; linear in the entries, and an exact copy if T' = T.

    ``truncate`` keeps the first T' steps, which for a causal encoder is what a shorter run computes. ``repeat-last``
    keeps them too, and continues with copies of the last one. ``nearest`` and ``linear`` stretch the trajectory: new
    step t' stands at u = t' (T − 1) / (T' − 1), so that the first and the last step stay what they are, and takes the
    step nearest to u (the later one of two), or the linear interpolation at u. For T' = 1 both keep the first step.

    Args:
        entries: Trajectories.
        n_steps: T'.
        mode: One of the four.

    Raises:
        ValueError: If T' is below 1, above T under ``truncate``, or the mode is unknown.
    """
    old = entries.shape[1]
    if mode not in get_args(Resize):
        raise ValueError(f"unknown resize mode {mode!r}; there are {', '.join(get_args(Resize))}")
    if n_steps < 1 or (mode == "truncate" and n_steps > old):
        raise ValueError(f"cannot {mode} {old} steps to {n_steps}" + "; use repeat-last or linear" * (n_steps > old))
    new = torch.arange(n_steps, device=entries.device)
    if mode in ("truncate", "repeat-last"):
        return entries[:, new.clamp(max=old - 1)]
    gaps = max(n_steps - 1, 1)
    if mode == "nearest":
        return entries[:, (2 * new * (old - 1) + gaps) // (2 * gaps)]
    left = new * (old - 1) // gaps
    share = (new * (old - 1) % gaps).to(entries.dtype) / gaps
    right = (left + 1).clamp(max=old - 1)
    return torch.lerp(entries[:, left], entries[:, right], share.view(-1, *[1] * (entries.ndim - 2)))
