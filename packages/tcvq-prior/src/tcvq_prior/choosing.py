"""From logits to a code: temperature, filters, and one reproducible random number per sample and position."""

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor


@dataclass(frozen=True, kw_only=True, slots=True)
class Choice:
    """How a code is chosen: temperature, then top-k, then top-p, then min-p.

    Attributes:
        temperature: Divides the logits; 0 always takes the most probable code.
        top_k: Keep the k most probable codes; None keeps all.
        top_p: Keep the smallest set of codes whose probabilities reach p (Holtzman et al. 2020); None keeps all.
        min_p: Keep the codes that are at least p times as probable as the most probable one (Nguyen et al. 2024); None
            keeps all.
    """

    temperature: float = 1.0
    top_k: int | None = None
    top_p: float | None = None
    min_p: float | None = None

    def __post_init__(self) -> None:
        """Reject what no draw can follow."""
        if not self.temperature >= 0:
            raise ValueError(f"temperature is {self.temperature}; it must not be negative")
        if self.top_k is not None and self.top_k < 1:
            raise ValueError(f"top_k is {self.top_k}; it must be at least 1")
        if self.top_p is not None and not 0 < self.top_p <= 1:
            raise ValueError(f"top_p is {self.top_p}; it must lie in (0, 1]")
        if self.min_p is not None and not 0 <= self.min_p <= 1:
            raise ValueError(f"min_p is {self.min_p}; it must lie in [0, 1]")

    def probabilities(self, logits: Float[Tensor, "B K"]) -> Float[Tensor, "B K"]:
        """Return the filtered probabilities, float64, summing to 1."""
        return filter_logits(logits, temperature=self.temperature, top_k=self.top_k, top_p=self.top_p, min_p=self.min_p)

    def codes(self, logits: Float[Tensor, "B K"], numbers: Float[Tensor, " B"]) -> Int[Tensor, " B"]:
        """Return for each row the code at which the cumulated probability passes a uniform number."""
        cdf = self.probabilities(logits).cumsum(-1)
        drawn = torch.searchsorted(cdf, numbers[:, None] * cdf[:, -1:], right=True)
        return drawn[:, 0].clamp(max=logits.shape[-1] - 1)


def filter_logits(
    logits: Float[Tensor, "B K"],
    *,
    temperature: float,
    top_k: int | None,
    top_p: float | None,
    min_p: float | None = None,
) -> Float[Tensor, "B K"]:
    """Turn logits into probabilities, keeping at least one code; the arguments are those of `Choice`.

    Returns:
        Probabilities, float64, summing to 1.
    """
    logits = logits.double()
    if temperature == 0:
        return F.one_hot(logits.argmax(-1), logits.shape[-1]).double()
    logits = (logits - logits.amax(-1, keepdim=True)) / temperature  # at most 0: no overflow at low temperatures
    if top_k is not None and top_k < logits.shape[-1]:
        kept = logits.topk(top_k, dim=-1).indices
        logits = logits.masked_fill(torch.ones_like(logits, dtype=torch.bool).scatter(-1, kept, False), -torch.inf)
    probabilities = logits.softmax(-1)
    dropped = torch.zeros_like(probabilities, dtype=torch.bool)
    if top_p is not None and top_p < 1:
        ordered, order = probabilities.sort(dim=-1, descending=True)
        dropped = dropped.scatter(-1, order, (ordered.cumsum(-1) - ordered) >= top_p)
    if min_p:
        dropped = dropped | (probabilities < min_p * probabilities.amax(-1, keepdim=True))
    probabilities = probabilities.masked_fill(dropped, 0.0)
    return probabilities / probabilities.sum(-1, keepdim=True)


def uniforms(seed: int, first: int, n: int, length: int) -> Float[np.ndarray, "n length"]:
    """One uniform number per (seed, sample, position) from a counter-based generator, whatever the batch."""
    keys = np.array([[seed, first + i] for i in range(n)], dtype=np.uint64)
    return np.stack([np.random.Generator(np.random.Philox(key=key)).random(length) for key in keys])
