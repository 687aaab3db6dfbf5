"""Memory order of the weights where it pays, and Adam in one pass over memory in any order."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from tcvq_neurons import fuses_norm

_MOMENTS = ("exp_avg", "exp_avg_sq")


def lay_out(module: nn.Module) -> nn.Module:
    """Put the convolutions' weights into channels_last where the CPU's compiled kernels run; return the module.

    Values, names and shapes stay; oneDNN then spares the reordering of weights and gradients. Left alone if there is a
    CUDA device, whose group norm works on contiguous memory only.
    """
    if fuses_norm("auto") and not torch.cuda.is_available():
        module.to(memory_format=torch.channels_last)
    return module


class FusedAdam(torch.optim.Adam):
    """`torch.optim.Adam` with its fused step, without the copies that step makes of channels_last gradients.

    Each step sees views of parameters, gradients and moments whose axes are in the order of memory.

    Args:
        params: Parameters.
        lr: Learning rate.
        betas: Decays of the two moments.
    """

    def __init__(self, params: Any, *, lr: float, betas: tuple[float, float]) -> None:
        super().__init__(params, lr=lr, betas=betas, fused=True)

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Update every parameter that has a gradient; see `torch.optim.Adam.step`."""
        if closure is not None:
            with torch.enable_grad():
                closure()
        with _in_memory_order(self):
            return super().step()


@contextmanager
def _in_memory_order(optimizer: torch.optim.Optimizer) -> Iterator[None]:
    """Let channels_last parameters, gradients and moments appear as contiguous ``(O, H, W, I)`` inside."""
    turned = [
        p
        for group in optimizer.param_groups
        for p in group["params"]
        if p.grad is not None and p.dim() == 4 and not p.is_contiguous()
    ]
    for p in turned:
        _turn(p, optimizer.state[p], (0, 2, 3, 1))
    try:
        yield
    finally:
        for p in turned:
            _turn(p, optimizer.state[p], (0, 3, 1, 2))


def _turn(p: nn.Parameter, state: dict[str, Tensor], axes: tuple[int, ...]) -> None:
    grad, p.grad = p.grad, None
    p.data = p.data.permute(axes)
    p.grad = None if grad is None else grad.permute(axes)
    for name in _MOMENTS:
        if name in state:
            state[name] = state[name].permute(axes)
