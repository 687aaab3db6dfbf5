"""Fused backend compiled by numba: the whole sequence in one pass over memory, exact, on every CPU core torch may use.

The membrane of a block of neurons stays in cache for all steps; bfloat16 is widened and rounded in registers. Work is
split over Python threads that hold no lock while a kernel runs, not over numba's parallel loops: those start a second
OpenMP pool beside torch's, whose idle threads can spin on the cores that the next torch operation needs, which kills
forked children that use it, and which needs a second compilation. This file is imported only when the backend is used.
"""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache, lru_cache
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tcvq_neurons.backends.layout import empty_steps
from tcvq_neurons.backends.numba_kernels import BLOCK, SLOPES, Constants, Row, Span, backward, forward
from tcvq_neurons.config import LIFConfig
from tcvq_neurons.dynamics import learnable
from tcvq_neurons.interface import CompiledSurrogate
from tcvq_neurons.surrogate import SURROGATES

PARALLEL_FROM = 1 << 18  # elements below which waking threads costs more than it saves

_DTYPES = (torch.float32, torch.bfloat16, torch.float16)
_COMPILED = {SURROGATES[constants.__name__]: constants for constants in SLOPES}
_EMPTY = np.empty(0, np.float32)


@lru_cache(maxsize=256)
def _constants(config: LIFConfig, gate: bool) -> Constants:
    v_th = np.float32(config.v_threshold)
    return Constants(
        tau=np.float32(config.tau),
        v_th=v_th,
        fires_above=np.nextafter(v_th, np.float32(-np.inf)) if config.fire_at_threshold else v_th,
        hard=config.reset == "hard",
        soft=config.reset == "soft",
        decay_input=bool(config.decay_input),
        detach_reset=config.detach_reset or config.reset == "none",
        gate=gate,
    )


@lru_cache(maxsize=256)
def _slope(config: LIFConfig) -> tuple[np.float32, ...]:
    assert isinstance(config.surrogate, CompiledSurrogate)
    k0, k1, k2 = (*config.surrogate.constants(), 0.0, 0.0)[:3]
    return _COMPILED[type(config.surrogate)](np.float32(k0), np.float32(k1), np.float32(k2))


class NumbaKernel:
    """Compiled kernels for float32 and bfloat16; float16 is widened to float32 once."""

    name = "numba"

    def refuses(self, x_seq: Tensor, config: LIFConfig) -> str | None:
        """Return why this input cannot run, or None if it can."""
        if x_seq.device.type != "cpu":
            return f"the tensor is on {x_seq.device}, not on the CPU"
        if x_seq.dtype not in _DTYPES:
            return f"its dtype is {x_seq.dtype}, not float32, bfloat16 or float16"
        if type(config.surrogate) not in _COMPILED:  # a subclass may be another function
            known = ", ".join(each.__name__ for each in _COMPILED)
            return f"it has no compiled form of the surrogate {config.surrogate!r}, only of {known}"
        return learnable(config)

    def forward(
        self, x_seq: Tensor, v0: Tensor | None, config: LIFConfig, *, gate: bool, need_v: bool
    ) -> tuple[Tensor, Tensor | None]:
        """Run all steps; see `tcvq_neurons.backends.fused.Kernel`."""
        y_seq = empty_steps(x_seq, _stored(x_seq).dtype)
        v = empty_steps(x_seq[:1], torch.float32)[0] if need_v else None
        x = _stored(x_seq)
        span = Span(len(x_seq), _n_site(x_seq), x.stride(0), 0)
        arrays = (_flat(x), _flat_or_empty(v0), _flat(y_seq), _flat_or_empty(v))
        _split(forward, (*arrays, _constants(config, gate), span), span)
        return y_seq.to(x_seq.dtype), v

    def backward(
        self,
        x_seq: Tensor,
        v0: Tensor | None,
        grad_y: Tensor | None,
        grad_v: Tensor | None,
        config: LIFConfig,
        *,
        gate: bool,
    ) -> tuple[Tensor, Tensor | None]:
        """Recompute and walk back block by block; see `tcvq_neurons.backends.fused.Kernel`."""
        x = _stored(x_seq)
        g = empty_steps(x[:1]).zero_().expand_as(x) if grad_y is None else _stored(grad_y)
        grad_x = empty_steps(x)
        grad_v0 = None if v0 is None else torch.empty_like(v0)
        span = Span(len(x), _n_site(x), x.stride(0), g.stride(0))
        arrays = (
            _flat(x),
            _flat_or_empty(v0),
            _flat(g),
            _flat_or_empty(grad_v),
            _flat(grad_x),
            _flat_or_empty(grad_v0),
        )
        _split(backward, (*arrays, _constants(config, gate), _slope(config), span), span)
        return grad_x.to(x_seq.dtype), grad_v0


def _stored(t: Tensor) -> Tensor:
    """Return a tensor that the kernels read: float16 widened, anything else itself."""
    return t.float() if t.dtype == torch.float16 else t


def _n_site(x_seq: Tensor) -> int:
    return x_seq.numel() // len(x_seq)


def _flat(t: Tensor) -> Row:
    """View the memory of a dense sequence, from its first to its last value, as one row."""
    n_values = 0 if t.numel() == 0 else (len(t) - 1) * t.stride(0) + _n_site(t)
    row = t.detach().as_strided((n_values,), (1,))
    return (row.view(torch.uint16) if t.dtype == torch.bfloat16 else row).numpy()


def _flat_or_empty(v: Tensor | None) -> Row:
    return _EMPTY if v is None else v.detach().as_strided((v.numel(),), (1,)).numpy()


def _split(kernel: Callable[..., None], arguments: tuple[Any, ...], span: Span) -> None:
    """Run a kernel over all neurons, in as many threads as torch would use."""
    n_blocks = -(-span.n_site // BLOCK)
    n_parts = min(torch.get_num_threads(), n_blocks)
    if n_parts <= 1 or span.n_steps * span.n_site < PARALLEL_FROM:
        kernel(*arguments, 0, span.n_site)
        return
    bounds = [min(span.n_site, n_blocks * part // n_parts * BLOCK) for part in range(n_parts + 1)]
    pending = [worker_threads().submit(kernel, *arguments, *ends) for ends in pairwise(bounds[1:])]
    kernel(*arguments, *bounds[:2])
    for part in pending:
        part.result()


@cache
def worker_threads() -> ThreadPoolExecutor:
    """Return this process's threads; a forked child has none of its parent's and starts its own."""
    return ThreadPoolExecutor(os.cpu_count(), thread_name_prefix="tcvq-neurons")


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=worker_threads.cache_clear)
