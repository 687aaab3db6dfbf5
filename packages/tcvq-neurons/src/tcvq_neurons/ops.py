"""The neuron as one operator of torch: what compiled, exported, batched and differentiated programs call.

``tcvq::lif`` and ``tcvq::lif_backward`` are functional and carry every option as a plain value, so a program that
holds them runs wherever this package is imported; which backend computes is decided there, at run time. The backward
saves the input and the first membrane, and computes the rest again.
"""

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from tcvq_neurons import dynamics
from tcvq_neurons.backends import BackendName, choose, resolve
from tcvq_neurons.backends.fused import LAUNCHES
from tcvq_neurons.backends.layout import dense_steps, empty_steps, match_site, match_steps
from tcvq_neurons.config import LIFConfig
from tcvq_neurons.dynamics import learnable, state_dtype
from tcvq_neurons.interface import NeuronOutput, Surrogate
from tcvq_neurons.surrogate import SURROGATES, build_surrogate

_TAGS = (torch.Tag.pt2_compliant_tag, torch.Tag.needs_fixed_stride_order)
_OPTIONS = (
    "float tau, float v_threshold, str reset, bool decay_input, bool detach_reset, bool fire_at_threshold, "
    "str surrogate, float[] surrogate_values, bool gate, str backend"
)

_LIBRARY = torch.library.Library("tcvq", "FRAGMENT")
_LIBRARY.define(f"lif(Tensor x_seq, Tensor? v0, bool need_v, {_OPTIONS}) -> (Tensor, Tensor)", tags=_TAGS)
_LIBRARY.define(
    f"lif_backward(Tensor x_seq, Tensor? v0, Tensor? grad_y, Tensor? grad_v, {_OPTIONS}) -> (Tensor, Tensor)",
    tags=_TAGS,
)
_lif = torch.ops.tcvq.lif.default
_lif_backward = torch.ops.tcvq.lif_backward.default


def run(
    x_seq: Tensor, v0: Tensor | None, config: LIFConfig, *, gate: bool, backend: BackendName, need_v: bool
) -> tuple[Tensor, Tensor]:
    """Run checked inputs ``(T, *site)`` on the backend asked for; without ``need_v`` the last membrane means nothing.

    Raises:
        ValueError: If the backend is unknown or cannot run this input.
        RuntimeError: If the backend cannot run here.
    """
    name = resolve(backend)
    if name == "reference":
        return _reference(x_seq, v0, config, gate)
    if not (_is_registered(config.surrogate) and learnable(config) is None):
        if name == "auto":
            return _recomputed(x_seq, v0, config, gate)
        problem = learnable(config) or f"it has no compiled form of the surrogate {config.surrogate!r}"
        raise ValueError(f"backend {name!r} cannot run this input: {problem}; use backend='reference' or 'auto'")
    surrogate = config.surrogate
    call = _Transformable.apply if torch._C._are_functorch_transforms_active() else _lif
    return call(
        x_seq,
        v0,
        need_v,
        config.tau,
        config.v_threshold,
        config.reset,
        config.decay_input,
        config.detach_reset,
        config.fire_at_threshold,
        type(surrogate).__name__,
        [getattr(surrogate, field) for field in type(surrogate).__match_args__],  # type: ignore[attr-defined]
        gate,
        name,
    )


def _is_registered(surrogate: Surrogate) -> bool:
    cls = type(surrogate)
    return SURROGATES.get(cls.__name__) is cls  # a subclass may be another function


def _reference(x_seq: Tensor, v0: Tensor | None, config: LIFConfig, gate: bool) -> NeuronOutput:
    if not torch.compiler.is_compiling():
        LAUNCHES["reference.forward"] += 1
    return dynamics.unroll(x_seq, v0, config, gate=gate)


def _recomputed(x_seq: Tensor, v0: Tensor | None, config: LIFConfig, gate: bool) -> NeuronOutput:
    """Run the reference, and again in the backward, so that only ``x_seq`` and ``v0`` are saved."""
    if not torch.is_grad_enabled() or torch.compiler.is_exporting() or torch._C._are_functorch_transforms_active():
        return _reference(x_seq, v0, config, gate)
    return checkpoint(_reference, x_seq, v0, config, gate, use_reentrant=False, preserve_rng_state=False)


