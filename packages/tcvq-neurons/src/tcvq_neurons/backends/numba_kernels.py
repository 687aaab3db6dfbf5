"""The compiled kernels of the numba backend: the equations of `tcvq_neurons.dynamics`, block by block in float32.

Importing this file imports numba. Kernels see dense steps as one row of memory (`tcvq_neurons.backends.layout`), and
bfloat16 as its bits in uint16. No fast-math and no reciprocals: every line is one rounding of the reference. Everything
that is compiled stands here, because numba's cache on disk notices changes of this file only.
"""
# ruff: noqa: PLR0917, ANN001, ANN202 - numba passes arguments by position, and its overloads carry no annotations

from collections import namedtuple
from collections.abc import Callable
from typing import Any, NamedTuple, no_type_check

import numpy as np
from numba import njit, types
from numba.extending import overload
from numpy.typing import NDArray

from tcvq_neurons import exponential

Row = NDArray[Any]

ZERO, ONE = np.float32(0), np.float32(1)

BLOCK = 4096  # neurons whose membrane stays in the first-level cache
CACHED_VALUES = 16384  # float32 values of h (T x neurons) kept between the two halves of the backward

LOG2_E, ROUND, LOWEST = np.float32(exponential.LOG2_E), np.float32(exponential.ROUND), np.float32(exponential.LOWEST)
LN2_HIGH, LN2_LOW = np.float32(exponential.LN2_HIGH), np.float32(exponential.LN2_LOW)
TAYLOR = tuple(np.float32(coefficient) for coefficient in exponential.TAYLOR)

# The constants of each surrogate; a class of its own for each makes numba compile a backward for each.
QuadraticGate = namedtuple("QuadraticGate", "k0 k1 k2")
ATan = namedtuple("ATan", "k0 k1 k2")
Sigmoid = namedtuple("Sigmoid", "k0 k1 k2")
Triangle = namedtuple("Triangle", "k0 k1 k2")
Rectangle = namedtuple("Rectangle", "k0 k1 k2")
SuperSpike = namedtuple("SuperSpike", "k0 k1 k2")

BF16_SHIFT, BF16_HALF, BF16_NAN = np.uint32(16), np.uint32(0x7FFF), np.uint16(0x7FC0)


class Constants(NamedTuple):
    """`LIFConfig` as the kernels take it, in float32; ``h - v_th > 0`` is ``h > fires_above`` in floating point too."""

    tau: np.float32
    v_th: np.float32
    fires_above: np.float32
    hard: bool
    soft: bool
    decay_input: bool
    detach_reset: bool
    gate: bool


class Span(NamedTuple):
    """Distances between steps in memory, and the sizes of a sequence."""

    n_steps: int
    n_site: int
    x_step: int
    g_step: int


@no_type_check
def _widen(value):
    """Return a stored value as float32; bfloat16 is stored as its bits in uint16."""


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
    """Return a float32 as it is stored in an array with elements such as ``like``, rounded to the nearest even."""


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
def _charge(x: np.float32, v: np.float32, k: Constants) -> np.float32:
    if k.decay_input:
        return v + (x - v) / k.tau
    return v - v / k.tau + x


@_jit
@no_type_check
def _fire(h: np.float32, k: Constants) -> np.float32:
    return ONE if h > k.fires_above else ZERO


@_jit
@no_type_check
def _reset(h: np.float32, s: np.float32, k: Constants) -> np.float32:
    if k.hard:
        return h * (ONE - s)
    if k.soft:
        return h - s * k.v_th
    return h


@_jit
@no_type_check
def _exp_negative(z: np.float32) -> np.float32:
    """Return `tcvq_neurons.exponential.exp_negative`."""
    t = z * LOG2_E + ROUND
    n = t - ROUND
    r = (z - n * LN2_HIGH) - n * LN2_LOW
    p = TAYLOR[0]
    for coefficient in TAYLOR[1:]:
        p = p * r + coefficient
    power = np.uint32(np.uint32(np.float32(t).view(np.uint32) + np.uint32(127)) << np.uint32(23)).view(np.float32)
    return ZERO if z < LOWEST else p * power


@no_type_check
def _quadratic_gate(u, k):
    distance = np.abs(u)
    return ZERO if distance > k.k2 else k.k0 - k.k1 * distance


@no_type_check
def _atan(u, k):
    z = k.k1 * u
    return k.k0 * (ONE / (ONE + z * z))


@no_type_check
def _sigmoid(u, k):
    e = _exp_negative(-k.k0 * np.abs(u))
    return k.k0 * e / ((ONE + e) * (ONE + e))


@no_type_check
def _triangle(u, k):
    distance = np.abs(u) * k.k1
    return ZERO if distance > ONE else k.k0 * (ONE - distance)


@no_type_check
def _rectangle(u, k):
    return ZERO if np.abs(u) >= k.k1 else k.k0 + ZERO * u


@no_type_check
def _super_spike(u, k):
    z = ONE + k.k0 * np.abs(u)
    return ONE / (z * z)


SLOPES = {
    QuadraticGate: _quadratic_gate,
    ATan: _atan,
    Sigmoid: _sigmoid,
    Triangle: _triangle,
    Rectangle: _rectangle,
    SuperSpike: _super_spike,
}


