"""Convolutions of small maps as one matrix product; the CPU's library of convolutions takes many times as long."""

from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

SITES = 4  # of a map, at most: 2 x 2
WEIGHTS = 2**16  # of a kernel's centre, at least: 256 x 256 channels
KERNEL = 3  # side of a kernel, at most


class Conv2d(nn.Conv2d):
    """`torch.nn.Conv2d` with stride 1 and maps that keep their size: the same numbers up to rounding.

    On the CPU, maps of up to `SITES` sites under at least `WEIGHTS` weights are written as rows of all values under the
    kernel and multiplied with the weight as a matrix, forward and backward; the rows are built anew in the backward.
    The weight is not copied where it lies channels_last. Everything else, and what `torch.compile` sees, is torch's
    convolution. Measured on an Intel Xeon with AMX bf16, one thread, forward and backward of 32 maps of 2x2 under 3x3
    kernels: at 512 channels 7 times as fast in bfloat16 and 4 times in float32, at 256 3 and 2 times; at 128 there is
    little to gain, and at 64 a convolution is faster.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        kernel: Side of the kernel, odd; zeros are padded around the map.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel: int) -> None:
        super().__init__(in_channels, out_channels, kernel, padding=kernel // 2)

    def forward(self, x: Float[Tensor, "N C H W"]) -> Float[Tensor, "N C2 H W"]:
        """Convolve."""
        if not _as_product(x, self.weight):
            return super().forward(x)
        weight, bias = self.weight, self.bias
        assert bias is not None
        if torch.is_autocast_enabled("cpu"):
            dtype = torch.get_autocast_dtype("cpu")
            x, weight, bias = x.to(dtype), weight.to(dtype), bias.to(dtype)
        y: Tensor = _Product.apply(x, weight, bias)
        return y.view(len(x), *x.shape[2:], -1).permute(0, 3, 1, 2)


def _as_product(x: Tensor, weight: Tensor) -> bool:
    return (
        x.device.type == "cpu"
        and x.shape[2] * x.shape[3] <= SITES
        and weight.shape[2] <= KERNEL
        and weight.shape[0] * weight.shape[1] >= WEIGHTS
        and x.numel() > 0
        and not torch.compiler.is_compiling()
    )


class _Product(torch.autograd.Function):
    """rows(x) W^T + b with W ``(O, k k C)``, the weight with channels last: a row for every site."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        return torch.addmm(bias, _rows(x, weight.shape[2]), _matrix(weight).t())

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        kernel = weight.shape[2]
        grad_weight = (g.t() @ _rows(x, kernel)).view(len(weight), kernel, kernel, -1).permute(0, 3, 1, 2)
        grad_x = _from_rows(g @ _matrix(weight), x.shape, kernel) if ctx.needs_input_grad[0] else None
        return grad_x, grad_weight, g.sum(0)


def _matrix(weight: Tensor) -> Tensor:
    return weight.permute(0, 2, 3, 1).reshape(len(weight), -1)


def _rows(x: Float[Tensor, "N C H W"], kernel: int) -> Float[Tensor, "rows kkC"]:
    """Return the values under the kernel at every site, zeros outside of the map."""
    sites, pad = x.permute(0, 2, 3, 1), kernel // 2
    if pad:
        sites = F.pad(sites, (0, 0, pad, pad, pad, pad)).unfold(1, kernel, 1).unfold(2, kernel, 1).movedim(3, 5)
    return sites.reshape(x.shape[0] * x.shape[2] * x.shape[3], -1)


def _from_rows(rows: Float[Tensor, "rows kkC"], shape: torch.Size, kernel: int) -> Float[Tensor, "N C H W"]:
    """Return the sum over all rows in which a value stands: the transpose of `_rows`."""
    n, channels, height, width = shape
    pad = kernel // 2
    under = rows.view(n, height, width, kernel, kernel, channels)
    total = under.new_zeros(n, height + 2 * pad, width + 2 * pad, channels)
    for i in range(kernel):
        for j in range(kernel):
            total[:, i : i + height, j : j + width] += under[:, :, :, i, j]
    return total[:, pad : pad + height, pad : pad + width].permute(0, 3, 1, 2)
