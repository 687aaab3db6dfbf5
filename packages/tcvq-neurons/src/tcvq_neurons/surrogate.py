"""Surrogate gradients: the derivative used in place of the Heaviside step's in the backward pass.

Each is one small frozen object with the same equation twice, in torch and as a C expression, which do the same float32
roundings in the same order; ``primitive`` is the smooth step that has this derivative. NaN stays NaN in all of them.
"""

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar, TypeVar

import torch
from jaxtyping import Float
from torch import Tensor

from tcvq_neurons.exponential import exp_negative
from tcvq_neurons.interface import Surrogate

SURROGATES: dict[str, type[Surrogate]] = {}
"""Every registered surrogate, by the name of its class."""

SurrogateClass = TypeVar("SurrogateClass", bound=type[Surrogate])


def register_surrogate(cls: SurrogateClass) -> SurrogateClass:
    """Make a class of surrogates known by its name, so that a compiled graph can carry its objects; a decorator.

    Args:
        cls: A frozen dataclass whose fields are all floats.

    Raises:
        TypeError: If the class is anything else.
        ValueError: If another class has this name.
    """
    params = getattr(cls, "__dataclass_params__", None)
    if params is None or not params.frozen:
        raise TypeError(f"surrogate {cls.__name__} is no frozen dataclass; put @dataclass(frozen=True) on its class")
    for field in dataclasses.fields(cls):  # type: ignore[arg-type]
        if field.type not in (float, "float"):
            raise TypeError(f"surrogate {cls.__name__}.{field.name} is a {field.type}; a surrogate's fields are floats")
    known = SURROGATES.setdefault(cls.__name__, cls)
    if (known.__module__, known.__qualname__) != (cls.__module__, cls.__qualname__):
        raise ValueError(f"a surrogate {cls.__name__} is registered already, by {known.__module__}; rename this one")
    SURROGATES[cls.__name__] = cls
    return cls


def build_surrogate(name: str, values: Sequence[float]) -> Surrogate:
    """Return the surrogate of a registered name with these values of its fields, always the same object.

    Raises:
        ValueError: If the name is not registered.
    """
    if name not in SURROGATES:
        raise ValueError(f"surrogate is {name!r}; registered are {', '.join(SURROGATES)}")
    return _build(SURROGATES[name], tuple(values))


@lru_cache(maxsize=256)
def _build(cls: type[Surrogate], values: tuple[float, ...]) -> Surrogate:
    return cls(*values)


class _PositiveFields:
    """Refuses constants that are not finite and positive."""

    __slots__ = ()

    def __post_init__(self) -> None:
        """Check every field.

        Raises:
            ValueError: If one is not finite and positive.
        """
        for field in dataclasses.fields(self):  # type: ignore[arg-type]
            value = getattr(self, field.name)
            if not (math.isfinite(value) and value > 0):
                raise ValueError(f"{type(self).__name__}.{field.name} is {value}; it must be finite and positive")


@register_surrogate
@dataclass(frozen=True, slots=True)
class QuadraticGate(_PositiveFields):
    """Triangle of height ``alpha`` and half-width ``1 / alpha`` around the threshold.

    ``g'(u) = alpha - alpha^2 |u|`` for ``|u| <= 1 / alpha``, else 0. Its integral is 1. With ``alpha = 2`` this is the
    surrogate of arXiv 2405.14474 (``QGateGrad`` of braincog 0.2.7).

    Attributes:
        alpha: Slope parameter, in 1 / voltage.
    """

    alpha: float = 2.0

    c_expression: ClassVar[str] = "fabsf(u) > k2 ? 0.0f : k0 - k1 * fabsf(u)"

    def constants(self) -> tuple[float, ...]:
        """Return height, slope and half-width."""
        return self.alpha, self.alpha * self.alpha, 1 / self.alpha

    def __call__(self, u: Float[Tensor, "*any"]) -> Float[Tensor, "*any"]:
        """Return ds/du at the distance ``u = h - v_threshold`` from the threshold."""
        height, slope, half_width = self.constants()
        distance = u.abs()
        return torch.where(distance > half_width, 0.0, height - slope * distance)

    def primitive(self, u: Float[Tensor, "*any"]) -> Float[Tensor, "*any"]:
        """Return two parabolas between 0 at ``-1 / alpha`` and 1 at ``1 / alpha``."""
        z = (self.alpha * u).clamp(-1, 1)
        return 0.5 + z - z * z.abs() / 2


@register_surrogate
@dataclass(frozen=True, slots=True)
class ATan(_PositiveFields):
    """Derivative of the arc tangent: ``g'(u) = alpha / 2 / (1 + (pi / 2 alpha u)^2)``. Its integral is 1.

    From Fang et al. 2021 (arXiv 2007.05785), with their ``alpha = 2``.

    Attributes:
        alpha: Slope parameter, in 1 / voltage; the height is ``alpha / 2``.
    """

    alpha: float = 2.0

    c_expression: ClassVar[str] = "k0 * (1.0f / (1.0f + (k1 * u) * (k1 * u)))"

    def constants(self) -> tuple[float, ...]:
        """Return height and inner slope."""
        return self.alpha / 2, math.pi / 2 * self.alpha

    def __call__(self, u: Float[Tensor, "*any"]) -> Float[Tensor, "*any"]:
        """Return ds/du at the distance ``u = h - v_threshold`` from the threshold."""
        height, slope = self.constants()
        z = slope * u
        return height * (1 + z * z).reciprocal()

    def primitive(self, u: Float[Tensor, "*any"]) -> Float[Tensor, "*any"]:
        """Return ``arctan(pi / 2 alpha u) / pi + 1 / 2``."""
        return torch.atan(math.pi / 2 * self.alpha * u) / math.pi + 0.5


