"""Carrying the membrane from call to call, on request: streaming, and truncated backpropagation through time."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from tcvq_neurons.dynamics import state_dtype


class _Together(torch.autograd.Function):
    """Passes outputs and membrane through one node of the graph, so that a used output shows at the membrane."""

    @staticmethod
    def forward(ctx: Any, y_seq: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        ctx.save_for_backward(v.new_empty(0))
        return y_seq.view_as(y_seq), v.view_as(v)

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor, grad_v: Tensor) -> tuple[Tensor, Tensor]:
        return grad_y, grad_v


class Memory:
    """Membrane of one neuron between calls.

    Args:
        name: What messages call the neuron.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.v: Tensor | None = None

    def recall(self, x_seq: Tensor) -> Tensor | None:
        """Return the membrane before the first step of ``x_seq``; None is rest.

        Raises:
            ValueError: If the membrane's shape, dtype or device is not that of one step.
            RuntimeError: If its graph is gone, or if this call recomputes another one.
        """
        if not torch.compiler.is_compiling() and torch._C._current_graph_task_id() != -1:
            raise RuntimeError(
                f"{self.name} was called from within a backward pass, as activation checkpointing does, and would "
                "continue from a later membrane; leave checkpointing or carry_state out"
            )
        if self.v is not None:
            self._check_fit(self.v, x_seq)
            self._check_graph(self.v)
        return self.v

    def keep(self, y_seq: Tensor, v: Tensor) -> Tensor:
        """Store the membrane after the last step, and return the outputs."""
        if not torch.compiler.is_compiling() and v.grad_fn is not None and not _tells_its_use(v.grad_fn):
            y_seq, v = _Together.apply(y_seq, v)
        self.v = v
        return y_seq

    def _check_fit(self, v: Tensor, x_seq: Tensor) -> None:
        for what, carried, given in (
            ("shape", tuple(v.shape), tuple(x_seq.shape[1:])),
            ("dtype", v.dtype, state_dtype(x_seq)),
            ("device", v.device, x_seq.device),
        ):
            if carried != given:
                raise ValueError(
                    f"{self.name} carries a membrane of {what} {carried} and got a step that needs {what} {given}; "
                    "call state.reset() before other inputs"
                )

    def _check_graph(self, v: Tensor) -> None:
        if torch.compiler.is_compiling() or not torch.is_grad_enabled() or not _tells_its_use(v.grad_fn):
            return
        try:
            _ = v.grad_fn._raw_saved_tensors  # type: ignore[union-attr]  # runs no hooks, unlike saved_tensors
        except RuntimeError:
            raise RuntimeError(
                f"{self.name} carries a membrane whose graph a backward pass has used up; call state.detach() after "
                "each backward (truncated backpropagation), or keep the graph with backward(retain_graph=True)"
            ) from None


def _tells_its_use(node: Any) -> bool:
    """Return whether a node of the graph raises an error for what it saved once a backward pass has freed that."""
    return hasattr(type(node), "_raw_saved_tensors")


class CarriesState(nn.Module):
    """A neuron module that starts every call at rest, except inside `carry_state`."""

    _memory: Memory | None = None

    def __getstate__(self) -> dict[str, Any]:
        """Return what copies and pickles keep: everything but a carried membrane."""
        return {key: value for key, value in self.__dict__.items() if key != "_memory"}


class CarriedState:
    """The membranes that `carry_state` keeps between calls."""

    def __init__(self, memories: list[Memory]) -> None:
        self._memories = memories

    @property
    def membranes(self) -> dict[str, Tensor | None]:
        """Membrane of every neuron by the name of its layer, as its last call left it; None is rest."""
        return {memory.name: memory.v for memory in self._memories}

    def detach(self) -> None:
        """Keep the values and cut the gradient here: the next calls' backward ends at this point."""
        for memory in self._memories:
            memory.v = None if memory.v is None else memory.v.detach()

    def reset(self) -> None:
        """Return every neuron to rest."""
        for memory in self._memories:
            memory.v = None


@contextmanager
def carry_state(module: nn.Module) -> Iterator[CarriedState]:
    """Let every neuron in ``module`` continue, within this block, from where its call before ended.

    Neurons are at rest when the block starts, and again after it, however it ends. The membrane is a plain attribute:
    not in ``state_dict``, nor in copies and pickles. A neuron module that is used at two places of one network has one
    membrane, which the second place continues; give each place a module of its own.

    Args:
        module: A neuron, or a network that holds some.

    Yields:
        The membranes; ``detach()`` them between chunks for truncated backpropagation, ``reset()`` them between inputs.

    Raises:
        ValueError: If the module holds no neuron of this package.
        RuntimeError: If one of its neurons carries state already.
    """
    modules = module.named_modules()
    layers = {name or type(module).__name__: layer for name, layer in modules if isinstance(layer, CarriesState)}
    if not layers:
        raise ValueError(f"{type(module).__name__} holds no neuron of tcvq-neurons; there is no state to carry")
    for name, layer in layers.items():
        if layer._memory is not None:
            raise RuntimeError(f"{name} carries state already, for another carry_state block; leave that one first")
    for name, layer in layers.items():
        layer._memory = Memory(name)
    state = CarriedState([layer._memory for layer in layers.values() if layer._memory is not None])
    try:
        yield state
    finally:
        state.reset()
        for layer in layers.values():
            layer._memory = None
