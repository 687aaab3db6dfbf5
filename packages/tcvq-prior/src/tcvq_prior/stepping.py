"""What a spiking block computes for one token without gradients, where calls cost more than arithmetic.

The same equations as the layers', as few calls: no dropout, no autograd, products laid out for few rows, and with numba
compiled loops of neurons and state, which change no bit.
"""

import importlib
import math
from functools import cache
from types import ModuleType

import torch
from jaxtyping import Float
from torch import Tensor, nn

from tcvq_neurons import LIF

FEW_ROWS = range(9, 33)  # where W xᵀ is the faster product of MKL on a CPU
FEW_CURRENTS = 1 << 17  # up to here one thread is enough for compiled loops, whatever else torch may use


def is_plain_step(block: nn.Module, x_seq: Float[Tensor, "T B L C"]) -> bool:
    """Whether these functions stand for the layers of a block: one token, no gradient, nothing watched or replaced."""
    return (
        x_seq.shape[2] == 1
        and not (torch.is_grad_enabled() or block.training or torch.is_autocast_enabled(x_seq.device.type))
        and x_seq.dtype in (torch.float32, torch.float64)
        and all(_is_plain(layer) for layer in block.children())
    )


def linear(layer: nn.Linear, x: Float[Tensor, "N in"]) -> Float[Tensor, "N out"]:
    """Return ``x Wᵀ + b``; for few rows on a CPU as ``(W xᵀ)ᵀ``, where turning the result back costs less."""
    if len(x) not in FEW_ROWS or x.device.type != "cpu" or layer.out_features > layer.in_features:
        return layer(x)
    return torch.add(torch.mm(layer.weight, x.t()).t(), layer.bias, out=x.new_empty(len(x), len(layer.bias)))


def fire(x_seq: Float[Tensor, "T_or_1 *site"], n_steps: int, neuron: LIF) -> Float[Tensor, "T *site"]:
    """Return the spikes of a neuron that starts at rest, rounded as `tcvq_neurons.lif` does if tau is a power of 2.

    One step of input stands for all.
    """
    if (loops := loops_for(x_seq)) is not None:
        return loops.fire(x_seq, n_steps, neuron.config)
    share, v_threshold = 1 / neuron.config.tau, neuron.config.v_threshold
    spikes = x_seq.new_empty(n_steps, *x_seq.shape[1:])
    h = s = None
    for x, out in zip(x_seq.expand_as(spikes), spikes, strict=True):
        if h is None or s is None:
            h = x * share
        else:
            v = torch.addcmul(h, h, s, value=-1)
            h = torch.add(v, x - v, alpha=share)
        s = torch.gt(h, v_threshold, out=out)
    return spikes


def loops_for(x_seq: Tensor, *others: Tensor) -> ModuleType | None:
    """Return `tcvq_prior.loops` where it can run and is faster: with numba, on dense tensors of the CPU.

    Its loops run in one thread; they were measured faster than torch's in one and in two, at every size.
    """
    if not all(tensor.device.type == "cpu" and tensor.is_contiguous() for tensor in (x_seq, *others)):
        return None
    return _with_numba() if x_seq.numel() <= FEW_CURRENTS or torch.get_num_threads() <= 2 else None


@cache
def _with_numba() -> ModuleType | None:
    try:
        return importlib.import_module("tcvq_prior.loops")
    except ImportError:  # no numba, or one that does not suit this numpy
        return None


def _is_plain(layer: nn.Module) -> bool:
    if layer._forward_hooks or layer._forward_pre_hooks:
        return False
    if not isinstance(layer, LIF):
        return type(layer) is not nn.Linear or layer.bias is not None
    config = layer.config
    usual = config.reset == "hard" and config.decay_input and not config.fire_at_threshold
    exact = math.frexp(config.tau)[0] == 0.5  # a power of 2: x / tau and x * (1 / tau) are the same number
    return usual and exact and type(layer) is LIF and not (layer._parameters or layer._buffers)
