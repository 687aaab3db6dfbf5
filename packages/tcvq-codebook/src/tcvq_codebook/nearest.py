"""Exact nearest-entry search in bounded memory: one matrix product per chunk, whatever N, K and the width."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from jaxtyping import Float, Int64
from torch import Tensor


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

    Half of the budget holds a block of centred codes and its squares, half the centred rows and their scores.
    """
    codes = min(n_embed, max(1, max_bytes // (4 * width * itemsize)))
    rows = max(1, max_bytes // (2 * (codes + width) * itemsize))
    return rows, codes


@torch.no_grad()
def nearest(
    z: Float[Tensor, "N width"], codes: Float[Tensor, "K width"], *, max_bytes: int = 64 * 2**20
) -> Int64[Tensor, "N"]:
    """Return k_n = argmin_k ½‖e_k − c‖² − (z_n − c)·(e_k − c), with c the mean of the codes.

    The same argmin as ‖z_n − e_k‖²; moving the origin to c keeps it exact when all codes share a large offset.
    Computed in float32, or float64 if an input is float64, whatever autocast and TF32 say. Ties give the lowest index.

    Args:
        z: Vectors to look up; N may be 0.
        codes: The entries, K of them, at least one.
        max_bytes: Bound on the extra memory of a chunk; a single row and a single code are always allowed. The bound
            leaves out vectors of N or K numbers. It changes the last bits of scores at most.

    Returns:
        The index of the nearest entry of every row, without gradient.
    """
    dtype = torch.promote_types(torch.promote_types(z.dtype, codes.dtype), torch.float32)
    rows, block = chunk_sizes(len(codes), codes.shape[1], dtype.itemsize, max_bytes)
    best = torch.full((len(z),), torch.inf, dtype=dtype, device=z.device)
    pick = torch.zeros(len(z), dtype=torch.int64, device=z.device)
    with _full_precision(z.device):
        centre = codes.mean(0, dtype=dtype)
        for first in range(0, len(codes), block):
            e = codes[first : first + block] - centre
            half = 0.5 * e.square().sum(1)
            for start in range(0, len(z), rows):
                part = slice(start, start + rows)
                score, index = torch.addmm(half, z[part] - centre, e.t(), alpha=-1).min(1)
                pick[part] = torch.where(score < best[part], index + first, pick[part])  # strict: ties keep the lower
                best[part] = torch.minimum(score, best[part])
    return pick
