"""The autograd node shared by all fused backends: saves only the input and recomputes the membrane in backward."""

from collections import Counter
from typing import Any, NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from tcvq_neurons.backends.layout import dense_steps, match_site, match_steps
from tcvq_neurons.config import LIFConfig
from tcvq_neurons.dynamics import state_dtype

LAUNCHES: Counter[str] = Counter()
"""Passes run by each backend since import, such as ``LAUNCHES["numba.forward"]``; proves which path ran."""


@runtime_checkable
class Kernel(Protocol):
    """Forward and backward over a whole sequence on dense steps (see `layout`), without autograd."""

    name: str

    def refuses(self, x_seq: Tensor, config: LIFConfig) -> str | None:
        """Return why this input cannot run, or None if it can."""
        ...

    def forward(
        self, x_seq: Tensor, v0: Tensor | None, config: LIFConfig, *, gate: bool, need_v: bool
    ) -> tuple[Tensor, Tensor | None]:
        """Return the outputs ``(T, *site)`` in the layout of ``x_seq`` and, if needed, the last membrane."""
        ...

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
        """Return dL/dx ``(T, *site)`` and, if ``v0`` was given, dL/dv0. A gradient of None is zero."""
        ...


class _Call(NamedTuple):
    """What does not need a gradient."""

    kernel: Kernel
    config: LIFConfig
    gate: bool
    need_v: bool


class _FusedNeuron(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x_seq: Tensor, v0: Tensor | None, call: _Call) -> tuple[Tensor, Tensor | None]:
        x_seq = dense_steps(x_seq)
        if v0 is not None:
            v0 = match_site(v0, x_seq, state_dtype(x_seq))
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(x_seq, v0)
        ctx.call = call
        LAUNCHES[f"{call.kernel.name}.forward"] += 1
        return call.kernel.forward(x_seq, v0, call.config, gate=call.gate, need_v=call.need_v)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_y: Tensor | None, grad_v: Tensor | None) -> tuple[Tensor | None, ...]:
        x_seq, v0 = ctx.saved_tensors
        call: _Call = ctx.call
        if grad_y is not None:
            grad_y = match_steps(grad_y, x_seq)
        if grad_v is not None:
            grad_v = match_site(grad_v, x_seq, state_dtype(x_seq))
        LAUNCHES[f"{call.kernel.name}.backward"] += 1
        grad_x, grad_v0 = call.kernel.backward(x_seq, v0, grad_y, grad_v, call.config, gate=call.gate)
        return grad_x, grad_v0, None


def run(
    kernel: Kernel, x_seq: Tensor, v0: Tensor | None, config: LIFConfig, *, gate: bool, need_v: bool
) -> tuple[Tensor, Tensor | None]:
    """Run a fused kernel under autograd.

    Args:
        kernel: The backend's forward and backward.
        x_seq: Input current, ``(T, *site)``.
        v0: Membrane before the first step in the state's dtype, ``(*site)``; None is rest.
        config: Constants of the neuron.
        gate: Return ``x * s`` instead of ``s``.
        need_v: Whether the last membrane is wanted; without it a kernel may not store it.
    """
    return _FusedNeuron.apply(x_seq, v0, _Call(kernel, config, gate, need_v))
