"""Compiled kernels of group norm and neuron in one pass: for the CPU, on frames with channels last in memory.

Importing this file imports numba. Sequences are ``(T, B, sites * C)``; bfloat16 comes as its bits in uint16. Arithmetic
has the type of ``work``. Loops run over many sites at once, with what belongs to channels repeated for every site, so
that they compile to long vector loops. Everything that is compiled stands here, because numba's cache
on disk notices changes of this file only. No fast-math: a sample's numbers do not depend on the batch or the threads.
"""
# ruff: noqa: PLR0917, ANN001, ANN202 - numba passes arguments by position, and its overloads carry no annotations

from collections.abc import Callable
from typing import Any, NamedTuple, no_type_check

import numpy as np
from numba import njit, types
from numba.extending import overload
from numpy.typing import NDArray

Array = NDArray[Any]

BLOCK = 1024  # numbers that a loop runs over, if they are at least one site: everything it needs stays in cache

BF16_SHIFT, BF16_HALF, BF16_NAN = np.uint32(16), np.uint32(0x7FFF), np.uint16(0x7FC0)


class Neuron(NamedTuple):
    """The paper's neuron, in the type of the arithmetic: h = v + (x - v) / tau, ds/du = max(0, k0 - k1 |u|)."""

    tau: Any
    v_th: Any
    k0: Any
    k1: Any
    k2: Any
    one: Any
    gate: bool


@no_type_check
def _widen(value):
    """Return a stored value as a float; bfloat16 is stored as its bits in uint16."""


@overload(_widen)
@no_type_check
def _compile_widen(value):
    def same(value):
        return value

    def from_bfloat16(value):
        return np.uint32(np.uint32(value) << BF16_SHIFT).view(np.float32)

    return same if isinstance(value, types.Float) else from_bfloat16


@no_type_check
def _round(value, like):
    """Return a float as it is stored in an array with elements such as ``like``, rounded to the nearest even."""


@overload(_round)
@no_type_check
def _compile_round(value, like):
    def same(value, like):
        return value

    def to_bfloat16(value, like):
        bits = np.float32(value).view(np.uint32)
        odd = np.uint32(bits >> BF16_SHIFT) & np.uint32(1)
        rounded = np.uint16(np.uint32(bits + BF16_HALF + odd) >> BF16_SHIFT)
        return BF16_NAN if value != value else rounded  # noqa: PLR0124 - true for NaN only

    return same if isinstance(like, types.Float) else to_bfloat16


def _jit(kernel: Callable[..., Any]) -> Callable[..., Any]:
    """Compile on first use; keep the machine code on disk if there is a folder that can be written to."""
    try:
        return njit(cache=True, nogil=True, error_model="numpy")(kernel)
    except RuntimeError:  # numba found no such folder
        return njit(nogil=True, error_model="numpy")(kernel)


@_jit
@no_type_check
def _add(x: Array, sums: Array) -> None:
    for i in range(x.size):
        sums[i] += _widen(x[i])


@_jit
@no_type_check
def _add_squares(x: Array, centre: Array, sums: Array) -> None:
    for i in range(x.size):
        d = _widen(x[i]) - centre[i]
        sums[i] += d * d


@_jit
@no_type_check
def _to_groups(sums: Array, n_channels: int, n_groups: int, size: Any, out: Array) -> None:
    """Write to ``out`` the sums over all sites and all channels of a group, divided by ``size``."""
    width = n_channels // n_groups
    for g in range(n_groups):
        total = sums[0] - sums[0]
        for first in range(g * width, sums.size, n_channels):
            for i in range(first, first + width):
                total += sums[i]
        out[g] = total / size


