"""What every fused backend offers: forward and backward over a whole sequence, and a count of both."""

from collections import Counter
from typing import Protocol, runtime_checkable

from torch import Tensor

from tcvq_neurons.config import LIFConfig

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