@register_surrogate
@dataclass(frozen=True, slots=True)
class Sigmoid(_PositiveFields):
    """Derivative of the logistic function of ``alpha u``: ``alpha e / (1 + e)^2`` with ``e = exp(-alpha |u|)``.

    Its integral is 1. The default is spikingjelly's.

    Attributes:
        alpha: Slope parameter, in 1 / voltage; the height is ``alpha / 4``.
    """

    alpha: float = 4.0

    c_expression: ClassVar[str] = (
        "k0 * tcvq_exp(-k0 * fabsf(u)) / ((1.0f + tcvq_exp(-k0 * fabsf(u))) * (1.0f + tcvq_exp(-k0 * fabsf(u))))"
    )

    def constants(self) -> tuple[float, ...]:
        """Return ``alpha``."""
        return (self.alpha,)

    def __call__(self, u: Float[Tensor, "*any"]) -> Float[Tensor, "*any"]:
        """Return ds/du at the distance ``u = h - v_threshold`` from the threshold."""
        e = exp_negative(-self.alpha * u.abs())
        return self.alpha * e / ((1 + e) * (1 + e))

    def primitive(self, u: Float[Tensor, "*any"]) -> Float[Tensor, "*any"]:
        """Return ``1 / (1 + exp(-alpha u))``."""
        return torch.sigmoid(self.alpha * u)


@register_surrogate
@dataclass(frozen=True, slots=True)
class Triangle(_PositiveFields):
    """Triangle of free height and half-width: ``g'(u) = gamma max(0, 1 - |u| / width)``. Its integral is gamma width.

    From Bellec et al. 2018 (arXiv 1803.09574), who damp by ``gamma = 0.3`` and measure ``u`` in units of the threshold:
    ``width = v_threshold`` is theirs.

    Attributes:
        gamma: Height.
        width: Half of the base, in voltage.
    """

    gamma: float = 0.3
    width: float = 1.0

    c_expression: ClassVar[str] = "fabsf(u) * k1 > 1.0f ? 0.0f : k0 * (1.0f - fabsf(u) * k1)"

    def constants(self) -> tuple[float, ...]:
        """Return height and 1 / width."""
        return self.gamma, 1 / self.width

    def __call__(self, u: Float[Tensor, "*any"]) -> Float[Tensor, "*any"]:
        """Return ds/du at the distance ``u = h - v_threshold`` from the threshold."""
        height, scale = self.constants()
        distance = u.abs() * scale
        return torch.where(distance > 1, 0.0, height * (1 - distance))

    def primitive(self, u: Float[Tensor, "*any"]) -> Float[Tensor, "*any"]:
        """Return two parabolas between 0 at ``-width`` and ``gamma width`` at ``width``."""
        z = (u / self.width).clamp(-1, 1)
        return self.gamma * self.width * (0.5 + z - z * z.abs() / 2)


@register_surrogate
@dataclass(frozen=True, slots=True)
class Rectangle(_PositiveFields):
    """Constant ``1 / width`` for ``|u| < width / 2``, else 0. Its integral is 1.

    ``h_1`` of Wu et al. 2018 (arXiv 1706.02609), with their ``a_1 = 1``.

    Attributes:
        width: The base, in voltage.
    """

    width: float = 1.0

    c_expression: ClassVar[str] = "fabsf(u) >= k1 ? 0.0f : k0 + 0.0f * u"  # 0 u keeps NaN

    def constants(self) -> tuple[float, ...]:
        """Return height and half-width."""
        return 1 / self.width, self.width / 2

    def __call__(self, u: Float[Tensor, "*any"]) -> Float[Tensor, "*any"]:
        """Return ds/du at the distance ``u = h - v_threshold`` from the threshold."""
        height, half_width = self.constants()
        return torch.where(u.abs() >= half_width, 0.0, height + 0 * u)

    def primitive(self, u: Float[Tensor, "*any"]) -> Float[Tensor, "*any"]:
        """Return the ramp between 0 at ``-width / 2`` and 1 at ``width / 2``."""
        return (u / self.width + 0.5).clamp(0, 1)


@register_surrogate
@dataclass(frozen=True, slots=True)
class SuperSpike(_PositiveFields):
    """Derivative of the fast sigmoid: ``g'(u) = 1 / (1 + beta |u|)^2``. Its integral is ``2 / beta``.

    From Zenke & Ganguli 2018 (arXiv 1705.11146): their ``beta`` is 1 / mV for a threshold 10 mV above rest, which is 10
    in units of that distance.

    Attributes:
        beta: Slope parameter, in 1 / voltage.
    """

    beta: float = 10.0

    c_expression: ClassVar[str] = "1.0f / ((1.0f + k0 * fabsf(u)) * (1.0f + k0 * fabsf(u)))"

    def constants(self) -> tuple[float, ...]:
        """Return ``beta``."""
        return (self.beta,)

    def __call__(self, u: Float[Tensor, "*any"]) -> Float[Tensor, "*any"]:
        """Return ds/du at the distance ``u = h - v_threshold`` from the threshold."""
        z = 1 + self.beta * u.abs()
        return (z * z).reciprocal()

    def primitive(self, u: Float[Tensor, "*any"]) -> Float[Tensor, "*any"]:
        """Return ``u / (1 + beta |u|)``, between ``-1 / beta`` and ``1 / beta``."""
        return u / (1 + self.beta * u.abs())
