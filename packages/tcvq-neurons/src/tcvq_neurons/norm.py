"""Group norm and neuron as one operation: what lies between two convolutions of a spiking residual block.

On the CPU with numba, ``tcvq::norm_lif`` reads its input once more instead of writing the normalised current, saves
only its input and the statistics of its groups, and lays channels last in memory, in which convolutions are fastest.
"""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from tcvq_neurons.backends import fuses_norm
from tcvq_neurons.backends.fused import LAUNCHES
from tcvq_neurons.lif import LIF, LIFGate
from tcvq_neurons.steps import merge_time
from tcvq_neurons.surrogate import QuadraticGate

_DTYPES = (torch.float32, torch.bfloat16, torch.float64)
_OPTIONS = "int n_groups, float eps, float tau, float v_threshold, float alpha, bool gate"
_TAGS = (torch.Tag.pt2_compliant_tag, torch.Tag.needs_fixed_stride_order)

_LIBRARY = torch.library.Library("tcvq", "FRAGMENT")
_LIBRARY.define(
    f"norm_lif(Tensor x_seq, Tensor weight, Tensor bias, int n_steps, {_OPTIONS}) -> (Tensor, Tensor, Tensor)",
    tags=_TAGS,
)
_LIBRARY.define(
    "norm_lif_backward(Tensor x_seq, Tensor weight, Tensor bias, Tensor grad_y, Tensor mean, Tensor rstd, "
    f"{_OPTIONS}) -> (Tensor, Tensor, Tensor)",
    tags=_TAGS,
)
_norm_lif = torch.ops.tcvq.norm_lif.default
_norm_lif_backward = torch.ops.tcvq.norm_lif_backward.default


def norm_lif(norm: nn.GroupNorm, neuron: LIF, x_seq: Float[Tensor, "T B C H W"]) -> Float[Tensor, "T B C H W"]:
    """Return ``neuron(merge_time(norm, x_seq))``, in one pass over memory where a compiled kernel can.

    The kernel runs on CPU tensors with numba, for the paper's kind of neuron (hard reset, detached, quadratic gate).
    It rounds differently from torch's group norm, so that in float32 a spike in a million may differ; float64 agrees
    to rounding. Modules that are watched (hooks), carry a membrane or learn constants run one after the other.
    """
    if not _fuses(norm, neuron, x_seq):
        return neuron(merge_time(norm, x_seq))
    n_steps, config = len(x_seq), neuron.config
    assert isinstance(config.surrogate, QuadraticGate)
    constant = n_steps > 1 and x_seq.stride(0) == 0
    x = x_seq[:1] if constant else x_seq
    options = (norm.num_groups, norm.eps, config.tau, config.v_threshold, config.surrogate.alpha)
    y_seq: Tensor = _norm_lif(x, norm.weight, norm.bias, n_steps, *options, isinstance(neuron, LIFGate))[0]
    return y_seq


def _fuses(norm: nn.GroupNorm, neuron: LIF, x_seq: Tensor) -> bool:
    if type(neuron) not in (LIF, LIFGate):
        return False
    config = neuron.config
    return (
        type(norm) is nn.GroupNorm
        and norm.affine
        and x_seq.ndim == 5
        and x_seq.shape[2] == norm.num_channels
        and x_seq.numel() > 0
        and x_seq.device.type == "cpu"
        and x_seq.dtype in _DTYPES
        and config.reset == "hard"
        and config.decay_input
        and config.detach_reset
        and not config.fire_at_threshold
        and type(config.surrogate) is QuadraticGate
        and neuron._memory is None
        and not (neuron._parameters or neuron._buffers)
        and not (_is_watched(norm) or _is_watched(neuron))
        and not torch._C._are_functorch_transforms_active()
        and fuses_norm(neuron.backend)
    )


def _is_watched(module: nn.Module) -> bool:
    return bool(
        module._forward_hooks or module._forward_pre_hooks or module._backward_hooks or module._backward_pre_hooks
    )


