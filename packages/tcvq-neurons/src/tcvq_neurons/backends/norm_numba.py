"""The compiled kernels of group norm and neuron on tensors: memory order, threads, and the sums over the batch.

This file is imported only when the kernels are used. Each sample is one thread's, so neither the number of threads nor
the rest of the batch changes its numbers.
"""

from collections.abc import Callable
from functools import lru_cache
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from tcvq_neurons.backends.norm_kernels import BLOCK, Array, Neuron, backward, forward
from tcvq_neurons.backends.numba import PARALLEL_FROM, worker_threads


class Options(NamedTuple):
    """Constants of the group norm and of the neuron, ds/du = max(0, alpha - alpha^2 |u|)."""

    n_groups: int
    eps: float
    tau: float
    v_threshold: float
    alpha: float
    gate: bool


@lru_cache(maxsize=64)
def _neuron(dtype: torch.dtype, o: Options) -> Neuron:
    f = np.float64 if dtype == torch.float64 else np.float32
    return Neuron(f(o.tau), f(o.v_threshold), f(o.alpha), f(o.alpha**2), f(1 / o.alpha), f(1), o.gate)


def run_forward(
    x_seq: Tensor, weight: Tensor, bias: Tensor, n_steps: int, options: Options
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the output of every step, and mean and 1 / sqrt(var + eps) of every frame and group."""
    x = _channels_last(x_seq)
    dtype = _work_dtype(x)
    y = torch.empty((n_steps, *x.shape[1:]), dtype=x.dtype)
    mean, rstd = (torch.empty(*x.shape[:2], options.n_groups, dtype=dtype) for _ in range(2))
    affine = (weight.detach().to(dtype).numpy(), bias.detach().to(dtype).numpy())
    block, k = _block(x, dtype), _neuron(dtype, options)
    arrays = (_rows(x), *affine, _rows(y), mean.numpy(), rstd.numpy())
    eps_ = affine[0].dtype.type(options.eps)

    def part(first: int, last: int) -> None:
        forward(*arrays, np.empty(block, affine[0].dtype), eps_, k, first, last)

    _split(part, x.shape[1], y.numel())
    return y.movedim(-1, 2), mean, rstd


def run_backward(
    x_seq: Tensor, affine: tuple[Tensor, Tensor], grad_y: Tensor, statistics: tuple[Tensor, Tensor], options: Options
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients of ``x_seq``, weight and bias."""
    x, g = _channels_last(x_seq), _channels_last(grad_y)
    dtype = _work_dtype(x)
    gx = torch.empty_like(x)
    g_weight, g_bias = (torch.empty(*x.shape[:2], x.shape[-1], dtype=dtype) for _ in range(2))
    weight, bias = (each.detach().to(dtype).numpy() for each in affine)
    block, k = _block(x, dtype), _neuron(dtype, options)
    mean, rstd = (each.numpy() for each in statistics)
    arrays = (_rows(x), weight, bias, _rows(g), _rows(gx), mean, rstd, g_weight.numpy(), g_bias.numpy())

    def part(first: int, last: int) -> None:
        kept = np.empty((len(g), x[0, 0].numel()), weight.dtype)
        backward(*arrays, np.empty(block, weight.dtype), kept, k, first, last)

    _split(part, x.shape[1], g.numel())
    return gx.movedim(-1, 2), g_weight.sum((0, 1)).to(affine[0].dtype), g_bias.sum((0, 1)).to(affine[1].dtype)


def _channels_last(seq: Tensor) -> Tensor:
    """Return ``(T, B, H, W, C)``, in this order in memory; a view if it is so already."""
    return seq.detach().movedim(2, -1).contiguous()


def _work_dtype(x: Tensor) -> torch.dtype:
    return torch.promote_types(x.dtype, torch.float32)


def _block(x: Tensor, dtype: torch.dtype) -> int:
    """Return the length of a block: whole sites, no more than there are."""
    n_channels = x.shape[-1]
    return min(max(1, BLOCK // n_channels), x[0, 0, ..., 0].numel()) * n_channels


def _rows(seq: Tensor) -> Array:
    """View ``(T, B, H, W, C)`` as ``(T, B, sites * C)``, bfloat16 as its bits."""
    rows = seq.flatten(2)
    return (rows.view(torch.uint16) if rows.dtype == torch.bfloat16 else rows).numpy()


def _split(part: Callable[[int, int], None], n_samples: int, n_values: int) -> None:
    """Run a kernel over all samples, in as many threads as torch would use."""
    n_parts = min(torch.get_num_threads(), n_samples)
    if n_parts <= 1 or n_values < PARALLEL_FROM:
        part(0, n_samples)
        return
    bounds = [n_samples * i // n_parts for i in range(n_parts + 1)]
    pending = [worker_threads().submit(part, *ends) for ends in pairwise(bounds[1:])]
    part(*bounds[:2])
    for each in pending:
        each.result()
