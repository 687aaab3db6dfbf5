"""Conformance kit: what every implementation of `Neuron` must satisfy, for this package and for others."""

import copy
import pickle

import torch
from torch import Tensor

from tcvq_neurons.interface import Neuron
from tcvq_neurons.state import CarriesState, carry_state

_N_STEPS = 5


def check_neuron(neuron: Neuron) -> None:
    """Check shapes, dtypes, independence of calls, causality in time, gradients, copying, pickling, carried state.

    Args:
        neuron: The implementation, on the CPU; it should fire for some of the currents between -2 and 4.

    Raises:
        AssertionError: With the broken promise in words.
    """
    _check_shapes(neuron)
    _check_rest(neuron)
    _check_causality(neuron)
    _check_gradient(neuron)
    _check_copies(neuron)
    if isinstance(neuron, CarriesState):
        _check_carried_state(neuron)


def _require(condition: bool, promise: str) -> None:
    if not condition:
        raise AssertionError(promise)


def _currents(*site: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """Return currents between -2 and 4, always the same for one shape; eighths, which every dtype holds exactly."""
    generator = torch.Generator().manual_seed(0)
    return torch.randint(-16, 33, (_N_STEPS, *site), generator=generator).to(dtype) / 8


def _check_shapes(neuron: Neuron) -> None:
    for dtype in (torch.float32, torch.float64, torch.float16, torch.bfloat16):
        for site in ((), (3,), (2, 3, 4, 4), (0, 3)):
            y = neuron(_currents(*site, dtype=dtype))
            _require(y.shape == (_N_STEPS, *site), f"the output has the input's shape, got {tuple(y.shape)}")
            _require(y.dtype == dtype, f"the output has the input's dtype {dtype}, got {y.dtype}")
    _require(bool(neuron(_currents(64)).any()), "some neuron fires for currents between -2 and 4")


def _check_rest(neuron: Neuron) -> None:
    x = _currents(4, 64)
    first = neuron(x)
    _require(torch.equal(neuron(x), first), "every call starts at rest")
    neuron(_currents(2, 64) + 1)
    _require(torch.equal(neuron(x), first), "every call starts at rest, also after a call with another batch size")


def _check_causality(neuron: Neuron) -> None:
    x = _currents(4, 64)
    for t in range(1, _N_STEPS):
        changed = torch.cat([x[:t], x[t:] + 1])
        _require(
            torch.equal(neuron(changed)[:t], neuron(x)[:t]), f"outputs before step {t} ignore the input from it on"
        )
        _require(torch.equal(neuron(x[:t]), neuron(x)[:t]), f"{t} steps alone give the first {t} outputs")


def _check_gradient(neuron: Neuron) -> None:
    x = _currents(4, 7).requires_grad_()
    neuron(x).sum().backward()
    if x.grad is None:
        raise AssertionError("the output has a gradient with respect to the input")
    _require(
        x.grad.shape == x.shape and bool(x.grad.isfinite().all()), "the gradient is finite and shaped as the input"
    )
    _require(bool(x.grad.any()), "the gradient is not zero everywhere")


def _check_copies(neuron: Neuron) -> None:
    x = _currents(4, 7)
    expected = neuron(x)
    _require(torch.equal(copy.deepcopy(neuron)(x), expected), "a deep copy gives the same output")
    # The bytes were made one line above, so loading them runs nothing foreign.
    restored = pickle.loads(pickle.dumps(neuron))
    _require(torch.equal(restored(x), expected), "a pickled and restored neuron gives the same output")


def _check_carried_state(neuron: CarriesState) -> None:
    x = _currents(2, 4, 7)
    expected = neuron(x)
    with carry_state(neuron) as state:
        _require(torch.equal(torch.cat([neuron(x[:2]), neuron(x[2:])]), expected), "two chunks equal the sequence")
        state.reset()
        _require(torch.equal(torch.stack([neuron(step[None])[0] for step in x]), expected), "so do single steps")
    _require(torch.equal(neuron(x), expected), "every call starts at rest again after carrying state")
