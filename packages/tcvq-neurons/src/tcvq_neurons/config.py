"""The options of a LIF neuron, checked when they are given."""

import math
from dataclasses import dataclass, field, replace
from typing import Literal, TypedDict, get_args

from torch import Tensor

from tcvq_neurons.interface import Surrogate
from tcvq_neurons.surrogate import QuadraticGate

Reset = Literal["hard", "soft", "none"]
ConstantName = Literal["tau", "v_threshold"]

_RESETS = get_args(Reset)


@dataclass(frozen=True, kw_only=True, slots=True)
class LIFConfig:
    """Constants of a leaky integrate-and-fire neuron; the defaults are the neuron of arXiv 2405.14474.

    Attributes:
        tau: Membrane time constant in steps; 1 has no memory. Infinity leaks nothing (integrate and fire) and needs
            ``decay_input=False``.
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
        if not self.tau >= 1:
            raise ValueError(f"lif.tau is {self.tau}; it must be at least 1")
        if math.isinf(self.tau) and self.decay_input:
            raise ValueError("lif.tau is inf, which would divide the input away; pass decay_input=False, or use IF()")
        if not (math.isfinite(self.v_threshold) and self.v_threshold > 0):
            raise ValueError(f"lif.v_threshold is {self.v_threshold}; it must be finite and positive")
        if self.reset not in _RESETS:
            raise ValueError(f"lif.reset is {self.reset!r}; known resets are {', '.join(_RESETS)}")
        if not callable(self.surrogate):
            raise TypeError(f"lif.surrogate is {self.surrogate!r}; pass an object such as QuadraticGate(alpha=2.0)")


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class TensorConfig(LIFConfig):
    """A `LIFConfig` with ``tau`` or ``v_threshold`` as a tensor that broadcasts against one step; values unchecked."""

    tau: float | Tensor = 2.0  # type: ignore[assignment]  # the equations read the same for both
    v_threshold: float | Tensor = 0.5  # type: ignore[assignment]

    def __post_init__(self) -> None:
        """Check nothing: reading a tensor's values would wait for its device at every call."""


class IFOptions(TypedDict, total=False):
    """The fields of `LIFConfig` that an integrate-and-fire neuron has, as keyword arguments."""

    v_threshold: float | Tensor
    reset: Reset
    detach_reset: bool
    fire_at_threshold: bool
    surrogate: Surrogate


class LIFOptions(IFOptions, total=False):
    """The fields of `LIFConfig` as keyword arguments; tensors stand for constants that are learned or differ."""

    tau: float | Tensor
    decay_input: bool


def split_tensors(config: LIFConfig, options: LIFOptions) -> tuple[LIFConfig, dict[ConstantName, Tensor]]:
    """Return the config with those options that are numbers, and the constants that were given as tensors."""
    tensors: dict[ConstantName, Tensor] = {}
    for name in get_args(ConstantName):
        if isinstance(value := options.get(name), Tensor):
            tensors[name] = value
    numbers = {key: value for key, value in options.items() if key not in tensors}
    return replace(config, **numbers) if numbers else config, tensors  # type: ignore[arg-type]


def with_tensors(config: LIFConfig, tensors: dict[ConstantName, Tensor]) -> LIFConfig:
    """Return the config with these constants as tensors; itself if there are none."""
    if not tensors:
        return config
    return TensorConfig(
        tau=tensors.get("tau", config.tau),
        v_threshold=tensors.get("v_threshold", config.v_threshold),
        reset=config.reset,
        decay_input=config.decay_input,
        detach_reset=config.detach_reset,
        fire_at_threshold=config.fire_at_threshold,
        surrogate=config.surrogate,
    )
