"""The options of a LIF neuron, checked when they are given."""

import math
from dataclasses import dataclass, field
from typing import Literal, TypedDict, get_args

from tcvq_neurons.interface import Surrogate
from tcvq_neurons.surrogate import QuadraticGate

Reset = Literal["hard", "soft", "none"]


@dataclass(frozen=True, kw_only=True, slots=True)
class LIFConfig:
    """Constants of a leaky integrate-and-fire neuron; the defaults are the neuron of arXiv 2405.14474.

    Attributes:
        tau: Membrane time constant in steps; 1 has no memory.
        v_threshold: Membrane potential above which the neuron fires.
        reset: What a spike does to the membrane: ``hard`` sets it to 0, ``soft`` subtracts ``v_threshold``, ``none``
            leaves it.
        decay_input: Divide the input by ``tau`` too: ``h = v + (x - v) / tau``; else ``h = v - v / tau + x``.
        detach_reset: Send no gradient through the spike that resets.
        fire_at_threshold: Fire at ``h == v_threshold`` as well.
        surrogate: Derivative of the spike in the backward pass.
    """

    tau: float = 2.0
    v_threshold: float = 0.5
    reset: Reset = "hard"
    decay_input: bool = True
    detach_reset: bool = True
    fire_at_threshold: bool = False
    surrogate: Surrogate = field(default_factory=QuadraticGate)

    def __post_init__(self) -> None:
        """Reject constants for which the equations mean nothing.

        Raises:
            ValueError: If ``tau``, ``v_threshold`` or ``reset`` is out of range.
            TypeError: If ``surrogate`` cannot be called.
        """
        if not (math.isfinite(self.tau) and self.tau >= 1):
            raise ValueError(f"lif.tau is {self.tau}; it must be finite and at least 1")
        if not (math.isfinite(self.v_threshold) and self.v_threshold > 0):
            raise ValueError(f"lif.v_threshold is {self.v_threshold}; it must be finite and positive")
        if self.reset not in get_args(Reset):
            raise ValueError(f"lif.reset is {self.reset!r}; known resets are {', '.join(get_args(Reset))}")
        if not callable(self.surrogate):
            raise TypeError(f"lif.surrogate is {self.surrogate!r}; pass an object such as QuadraticGate(alpha=2.0)")


class LIFOptions(TypedDict, total=False):
    """The fields of `LIFConfig` as keyword arguments."""

    tau: float
    v_threshold: float
    reset: Reset
    decay_input: bool
    detach_reset: bool
    fire_at_threshold: bool
    surrogate: Surrogate
