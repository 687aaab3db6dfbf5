"""What the processes of a training run agree on: averages of gradients and losses. Without a process group, nothing.

Every function but `world_size` and `is_first` is a collective: all ranks call it, in the same order, with the same
shapes.
"""

from collections.abc import Iterable
from typing import Any

import torch
import torch.distributed as dist
from jaxtyping import Float
from torch import Tensor, nn
from torch.distributed.tensor import DTensor


def world_size() -> int:
    """Return the number of ranks, 1 without a process group."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def is_first() -> bool:
    """Return whether this is rank 0, or the only process."""
    return world_size() == 1 or dist.get_rank() == 0


def average_(tensors: Iterable[Tensor]) -> None:
    """Replace tensors in place by their averages over the ranks, in one message per dtype.

    Sharded tensors are left alone: whoever shards a parameter also averages its gradient.
    """
    ranks = world_size()
    if ranks == 1:
        return
    plain = [tensor for tensor in tensors if not isinstance(tensor, DTensor)]
    for dtype in dict.fromkeys(tensor.dtype for tensor in plain):
        group = [tensor for tensor in plain if tensor.dtype == dtype]
        flat = torch.cat([tensor.flatten() for tensor in group])
        dist.all_reduce(flat)
        parts = (flat / ranks).split([tensor.numel() for tensor in group])
        for tensor, part in zip(group, parts, strict=True):
            tensor.copy_(part.view_as(tensor))


def gather_batch(z: Float[Tensor, "T B *rest"]) -> Float[Tensor, "T all *rest"]:
    """Return the latents of all ranks, joined along the batch."""
    if world_size() == 1:
        return z
    parts = [torch.empty_like(z) for _ in range(world_size())]
    dist.all_gather(parts, z.contiguous())
    return torch.cat(parts, 1)


class _SumOverRanks(torch.autograd.Function):
    """y_r = Σ_s x_s on every rank r, hence dL/dx_s = Σ_r dL_r/dy_r."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        """Sum the values."""
        y = x.clone()
        dist.all_reduce(y)
        return y

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        """Sum the gradients."""
        grad = grad.clone()
        dist.all_reduce(grad)
        return grad


class GlobalBatchNorm2d(nn.BatchNorm2d):
    """`torch.nn.BatchNorm2d` whose batch is that of all ranks together, on any device.

    `torch.nn.SyncBatchNorm` does the same on a GPU only. Ranks have batches of the same shape.
    """

    def forward(self, x: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C H W"]:
        """Normalise; in training by the statistics of this batch, which also move the running ones."""
        ranks = world_size()
        if not self.training or ranks == 1:
            return super().forward(x)
        wide = x.to(torch.promote_types(x.dtype, torch.float32))
        n = ranks * x.numel() / x.shape[1]
        mean = _SumOverRanks.apply(wide.sum((0, 2, 3))) / n
        centred = wide - mean[:, None, None]
        var = _SumOverRanks.apply(centred.square().sum((0, 2, 3))) / n
        self._track(mean.detach(), var.detach() * n / (n - 1))
        scale = self.weight * (var + self.eps).rsqrt()
        return (centred * scale[:, None, None] + self.bias[:, None, None]).to(x.dtype)

    @torch.no_grad()
    def _track(self, mean: Tensor, var: Tensor) -> None:
        assert self.momentum is not None
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        self.running_mean.lerp_(mean.to(self.running_mean), self.momentum)
        self.running_var.lerp_(var.to(self.running_var), self.momentum)
        self.num_batches_tracked += 1