@_jit
@no_type_check
def _repeat(groups: Array, n_channels: int, out: Array) -> None:
    """Write the value of a channel's group for every channel of every site."""
    width = n_channels // groups.size
    for c in range(n_channels):
        out[c] = groups[c // width]
    for i in range(n_channels, out.size):
        out[i] = out[i - n_channels]


@_jit
@no_type_check
def _statistics(x: Array, n_channels: int, mean: Array, rstd: Array, centre: Array, sums: Array, eps: Any) -> None:
    """Write mean and 1 / sqrt(var + eps) of every group of one frame."""
    size = x.size // mean.size * (eps / eps)
    sums[:] = 0
    for first in range(0, x.size, sums.size):
        _add(x[first : first + sums.size], sums)
    _to_groups(sums, n_channels, mean.size, size, mean)
    _repeat(mean, n_channels, centre)
    sums[:] = 0
    for first in range(0, x.size, sums.size):
        _add_squares(x[first : first + sums.size], centre, sums)
    _to_groups(sums, n_channels, mean.size, size, rstd)
    for g in range(rstd.size):
        rstd[g] = 1 / np.sqrt(rstd[g] + eps)


@_jit
@no_type_check
def _affine(weight: Array, bias: Array, mean: Array, rstd: Array, scale: Array, shift: Array) -> None:
    """Write the normalisation of one frame as x * scale + shift, for every channel of every site."""
    width = weight.size // mean.size
    for c in range(weight.size):
        scale[c] = weight[c] * rstd[c // width]
        shift[c] = bias[c] - mean[c // width] * scale[c]
    for i in range(weight.size, scale.size):
        scale[i] = scale[i - weight.size]
        shift[i] = shift[i - weight.size]


@_jit
@no_type_check
def _fire(x: Array, scale: Array, shift: Array, v: Array, y: Array, k: Neuron) -> None:
    for i in range(x.size):
        a = _widen(x[i]) * scale[i] + shift[i]
        h = v[i] + (a - v[i]) / k.tau
        s = k.one if h > k.v_th else k.one - k.one
        v[i] = h * (k.one - s)
        y[i] = _round(a * s if k.gate else s, y[i])


@_jit
@no_type_check
def forward(
    x: Array,
    weight: Array,
    bias: Array,
    y: Array,
    mean: Array,
    rstd: Array,
    work: Array,
    eps: Any,
    k: Neuron,
    first: int,
    last: int,
) -> None:
    """Run samples ``first`` to ``last``; an ``x`` of one step is the same at every step of ``y``.

    ``work`` is a block of numbers, a whole number of sites.
    """
    size, n_channels, n_frames = work.size, weight.size, len(x)
    scale, shift = np.empty((n_frames, size), work.dtype), np.empty((n_frames, size), work.dtype)
    v = np.empty_like(work)
    for n in range(first, last):
        for u in range(n_frames):
            _statistics(x[u, n], n_channels, mean[u, n], rstd[u, n], v, work, eps)
            _affine(weight, bias, mean[u, n], rstd[u, n], scale[u], shift[u])
        for start in range(0, x.shape[2], size):
            v[:] = 0
            for t in range(len(y)):
                u = t if n_frames > 1 else 0
                _fire(x[u, n, start : start + size], scale[u], shift[u], v, y[t, n, start : start + size], k)


@_jit
@no_type_check
def _recompute(x: Array, scale: Array, shift: Array, v: Array, h_row: Array, k: Neuron) -> None:
    for i in range(x.size):
        a = _widen(x[i]) * scale[i] + shift[i]
        h = v[i] + (a - v[i]) / k.tau
        h_row[i] = h
        v[i] = k.one - k.one if h > k.v_th else h


@_jit
@no_type_check
def _back(x: Array, scale: Array, shift: Array, g: Array, h_row: Array, carry: Array, k: Neuron) -> None:
    """Turn the membrane before the reset into the gradient of the normalised current."""
    for i in range(x.size):
        a = _widen(x[i]) * scale[i] + shift[i]
        gy, h = _widen(g[i]), h_row[i]
        s = k.one if h > k.v_th else k.one - k.one
        distance = np.abs(h - k.v_th)
        slope = k.one - k.one if distance > k.k2 else k.k0 - k.k1 * distance
        gh = (gy * a if k.gate else gy) * slope + carry[i] * (k.one - s)
        q = gh / k.tau
        carry[i] = gh - q
        h_row[i] = gy * s + q if k.gate else q


@_jit
@no_type_check
def _add_products(g: Array, x: Array, sums: Array, products: Array) -> None:
    for i in range(x.size):
        sums[i] += g[i]
        products[i] += g[i] * _widen(x[i])


@_jit
@no_type_check
def _norm_back(g: Array, x: Array, a: Array, d: Array, e: Array, gx: Array) -> None:
    for i in range(x.size):
        gx[i] = _round(g[i] * a[i] - (_widen(x[i]) * d[i] + e[i]), gx[i])


@_jit
@no_type_check
def _factors(
    weight: Array, mean: Array, rstd: Array, g_weight: Array, g_bias: Array, size: Any, a: Array, d: Array, e: Array
) -> None:
    """Write dL/dx = g a - (x d + e); ``g_weight`` holds Σ g x and becomes Σ g x̂."""
    width = weight.size // mean.size
    for i in range(mean.size):
        m, r = mean[i], rstd[i]
        total, product = m - m, m - m
        for c in range(i * width, (i + 1) * width):
            g_weight[c] = (g_weight[c] - m * g_bias[c]) * r
            total += weight[c] * g_bias[c]
            product += weight[c] * g_weight[c]
        for c in range(i * width, (i + 1) * width):
            a[c] = r * weight[c]
            d[c] = r * r * product / size
            e[c] = r * total / size - m * d[c]
    for i in range(weight.size, a.size):
        a[i], d[i], e[i] = a[i - weight.size], d[i - weight.size], e[i - weight.size]


@_jit
@no_type_check
def _to_channels(sums: Array, out: Array) -> None:
    """Write the sums over the sites of a block."""
    out[:] = 0
    for first in range(0, sums.size, out.size):
        for c in range(out.size):
            out[c] += sums[first + c]


@_jit
@no_type_check
def backward(
    x: Array,
    weight: Array,
    bias: Array,
    g: Array,
    gx: Array,
    mean: Array,
    rstd: Array,
    g_weight: Array,
    g_bias: Array,
    work: Array,
    kept: Array,
    k: Neuron,
    first: int,
    last: int,
) -> None:
    """Walk samples ``first`` to ``last`` backwards; ``g_weight`` and ``g_bias`` get a row for every step and sample.

    ``work`` is a block of numbers, a whole number of sites; ``kept`` holds one sample ``(T, sites * C)``.
    """
    n_frames, n_steps, size = len(x), len(g), work.size
    scale, shift = np.empty((n_frames, size), work.dtype), np.empty((n_frames, size), work.dtype)
    sums, products = np.empty_like(scale), np.empty_like(scale)
    e = np.empty_like(work)
    for n in range(first, last):
        for u in range(n_frames):
            _affine(weight, bias, mean[u, n], rstd[u, n], scale[u], shift[u])
        sums[:] = 0
        products[:] = 0
        for start in range(0, x.shape[2], size):
            stop = min(start + size, x.shape[2])
            work[:] = 0
            for t in range(n_steps):
                u = t if n_frames > 1 else 0
                _recompute(x[u, n, start:stop], scale[u], shift[u], work, kept[t, start:stop], k)
            work[:] = 0
            for t in range(n_steps - 1, -1, -1):
                u = t if n_frames > 1 else 0
                _back(x[u, n, start:stop], scale[u], shift[u], g[t, n, start:stop], kept[t, start:stop], work, k)
            for t in range(n_frames, n_steps):
                _add(kept[t, start:stop], kept[0, start:stop])
            for u in range(n_frames):
                _add_products(kept[u, start:stop], x[u, n, start:stop], sums[u], products[u])
        for u in range(n_frames):
            _to_channels(sums[u], g_bias[u, n])
            _to_channels(products[u], g_weight[u, n])
            a, d = scale[u], shift[u]
            _factors(weight, mean[u, n], rstd[u, n], g_weight[u, n], g_bias[u, n], x.shape[2] // mean.shape[2], a, d, e)
            for start in range(0, x.shape[2], size):
                stop = min(start + size, x.shape[2])
                _norm_back(kept[u, start:stop], x[u, n, start:stop], a, d, e, gx[u, n, start:stop])
