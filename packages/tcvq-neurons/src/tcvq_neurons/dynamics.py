"""The definition of the neuron: charge, fire and reset in plain torch operations under autograd.

Every other backend must return what `unroll` returns. Letters: input current ``x``, membrane before reset ``h``,
membrane after reset ``v``, spike ``s``, threshold ``v_th``.
"""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

from tcvq_neurons.config import LIFConfig
from tcvq_neurons.interface import NeuronOutput, Surrogate


class _Spike(torch.autograd.Function):
    """Heaviside step with a surrogate derivative."""

    @staticmethod
    def forward(ctx: Any, u: Tensor, surrogate: Surrogate, at_threshold: bool) -> Tensor:
        ctx.save_for_backward(u)
        ctx.surrogate = surrogate
        return (u >= 0 if at_threshold else u > 0).to(u.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_s: Tensor) -> tuple[Tensor, None, None]:
        (u,) = ctx.saved_tensors
        return grad_s * ctx.surrogate(u), None, None


def state_dtype(x: Tensor) -> torch.dtype:
    """Return the dtype of the membrane for input ``x``: float64 for float64, float32 for everything smaller."""
    return torch.promote_types(x.dtype, torch.float32)


def learnable(config: LIFConfig) -> str | None:
    """Return why the fused kernels cannot run these constants, or None: they return no gradient for tensors."""
    for name in ("tau", "v_threshold"):
        if isinstance(getattr(config, name), Tensor):
            return f"its {name} is a tensor, whose gradient only the reference computes"
    return None


def charge(x: Float[Tensor, "*site"], v: Float[Tensor, "*site"], config: LIFConfig) -> Float[Tensor, "*site"]:
    """Integrate one step of input: ``h = v + (x - v) / tau``, or ``h = v - v / tau + x`` without ``decay_input``."""
    if config.decay_input:
        return v + (x - v) / config.tau
    return v - v / config.tau + x


def fire(h: Float[Tensor, "*site"], config: LIFConfig) -> Float[Tensor, "*site"]:
    """Return the spikes ``s = 1 if h - v_th > 0 else 0``, with the surrogate's derivative."""
    return _Spike.apply(h - config.v_threshold, config.surrogate, config.fire_at_threshold)


def reset(h: Float[Tensor, "*site"], s: Float[Tensor, "*site"], config: LIFConfig) -> Float[Tensor, "*site"]:
    """Return the membrane after the spike: hard ``v = h (1 - s)``, soft ``v = h - s v_th``, none ``v = h``."""
    s = s.detach() if config.detach_reset else s
    match config.reset:
        case "hard":
            return h * (1 - s)
        case "soft":
            return h - s * config.v_threshold
        case "none":
            return h


def unroll(
    x_seq: Float[Tensor, "T *site"], v0: Float[Tensor, "*site"] | None, config: LIFConfig, *, gate: bool
) -> NeuronOutput:
    """Run every step of a sequence, the membrane in `state_dtype` and each output rounded once to the input's dtype.

    Args:
        x_seq: Input current.
        v0: Membrane before the first step; None is rest, 0.
        config: Constants of the neuron.
        gate: Return ``x * s`` instead of ``s``.
    """
    dtype = state_dtype(x_seq)
    v = torch.zeros_like(x_seq[0], dtype=dtype) if v0 is None else v0
    out = []
    for x in x_seq.to(dtype):
        h = charge(x, v, config)
        s = fire(h, config)
        v = reset(h, s, config)
        out.append(x * s if gate else s)
    return NeuronOutput(torch.stack(out).to(x_seq.dtype), v)
