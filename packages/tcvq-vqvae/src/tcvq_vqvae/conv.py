"""Convolutions where the CPU's own are slow: of small maps as one product, of bfloat16 that the CPU lacks in float32.

Under bfloat16 autocast a CPU without such arithmetic takes four times as long as in float32. There the maps stay
bfloat16, which halves their memory, and convolutions are computed in float32 and rounded once.
"""

import platform
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

SITES = 4  # of a map, at most: 2 x 2
WEIGHTS = 2**16  # of a kernel's centre, at least: 256 x 256 channels
KERNELS = (1, 3)  # sides of a kernel


class Conv2d(nn.Conv2d):
    """`torch.nn.Conv2d`: the same numbers up to rounding.

    On the CPU, maps of up to `SITES` sites under at least `WEIGHTS` weights whose size a convolution keeps are written
    as rows of all values under the kernel and multiplied with the weight as a matrix, forward and backward; the rows
    are built anew in the backward. The weight is not copied where it lies channels_last. Everything else, and what
    `torch.compile` sees, is torch's convolution. Measured on an Intel Xeon with AMX bf16, one thread, forward and
    backward of 32 maps of 2x2 under 3x3 kernels: at 512 channels 7 times as fast in bfloat16 and 4 times in float32, at
    256 3 and 2 times; at 128 there is little to gain, and at 64 a convolution is faster.
    """

    def forward(self, x: Float[Tensor, "N C H W"]) -> Float[Tensor, "N C2 H2 W2"]:
        """Convolve."""
        if not _is_usual(self):
            return super().forward(x)
        if self._is_product(x):
            return self._product(x)
        if _is_emulated(x):
            widened: Tensor = _Widened.apply(x, self.weight, self.bias, self.stride, self.padding, False)
            return widened
        return super().forward(x)

    def _is_product(self, x: Tensor) -> bool:
        side = self.kernel_size[0]
        return (
            x.device.type == "cpu"
            and x.shape[2] * x.shape[3] <= SITES
            and side in KERNELS
            and self.kernel_size == (side, side)
            and self.stride == (1, 1)
            and self.padding == (side // 2, side // 2)
            and self.weight.shape[0] * self.weight.shape[1] >= WEIGHTS
            and self.bias is not None
            and x.numel() > 0
            and not torch.compiler.is_compiling()
        )

    def _product(self, x: Tensor) -> Tensor:
        weight, bias = self.weight, self.bias
        assert bias is not None
        if torch.is_autocast_enabled("cpu"):
            dtype = torch.get_autocast_dtype("cpu")
            if not _is_emulated(x):
                weight, bias = weight.to(dtype), bias.to(dtype)
            x = x.to(dtype)
        y: Tensor = _Product.apply(x, weight, bias)
        return y.view(len(x), *x.shape[2:], -1).permute(0, 3, 1, 2)


class ConvTranspose2d(nn.ConvTranspose2d):
    """`torch.nn.ConvTranspose2d`: the same numbers up to rounding."""

    def forward(self, x: Float[Tensor, "N C H W"], output_size: list[int] | None = None) -> Float[Tensor, "N C2 H2 W2"]:
        """Convolve."""
        if output_size is None and _is_usual(self) and self.output_padding == (0, 0) and _is_emulated(x):
            widened: Tensor = _Widened.apply(x, self.weight, self.bias, self.stride, self.padding, True)
            return widened
        return super().forward(x, output_size)


@cache
def emulates_bf16() -> bool:
    """Whether this CPU is known to have no arithmetic for bfloat16."""
    probes = [getattr(torch.cpu, name, None) for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported")]
    return platform.machine() in ("x86_64", "AMD64") and not any(probe is None or probe() for probe in probes)


def _is_usual(layer: nn.Conv2d | nn.ConvTranspose2d) -> bool:
    """Whether a layer has none of the options that only torch's convolution knows."""
    plain = layer.dilation == (1, 1) and layer.groups == 1 and layer.padding_mode == "zeros"
    return plain and not isinstance(layer.padding, str)


def _is_emulated(x: Tensor) -> bool:
    return (
        x.device.type == "cpu"
        and x.dtype != torch.float64
        and torch.is_autocast_enabled("cpu")
        and torch.get_autocast_dtype("cpu") == torch.bfloat16
        and not torch.compiler.is_compiling()
        and emulates_bf16()
    )


class _Widened(torch.autograd.Function):
    """A convolution in the type of its weight; its result is bfloat16, and the input is kept as it comes."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, *geometry: Any) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.geometry, ctx.bias_sizes = geometry, None if bias is None else list(bias.shape)
        with torch.autocast("cpu", enabled=False):
            y: Tensor = torch.ops.aten.convolution(x.to(weight.dtype), weight, bias, *_arguments(*geometry))
        return y.bfloat16()

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        grad_x, grad_weight, grad_bias = torch.ops.aten.convolution_backward(
            g.to(weight.dtype),
            x.to(weight.dtype),
            weight,
            ctx.bias_sizes,
            *_arguments(*ctx.geometry),
            [ctx.needs_input_grad[0], ctx.needs_input_grad[1], ctx.bias_sizes is not None and ctx.needs_input_grad[2]],
        )
        return None if grad_x is None else grad_x.to(x.dtype), grad_weight, grad_bias, None, None, None


def _arguments(stride: Any, padding: Any, transposed: bool) -> tuple[Any, ...]:
    """Return stride, padding, dilation, transposed, output padding and groups as ``aten::convolution`` takes them."""
    return stride, padding, (1, 1), transposed, (0, 0), 1


class _Product(torch.autograd.Function):
    """rows(x) W^T + b in the weight's type; W is ``(O, k k C)``, the weight with channels last, a row every site."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        rows = _rows(x.to(weight.dtype), weight.shape[2])
        with torch.autocast("cpu", enabled=False):
            return torch.addmm(bias, rows, _matrix(weight).t()).to(x.dtype)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        kernel, g = weight.shape[2], g.to(weight.dtype)
        rows = _rows(x.to(weight.dtype), kernel)
        with torch.autocast("cpu", enabled=False):  # a manual backward runs inside of it
            grad_weight = (g.t() @ rows).view(len(weight), kernel, kernel, -1).permute(0, 3, 1, 2)
            grad_x = _from_rows(g @ _matrix(weight), x.shape, kernel).to(x.dtype) if ctx.needs_input_grad[0] else None
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