def _decode(options: Sequence[Any]) -> tuple[LIFConfig, bool, str]:
    """Return what the flat options of an operator stand for: constants, gate or not, backend."""
    *constants, values, gate, backend = options
    return _config(*constants, tuple(values)), gate, backend


@lru_cache(maxsize=256)
def _config(*constants: Any) -> LIFConfig:
    tau, v_threshold, reset, decay_input, detach_reset, fire_at_threshold, surrogate, values = constants
    return LIFConfig(
        tau=tau,
        v_threshold=v_threshold,
        reset=reset,
        decay_input=decay_input,
        detach_reset=detach_reset,
        fire_at_threshold=fire_at_threshold,
        surrogate=build_surrogate(surrogate, values),
    )


def _forward(x_seq: Tensor, v0: Tensor | None, need_v: bool, *options: Any) -> tuple[Tensor, Tensor]:
    config, gate, backend = _decode(options)
    x_seq = dense_steps(x_seq)
    if v0 is not None:
        v0 = match_site(v0, x_seq, state_dtype(x_seq))
    kernel = choose(backend, x_seq, config)
    LAUNCHES[f"{kernel.name}.forward"] += 1
    y_seq, v = kernel.forward(x_seq, v0, config, gate=gate, need_v=need_v)
    return y_seq, x_seq.new_empty(0, dtype=state_dtype(x_seq)) if v is None else v


def _backward(
    x_seq: Tensor, v0: Tensor | None, grad_y: Tensor | None, grad_v: Tensor | None, *options: Any
) -> tuple[Tensor, Tensor]:
    config, gate, backend = _decode(options)
    x_seq = dense_steps(x_seq)
    state = state_dtype(x_seq)
    v0 = None if v0 is None else match_site(v0, x_seq, state)
    grad_y = None if grad_y is None else match_steps(grad_y, x_seq)
    grad_v = None if grad_v is None else match_site(grad_v, x_seq, state)
    kernel = choose(backend, x_seq, config)
    LAUNCHES[f"{kernel.name}.backward"] += 1
    grad_x, grad_v0 = kernel.backward(x_seq, v0, grad_y, grad_v, config, gate=gate)
    return grad_x, x_seq.new_empty(0, dtype=state) if grad_v0 is None else grad_v0


def _fake_forward(x_seq: Tensor, v0: Tensor | None, need_v: bool, *options: Any) -> tuple[Tensor, Tensor]:
    return _fake(x_seq, need_v)


def _fake_backward(
    x_seq: Tensor, v0: Tensor | None, grad_y: Tensor | None, grad_v: Tensor | None, *options: Any
) -> tuple[Tensor, Tensor]:
    return _fake(x_seq, v0 is not None)


def _fake(x_seq: Tensor, with_state: bool) -> tuple[Tensor, Tensor]:
    """Allocate what both operators return: a sequence like ``x_seq``, and a membrane or nothing."""
    x_seq, state = dense_steps(x_seq), state_dtype(x_seq)
    return empty_steps(x_seq), empty_steps(x_seq[:1], state)[0] if with_state else x_seq.new_empty(0, dtype=state)


class _Differentiable(torch.autograd.Function):
    """``tcvq::lif`` with its derivative ``tcvq::lif_backward``."""

    @staticmethod
    def forward(ctx: Any, *arguments: Any) -> tuple[Tensor, Tensor]:
        output = _lif(*arguments)
        _save(ctx, arguments, output)
        return output

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        return _gradients(ctx, grads, _lif_backward)


class _Transformable(torch.autograd.Function):
    """The same in the form that `torch.func` asks for, which costs 50 us more per call."""

    generate_vmap_rule = True

    @staticmethod
    def forward(*arguments: Any) -> tuple[Tensor, Tensor]:
        return _lif(*arguments)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
        _save(ctx, inputs, output)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        return _gradients(ctx, grads, _NotTwice.apply)