def _forward(x_seq: Tensor, weight: Tensor, bias: Tensor, n_steps: int, *options: Any) -> tuple[Tensor, ...]:
    from tcvq_neurons.backends.norm_numba import Options, run_forward  # imports numba

    LAUNCHES["numba.norm_forward"] += 1
    return run_forward(x_seq, weight, bias, n_steps, Options(*options))


def _backward(x_seq: Tensor, weight: Tensor, bias: Tensor, grad_y: Tensor, *rest: Any) -> tuple[Tensor, ...]:
    from tcvq_neurons.backends.norm_numba import Options, run_backward

    LAUNCHES["numba.norm_backward"] += 1
    mean, rstd, *options = rest
    return run_backward(x_seq, (weight, bias), grad_y, (mean, rstd), Options(*options))


def _fake_forward(
    x_seq: Tensor, weight: Tensor, bias: Tensor, n_steps: int, n_groups: int, *options: Any
) -> tuple[Tensor, ...]:
    _, n_batch, n_channels, height, width = x_seq.shape
    y = x_seq.new_empty(n_steps, n_batch, height, width, n_channels).movedim(-1, 2)
    statistics = [
        x_seq.new_empty(len(x_seq), n_batch, n_groups, dtype=torch.promote_types(x_seq.dtype, torch.float32))
        for _ in range(2)
    ]
    return y, *statistics


def _fake_backward(x_seq: Tensor, weight: Tensor, bias: Tensor, *rest: Any) -> tuple[Tensor, ...]:
    grad_x = torch.empty_like(x_seq.movedim(2, -1), memory_format=torch.contiguous_format).movedim(-1, 2)
    return grad_x, torch.empty_like(weight), torch.empty_like(bias)


class _Differentiable(torch.autograd.Function):
    """``tcvq::norm_lif`` with its derivative."""

    @staticmethod
    def forward(ctx: Any, x_seq: Tensor, weight: Tensor, bias: Tensor, n_steps: int, *options: Any) -> Any:
        output = _norm_lif(x_seq, weight, bias, n_steps, *options)
        ctx.save_for_backward(x_seq, weight, bias, *output[1:])
        ctx.mark_non_differentiable(*output[1:])
        ctx.set_materialize_grads(False)
        ctx.options = options
        return output

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor | None, *_: Any) -> Any:
        nothing = [None] * (1 + len(ctx.options))
        if grad_y is None:
            return None, None, None, *nothing
        x_seq, weight, bias, mean, rstd = ctx.saved_tensors
        return *_norm_lif_backward(x_seq, weight, bias, grad_y, mean, rstd, *ctx.options), *nothing


def _autograd(*arguments: Any) -> Any:
    if torch.is_grad_enabled() and any(isinstance(each, Tensor) and each.requires_grad for each in arguments):
        return _Differentiable.apply(*arguments)
    with torch._C._AutoDispatchBelowAutograd():
        return _norm_lif(*arguments)


class _NotTwice(torch.autograd.Function):
    """``tcvq::norm_lif_backward``, which has no derivative."""

    @staticmethod
    def forward(ctx: Any, *arguments: Any) -> Any:
        return _norm_lif_backward(*arguments)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> Any:
        raise RuntimeError(
            "cannot differentiate twice through a spiking neuron: its surrogate gradient has no derivative; "
            "leave out create_graph=True, or detach the gradient"
        )


def _autograd_backward(*arguments: Any) -> Any:
    if torch.is_grad_enabled() and any(isinstance(each, Tensor) and each.requires_grad for each in arguments):
        return _NotTwice.apply(*arguments)
    with torch._C._AutoDispatchBelowAutograd():
        return _norm_lif_backward(*arguments)


_LIBRARY.impl("norm_lif", _forward, "CPU")
_LIBRARY.impl("norm_lif_backward", _backward, "CPU")
torch.library.register_fake("tcvq::norm_lif", _fake_forward, lib=_LIBRARY)
torch.library.register_fake("tcvq::norm_lif_backward", _fake_backward, lib=_LIBRARY)
_LIBRARY.impl("norm_lif", _autograd, "Autograd")
_LIBRARY.impl("norm_lif_backward", _autograd_backward, "Autograd")
