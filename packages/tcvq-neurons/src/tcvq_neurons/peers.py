"""When a neuron of spikingjelly, snntorch or braincog computes what one of ours does: a rule for each of their classes.

The classes are recognised by their names; none of the packages is imported. A rule returns our neuron and what the user
must know about it, or raises `RefusedError` with the reason in one line.
"""

import inspect
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from tcvq_neurons.config import ConstantName
from tcvq_neurons.interface import Surrogate
from tcvq_neurons.lif import IF, LIF
from tcvq_neurons.surrogate import ATan, QuadraticGate, Rectangle, Sigmoid, SuperSpike

_STATE = "kept its membrane from call to call until it was reset; ours starts every call at rest, except in carry_state"
_STEP = "took one step per call; ours takes the whole sequence (T, B, ...): a loop over time must go"


class RefusedError(Exception):
    """The neuron has no counterpart that computes the same."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Allowed:
    """What the caller of `convert` accepts.

    Attributes:
        single_step: Neurons that took one step per call.
        rounding: Neurons whose results are rounded differently.
    """

    single_step: bool
    rounding: bool

    def check_step(self, advice: str = "") -> None:
        """Refuse a neuron that takes one step per call, unless that is allowed."""
        if not self.single_step:
            raise RefusedError(
                f"takes one step per call, ours the whole sequence (T, B, ...); {advice}pass single_step=True"
            )

    def check_rounding(self, why: str) -> None:
        """Refuse a neuron whose results are rounded differently, unless that is allowed."""
        if not self.rounding:
            raise RefusedError(f"{why}, which is rounded differently; pass rounding=True to accept that")


Rule = Callable[[Any, Allowed], tuple[LIF, str]]


def find_rule(cls: type) -> Rule | None:
    """Return the rule for a class, one that refuses if it is an unknown spiking neuron, or None if it is not one."""
    if not any(_key(base) in _BASES or _key(base) in _RULES for base in cls.__mro__):
        return None
    return _RULES.get(_key(cls), _unknown)


def _key(cls: type) -> tuple[str, str]:
    """Return package and name of a class from a module of neurons, module and name of any other."""
    for prefix, package in _PACKAGES.items():
        if cls.__module__ == prefix or cls.__module__.startswith(prefix + "."):
            return package, cls.__name__
    return cls.__module__, cls.__name__


def _unknown(node: nn.Module, allowed: Allowed) -> tuple[LIF, str]:
    raise RefusedError(f"{type(node).__module__}.{type(node).__qualname__} has no counterpart here")


def _spikingjelly(node: Any, allowed: Allowed) -> tuple[LIF, str]:
    """``h = v + (x - v) / tau`` or ``v - v / tau + x``; ``s = h >= v_th``; ``v = (1 - s) h`` or ``h - s v_th``."""
    _refuse_options(node, store_v_seq=False, _neuron_precision=None)
    _refuse_state(node.v, "spikingjelly's functional.reset_net(net)")
    if node.step_mode != "m":
        allowed.check_step("functional.set_step_mode(net, 'm'), or ")
    if node.v_reset not in {None, 0.0}:
        raise RefusedError(f"v_reset={node.v_reset}; ours resets to 0")
    options: dict[str, Any] = {
        "v_threshold": _positive("v_threshold", node.v_threshold),
        "reset": "soft" if node.v_reset is None else "hard",
        "detach_reset": node.detach_reset,
        "fire_at_threshold": True,
        "surrogate": _spikingjelly_surrogate(node.surrogate_function),
    }
    note = _STATE if node.step_mode == "m" else f"{_STEP}; {_STATE}"
    match type(node).__name__:
        case "IFNode":
            return IF(**options), note
        case "LIFNode":
            return LIF(tau=float(node.tau), decay_input=node.decay_input, **options), note
    return _parametric(node.w, allowed, decay_input=node.decay_input, **options), note


def _snntorch(node: Any, allowed: Allowed) -> tuple[LIF, str]:
    """``h = beta v + x``; ``s = h > threshold``; reset to zero, or none; by subtraction it is another neuron."""
    _refuse_options(node, inhibition=False, state_quant=False, surrogate_disable=False)
    if not node.init_hidden or node.output:
        raise RefusedError("returns (spk, mem), ours only spikes; make it with init_hidden=True and output=False")
    if any(isinstance(value, nn.Parameter) for value in (node.beta, node.threshold, node.graded_spikes_factor)):
        raise RefusedError("learns beta, threshold or graded_spikes_factor as such; ours learns tau by its sigmoid")
    if _number("graded_spikes_factor", node.graded_spikes_factor) != 1:
        raise RefusedError("graded_spikes_factor is not 1; our spikes are 0 or 1")
    if node.reset_mechanism == "subtract":
        raise RefusedError(
            "reset_mechanism='subtract' takes the threshold off after the decay, or twice while above it; ours takes "
            "it off once and before; 'zero' and 'none' agree"
        )
    _refuse_state(node.mem, "its reset_mem()")
    allowed.check_step()
    beta = _number("beta", node.beta)
    options: dict[str, Any] = {
        "v_threshold": _positive("threshold", node.threshold),
        "reset": "hard" if node.reset_mechanism == "zero" else "none",
        "detach_reset": bool(node.reset_delay),
        "surrogate": _snntorch_surrogate(node.spike_grad),
    }
    if not 0 <= beta <= 1:
        raise RefusedError(f"beta={beta} is clamped to [0, 1] by snntorch; set it to what is meant")
    if beta == 1:
        return IF(**options), f"{_STEP}; {_STATE}"
    tau = 1 / (1 - beta)
    if math.frexp(tau)[0] != 0.5:
        allowed.check_rounding(f"h = beta v + x with beta={beta:.4g} is v - v / tau + x with tau={tau:.4g}")
    return LIF(tau=tau, decay_input=False, **options), f"{_STEP}; {_STATE}"


def _braincog(node: Any, allowed: Allowed) -> tuple[LIF, str]:
    """``h = v + (x - v) / tau`` or ``v + x``; ``s = h > threshold``; ``v = h (1 - s)``, the reset detached."""
    _refuse_options(node, requires_fp=False, requires_mem=False, mem_detach=False, groups=1, v_reset=0)
    kind = type(node).__name__
    if node.layer_by_layer:
        raise RefusedError("layer_by_layer=True folds time into the batch; ours takes (T, B, ...)")
    if kind != "LIFNode":
        _refuse_options(node, sigmoid_thres=False, dt=1)
    if node.threshold.requires_grad:
        raise RefusedError("learns its threshold as such; ours learns the logarithm: LIF(learn=('v_threshold',))")
    _refuse_state(node.mem, "its n_reset()")
    allowed.check_step()
    surrogate, at_threshold = _braincog_surrogate(node.act_fun)
    options: dict[str, Any] = {
        "v_threshold": _positive("threshold", node.threshold),
        "surrogate": surrogate,
        "fire_at_threshold": at_threshold,
    }
    note = f"{_STEP}; {_STATE}"
    if kind == "IFNode":
        return IF(**options), note
    if kind == "LIFNode":
        return LIF(tau=_number("tau", node.tau), **options), note
    return _parametric(node.w, allowed, **options), note


def _parametric(w: nn.Parameter, allowed: Allowed, **options: Any) -> LIF:
    """``1 / tau = sigmoid(w)`` in all three packages; theirs multiplies by it, ours divides by ``1 + exp(-w)``."""
    allowed.check_rounding("multiplies by sigmoid(w), ours divides by tau = 1 + exp(-w)")
    learn: tuple[ConstantName, ...] = ("tau",)
    neuron = LIF(learn=learn, **options)
    neuron.register_parameter("w_tau", w)  # the same object, so that an optimizer keeps it
    return neuron


def _spikingjelly_surrogate(function: Any) -> Surrogate:
    name = type(function).__name__
    alpha = getattr(function, "alpha", None)
    if not getattr(function, "spiking", True):
        raise RefusedError(f"surrogate {name}(spiking=False) makes its output a smooth function; ours always spikes")
    if type(function).__module__ == "spikingjelly.activation_based.surrogate" and isinstance(alpha, float | int):
        match name:
            case "PiecewiseQuadratic":
                return QuadraticGate(float(alpha))
            case "ATan":
                return ATan(float(alpha))
            case "Sigmoid":
                return Sigmoid(float(alpha))
            case "Rect":
                return Rectangle(1 / alpha)
            case "SuperSpike" if alpha == 1:
                return SuperSpike(1.0)
    raise RefusedError(
        f"surrogate {name}(alpha={alpha}) has no counterpart here; use PiecewiseQuadratic, ATan or Sigmoid"
    )


def _snntorch_surrogate(function: Callable[[Tensor], Tensor]) -> Surrogate:
    name = getattr(function, "__qualname__", repr(function)).split(".")[0]
    if getattr(function, "__module__", "") == "snntorch.surrogate" and inspect.isfunction(function):
        given = inspect.getclosurevars(function).nonlocals
        match name:
            case "atan":
                return ATan(float(given["alpha"]))
            case "sigmoid":
                return Sigmoid(float(given["slope"]))
            case "fast_sigmoid":
                return SuperSpike(float(given["slope"]))
    raise RefusedError(f"surrogate {name} has no counterpart here; use atan, sigmoid or fast_sigmoid")


def _braincog_surrogate(function: Any) -> tuple[Surrogate, bool]:
    """Return the surrogate and whether its step fires at the threshold as well."""
    name = type(function).__name__
    if type(function).__module__ == "braincog.base.strategy.surrogate" and hasattr(function, "alpha"):
        if function.alpha.requires_grad:
            raise RefusedError(f"surrogate {name} learns its alpha; ours is fixed")
        alpha = _number("act_fun.alpha", function.alpha)
        match name:
            case "QGateGrad":
                return QuadraticGate(alpha), False
            case "AtanGrad":
                return ATan(alpha), False
            case "SigmoidGrad":
                return Sigmoid(alpha), True
            case "GateGrad" if alpha == 2:
                return Rectangle(1.0), False
    raise RefusedError(f"surrogate {name} has no counterpart here; use QGateGrad, AtanGrad or SigmoidGrad")


def _refuse_options(node: Any, **expected: Any) -> None:
    for name, value in expected.items():
        if (given := getattr(node, name, value)) != value:
            raise RefusedError(f"{name}={given}; only {name}={value} has a counterpart here")


def _refuse_state(v: Any, remedy: str) -> None:
    if bool(v.any()) if isinstance(v, Tensor) else v != 0:
        raise RefusedError(f"holds a membrane from a call before; call {remedy} first")


def _number(name: str, value: Any) -> float:
    """Return a constant that all neurons of the layer share."""
    if isinstance(value, Tensor) and value.numel() != 1:
        raise RefusedError(
            f"{name} differs between neurons, shape {tuple(value.shape)}; only one value per layer is converted"
        )
    return float(value)


def _positive(name: str, value: Any) -> float:
    number = _number(name, value)
    if not (math.isfinite(number) and number > 0):
        raise RefusedError(f"{name}={number}; ours must be finite and positive")
    return number


_PACKAGES = {
    "spikingjelly.activation_based.neuron": "spikingjelly",
    "snntorch._neurons": "snntorch",
    "braincog.base.node.node": "braincog",
}
_RULES: dict[tuple[str, str], Rule] = {
    ("spikingjelly", "LIFNode"): _spikingjelly,
    ("spikingjelly", "IFNode"): _spikingjelly,
    ("spikingjelly", "ParametricLIFNode"): _spikingjelly,
    ("snntorch", "Leaky"): _snntorch,
    ("braincog", "LIFNode"): _braincog,
    ("braincog", "IFNode"): _braincog,
    ("braincog", "PLIFNode"): _braincog,
}
_BASES = {
    ("spikingjelly", "BaseNode"),
    ("spikingjelly", "SimpleBaseNode"),
    ("snntorch", "SpikingNeuron"),
    ("braincog", "BaseNode"),
    ("braincog", "BaseMCNode"),
}
