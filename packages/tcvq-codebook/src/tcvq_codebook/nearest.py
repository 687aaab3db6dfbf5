"""Exact nearest-entry search in bounded memory: one matrix product per chunk, whatever N, K and the width."""

import math
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

_ALIGN = 64


@contextmanager
def _full_precision(device: torch.device) -> Iterator[None]:
    """Switch autocast and reduced matmul precision (TF32, bf16) off, and restore the caller's setting."""
    with torch.autocast(device.type, enabled=False):
        if not hasattr(torch.backends.cuda.matmul, "fp32_precision"):  # torch < 2.9
            legacy = torch.get_float32_matmul_precision()
            torch.set_float32_matmul_precision("highest")
            try:
                yield
            finally:
                torch.set_float32_matmul_precision(legacy)
            return
        backends = (torch.backends.cuda.matmul, torch.backends.mkldnn.matmul)  # type: ignore[attr-defined]
        saved = [backend.fp32_precision for backend in backends]
        try:
            for backend in backends:
                backend.fp32_precision = "ieee"
            yield
        finally:
            for backend, value in zip(backends, saved, strict=True):
                backend.fp32_precision = value


def chunk_sizes(n_embed: int, width: int, itemsize: int, max_bytes: int) -> tuple[int, int]:
    """Return (rows, codes) of one chunk such that all temporaries of a chunk fit ``max_bytes``.

    Half of the budget holds a block of centred codes and its squares, half the centred rows and their scores. Blocks
    are of about equal size and a multiple of 64 codes: matrix products of other sizes were seen to take a third longer.
    """
    most = max(1, max_bytes // (4 * width * itemsize))
    if most >= n_embed:
        codes = n_embed
    elif most < _ALIGN:
        codes = most
    else:
        n_blocks = math.ceil(n_embed / (most - most % _ALIGN))
        codes = math.ceil(n_embed / n_blocks / _ALIGN) * _ALIGN
    rows = max(1, max_bytes // (2 * (codes + width) * itemsize))
    return rows, codes


def require_finite(z: Float[Tensor, "N *width"]) -> None:
    """Raise if a row holds NaN or inf: a search would send it anywhere, and nobody would know where it came from.

    Raises:
        ValueError: If so; says how many rows.
    """
    if not z.sum().isfinite() and (bad := int((~z.isfinite()).flatten(1).any(1).sum())):  # a finite sum is proof
        raise ValueError(
            f"{bad} of {len(z)} sites of the latents given to the codebook hold NaN or inf; look for an "
            "overflow in the encoder or lower the learning rate"
        )


@torch.no_grad()
def nearest(
    z: Float[Tensor, "N width"],
    codes: Float[Tensor, "K width"],
    *,
    mask: Bool[Tensor, "N T"] | None = None,
    step_weights: Float[Tensor, "T"] | None = None,
    max_bytes: int = 64 * 2**20,
) -> Int64[Tensor, "N"]:
    """Return k_n = argmin_k Σ_t m_nt w_t ‖z_nt − e_kt‖², with the width divided into T equal steps.

    Computed as argmin_k Σ_t m_nt w_t (½‖e_kt − c_t‖² − (z_nt − c_t)·(e_kt − c_t)) with c the mean of the codes: moving
    the origin to c keeps it exact when all codes share a large offset. In float32, or float64 if an input is float64,
    whatever autocast and TF32 say. Ties give the lowest index.

    Args:
        z: Finite vectors to look up, each a trajectory, time-major; N may be 0.
        codes: The entries, K of them, at least one.
        mask: m, which steps of a row count; None is all. A row without any has index 0.
        step_weights: w, the weight of each step; None is 1.
        max_bytes: Bound on the extra memory of a chunk; a single row and a single code are always allowed. The bound
            leaves out vectors of N or K·T numbers. It changes the last bits of scores at most.

    Returns:
        The index of the nearest entry of every row, without gradient.

    Raises:
        ValueError: If a row holds NaN or inf, or the width is not a multiple of the number of steps.
    """
    width = codes.shape[1]
    n_steps = mask.shape[1] if mask is not None else 1 if step_weights is None else len(step_weights)
    if width % n_steps:
        raise ValueError(f"rows of width {width} do not divide into the {n_steps} steps of the mask or step_weights")
    require_finite(z)
    dtype = torch.promote_types(torch.promote_types(z.dtype, codes.dtype), torch.float32)
    rows, block = chunk_sizes(len(codes), width, dtype.itemsize, max_bytes)
    best = torch.full((len(z),), torch.inf, dtype=dtype, device=z.device)
    pick = torch.zeros(len(z), dtype=torch.int64, device=z.device)
    with _full_precision(z.device):
        centre = codes.mean(0, dtype=dtype)
        for first in range(0, len(codes), block):
            e, half = _centred(codes[first : first + block], centre, n_steps, step_weights)
            for start in range(0, len(z), rows):
                part = slice(start, start + rows)
                score, index = _scores(z[part] - centre, e, half, None if mask is None else mask[part]).min(1)
                pick[part] = torch.where(score < best[part], index + first, pick[part])  # strict: ties keep the lower
                best[part] = torch.minimum(score, best[part])
    return pick


def _centred(codes: Tensor, centre: Tensor, n_steps: int, step_weights: Tensor | None) -> tuple[Tensor, Tensor]:
    """Return w(e − c), ``(k, width)``, and ½w‖e − c‖² of each step, ``(k, T)``."""
    e = codes - centre
    half = 0.5 * e.square().unflatten(1, (n_steps, -1)).sum(2)
    if step_weights is not None:
        w = step_weights.to(e.dtype)
        half *= w
        e.unflatten(1, (n_steps, -1)).mul_(w.unsqueeze(1))
    return e, half


def _scores(x: Tensor, e: Tensor, half: Tensor, mask: Tensor | None) -> Tensor:
    """Return Σ_t m_t half_t − (m x)·e for all rows and codes; a mask is applied to ``x`` in place."""
    if mask is None:
        return torch.addmm(half.sum(1), x, e.t(), alpha=-1)
    m = mask.to(x.dtype)
    x.unflatten(1, (mask.shape[1], -1)).mul_(m.unsqueeze(2))
    size = m @ half.t()
    return torch.addmm(size, x, e.t(), alpha=-1, out=size)