@no_type_check
def _slope(u, k):
    """Return a surrogate's ds/du, the one of the class of its constants ``k``."""


@overload(_slope)
@no_type_check
def _compile_slope(u, k):
    return SLOPES[k.instance_class]


@_jit
@no_type_check
def _load(v: Row, source: Row, start: int, size: int) -> None:
    """Fill ``v`` from ``source``; an empty source is 0."""
    for i in range(size):
        v[i] = source[start + i] if source.size else ZERO


@_jit
@no_type_check
def _forward_once(x: Row, y: Row, k: Constants) -> None:
    """Run one step from rest: `forward` without a membrane in memory."""
    for i in range(x.size):
        x_i = _widen(x[i])
        s = _fire(_charge(x_i, ZERO, k), k)
        y[i] = _round(x_i * s if k.gate else s, y[i])


@_jit
@no_type_check
def forward(x: Row, v0: Row, y: Row, v_last: Row, k: Constants, span: Span, first: int, last: int) -> None:
    """Run neurons ``first`` to ``last`` through all steps; empty ``v0`` is rest, empty ``v_last`` is not wanted."""
    if span.n_steps == 1 and not (v0.size or v_last.size):
        _forward_once(x[first:last], y[first:last], k)
        return
    v = np.empty(BLOCK, np.float32)
    for start in range(first, last, BLOCK):
        size = min(BLOCK, last - start)
        _load(v, v0, start, size)
        for t in range(span.n_steps):
            x_t = x[t * span.x_step + start : t * span.x_step + start + size]
            y_t = y[t * span.n_site + start : t * span.n_site + start + size]
            for i in range(size):
                x_i = _widen(x_t[i])
                h = _charge(x_i, v[i], k)
                s = _fire(h, k)
                v[i] = _reset(h, s, k)
                y_t[i] = _round(x_i * s if k.gate else s, y_t[i])
        if v_last.size:
            v_last[start : start + size] = v[:size]


@_jit
@no_type_check
def _recompute(x: Row, v: Row, h_seq: Row, k: Constants, span: Span, start: int, size: int) -> None:
    """Write the membrane before reset of every step to ``h_seq``; ``v`` holds the state before the first."""
    for t in range(span.n_steps):
        x_t = x[t * span.x_step + start : t * span.x_step + start + size]
        h_t = h_seq[t]
        for i in range(size):
            h = _charge(_widen(x_t[i]), v[i], k)
            h_t[i] = h
            v[i] = _reset(h, _fire(h, k), k)


@_jit
@no_type_check
def _backward_once(x: Row, g: Row, gx: Row, k: Constants, slope: Any) -> None:
    """Walk one step from rest backwards: `backward` without a membrane in memory, where the reset has no gradient."""
    for i in range(x.size):
        x_i, gy = _widen(x[i]), _widen(g[i])
        h = _charge(x_i, ZERO, k)
        gh = (gy * x_i if k.gate else gy) * _slope(h - k.v_th, slope) + ZERO
        gx_i = gh / k.tau if k.decay_input else gh
        gx[i] = _round(gy * _fire(h, k) + gx_i if k.gate else gx_i, gx[i])


@_jit
@no_type_check
def backward(
    x: Row,
    v0: Row,
    g: Row,
    g_last: Row,
    gx: Row,
    gv0: Row,
    k: Constants,
    slope: Any,
    span: Span,
    first: int,
    last: int,
) -> None:
    """Walk neurons ``first`` to ``last`` backwards; empty ``g_last`` is 0, empty ``gv0`` is not wanted."""
    if span.n_steps == 1 and k.detach_reset and not (v0.size or g_last.size or gv0.size):
        _backward_once(x[first:last], g[first:last], gx[first:last], k, slope)
        return
    block = max(64, min(BLOCK // 2, CACHED_VALUES // span.n_steps))
    h_seq, c = np.empty((span.n_steps, block), np.float32), np.empty(block, np.float32)
    for start in range(first, last, block):
        size = min(block, last - start)
        _load(c, v0, start, size)
        _recompute(x, c, h_seq, k, span, start, size)
        _load(c, g_last, start, size)
        for t in range(span.n_steps - 1, -1, -1):
            x_t = x[t * span.x_step + start : t * span.x_step + start + size]
            g_t = g[t * span.g_step + start : t * span.g_step + start + size]
            gx_t = gx[t * span.n_site + start : t * span.n_site + start + size]
            h_t = h_seq[t]
            for i in range(size):
                h, gy, c_i = h_t[i], _widen(g_t[i]), c[i]
                s = _fire(h, k)
                gs = gy * _widen(x_t[i]) if k.gate else gy
                if not k.detach_reset:
                    gs = gs - c_i * (h if k.hard else k.v_th)
                gh = gs * _slope(h - k.v_th, slope) + (c_i * (ONE - s) if k.hard else c_i)
                q = gh / k.tau
                c[i] = gh - q
                gx_i = q if k.decay_input else gh
                gx_t[i] = _round(gy * s + gx_i if k.gate else gx_i, gx_t[i])
        if gv0.size:
            gv0[start : start + size] = c[:size]
