"""Surrogate gradients: the derivative used in place of the Heaviside step's in the backward pass."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True, slots=True)
class QuadraticGate:
    """Triangle of height ``alpha`` and half-width ``1 / alpha`` around the threshold.

    ``g'(u) = alpha - alpha^2 |u|`` for ``|u| <= 1 / alpha``, else 0; NaN stays NaN. Its integral is 1. With
    ``alpha = 2`` this is the surrogate of arXiv 2405.14474 (``QGateGrad`` of braincog 0.2.7).

    Attributes:
        alpha: Slope parameter, in 1 / voltage.
    """

    alpha: float = 2.0

    def __post_init__(self) -> None:
        """Reject a slope that is not a positive number.

        Raises:
            ValueError: If ``alpha`` is not finite and positive.
        """
        if not (math.isfinite(self.alpha) and self.alpha > 0):
            raise ValueError(f"QuadraticGate.alpha is {self.alpha}; it must be finite and positive")

    def __call__(self, u: Float[Tensor, "*any"]) -> Float[Tensor, "*any"]:
        """Return ds/du at the distance ``u = h - v_threshold`` from the threshold."""
        distance = u.abs()
        slope = -self.alpha * self.alpha * distance + self.alpha
        return torch.where(distance > 1 / self.alpha, 0.0, slope)