class _NotTwice(torch.autograd.Function):
    """``tcvq::lif_backward``, which has no derivative."""

    generate_vmap_rule = True

    @staticmethod
    def forward(*arguments: Any) -> tuple[Tensor, Tensor]:
        return _lif_backward(*arguments)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
        """Save nothing."""

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        raise RuntimeError(
            "cannot differentiate twice through a spiking neuron: its surrogate gradient has no derivative; "
            "leave out create_graph=True, or detach the gradient"
        )


def _gradients(ctx: Any, grads: tuple[Tensor | None, ...], backward: Any) -> tuple[Tensor | None, ...]:
    (x_seq, v0), (grad_y, grad_v) = ctx.saved_tensors, grads
    grad_x, grad_v0 = backward(x_seq, v0, grad_y, grad_v if ctx.need_v else None, *ctx.options)
    return grad_x, None if v0 is None else grad_v0, *[None] * (1 + len(ctx.options))


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    x_seq, v0, need_v, *options = inputs
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(x_seq, v0)
    ctx.need_v, ctx.options = need_v, options


def _autograd(function: type[torch.autograd.Function], operator: Any) -> Callable[..., tuple[Tensor, Tensor]]:
    """Return an operator's kernel for autograd; `torch.library.register_autograd` costs 70 us more per call."""

    def kernel(*arguments: Any) -> tuple[Tensor, Tensor]:
        if torch.is_grad_enabled() and any(isinstance(each, Tensor) and each.requires_grad for each in arguments):
            return function.apply(*arguments)
        with torch._C._AutoDispatchBelowAutograd():
            return operator(*arguments)

    return kernel


def _vmap_forward(
    info: Any, in_dims: tuple[Any, ...], x_seq: Tensor, v0: Tensor | None, need_v: bool, *options: Any
) -> tuple[tuple[Tensor, Tensor], tuple[int, int | None]]:
    x_seq, v0 = _batched(info, in_dims, (x_seq, v0), (1, 0))
    return _lif(x_seq, v0, need_v, *options), (1, 0 if need_v else None)


def _vmap_backward(
    info: Any, in_dims: tuple[Any, ...], *arguments: Any
) -> tuple[tuple[Tensor, Tensor], tuple[int, int | None]]:
    x_seq, v0, grad_y, grad_v = _batched(info, in_dims, arguments[:4], (1, 0, 1, 0))
    return _lif_backward(x_seq, v0, grad_y, grad_v, *arguments[4:]), (1, None if v0 is None else 0)


def _batched(info: Any, in_dims: tuple[Any, ...], tensors: Sequence[Tensor | None], axes: Sequence[int]) -> list[Any]:
    """Bring the batch axis of every tensor to its place among the sites; one that has none is repeated."""
    moved: list[Tensor | None] = []
    for tensor, dim, axis in zip(tensors, in_dims, axes, strict=False):
        if tensor is None or dim is not None:
            moved.append(None if tensor is None else tensor.movedim(dim, axis))
        else:
            shape = (*tensor.shape[:axis], info.batch_size, *tensor.shape[axis:])
            moved.append(tensor.unsqueeze(axis).expand(shape))
    return moved


_LIBRARY.impl("lif", _forward, "CompositeExplicitAutograd")
_LIBRARY.impl("lif_backward", _backward, "CompositeExplicitAutograd")
torch.library.register_fake("tcvq::lif", _fake_forward, lib=_LIBRARY)
torch.library.register_fake("tcvq::lif_backward", _fake_backward, lib=_LIBRARY)
_LIBRARY.impl("lif", _autograd(_Differentiable, _lif), "Autograd")
_LIBRARY.impl("lif_backward", _autograd(_NotTwice, _lif_backward), "Autograd")
torch.library.register_vmap("tcvq::lif", _vmap_forward, lib=_LIBRARY)
torch.library.register_vmap("tcvq::lif_backward", _vmap_backward, lib=_LIBRARY)
