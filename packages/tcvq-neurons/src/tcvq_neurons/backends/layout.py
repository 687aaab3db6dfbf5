"""Memory rule of the fused backends: run on raw memory, in whatever order one step's values lie.

The neuron is elementwise inside a step, so any step that fills its memory without gaps or overlaps (contiguous,
channels_last, transposed) can be read as N values in a row. Steps may lie any distance apart; distance 0 is a current
that is the same at every step.
"""

import torch
from jaxtyping import Float
from torch import Tensor


def is_dense(shape: tuple[int | torch.SymInt, ...], strides: tuple[int | torch.SymInt, ...]) -> bool:
    """Return whether a tensor fills its memory: no gaps, no value stored twice."""
    expected: int | torch.SymInt = 1
    for stride, size in sorted((stride, size) for stride, size in zip(strides, shape, strict=True) if size != 1):
        if stride != expected:
            return False
        expected *= size
    return True


def dense_steps(x_seq: Float[Tensor, "T *site"]) -> Float[Tensor, "T *site"]:
    """Return ``x_seq`` itself if each step is dense, else a contiguous copy."""
    if x_seq.is_contiguous() or is_dense(x_seq.shape[1:], x_seq.stride()[1:]):
        return x_seq
    return x_seq.contiguous()


def empty_steps(like: Float[Tensor, "T *site"], dtype: torch.dtype | None = None) -> Float[Tensor, "T *site"]:
    """Allocate a sequence whose steps have the memory order of ``like``'s and lie one behind the other."""
    n_site = like[0].numel()
    return torch.empty_strided(like.shape, (n_site, *like.stride()[1:]), dtype=dtype or like.dtype, device=like.device)


def match_site(
    v: Float[Tensor, "*site"], x_seq: Float[Tensor, "T *site"], dtype: torch.dtype
) -> Float[Tensor, "*site"]:
    """Return ``v`` in ``dtype`` and in the memory order of one step of ``x_seq``; itself if it already is."""
    strides = x_seq.stride()[1:]
    if v.dtype == dtype and (v.stride() == strides or (v.is_contiguous() and x_seq.is_contiguous())):
        return v
    return torch.empty_strided(v.shape, strides, dtype=dtype, device=v.device).copy_(v)


def match_steps(g_seq: Float[Tensor, "T *site"], x_seq: Float[Tensor, "T *site"]) -> Float[Tensor, "T *site"]:
    """Return ``g_seq`` in the memory order of ``x_seq``'s steps; itself if they have it already."""
    if g_seq.stride()[1:] == x_seq.stride()[1:] or (g_seq.is_contiguous() and x_seq.is_contiguous()):
        return g_seq
    return empty_steps(x_seq, g_seq.dtype).copy_(g_seq)
