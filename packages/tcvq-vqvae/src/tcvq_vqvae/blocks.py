"""The building blocks of the spiking encoder and decoder, each a map of sequences ``(T, B, C, H, W)``.

Only the neurons couple time steps; every other layer runs once on all steps folded into the batch.
"""

import math
from collections.abc import Callable
from functools import partial
from itertools import pairwise

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from tcvq_neurons import LIF, LIFGate, merge_time, norm_lif
from tcvq_vqvae.config import VQVAEConfig
from tcvq_vqvae.conv import Conv2d, ConvTranspose2d


def group_norm(channels: int) -> nn.GroupNorm:
    """GroupNorm with 32 groups, or the largest power of two that divides a narrower or odd width."""
    return nn.GroupNorm(math.gcd(32, channels), channels, eps=1e-6)


def sinusoids(n_steps: int, channels: int) -> Float[Tensor, "T C"]:
    """Return sin(t ω_i) in the even and cos(t ω_i) in the odd channels, ω_i = 10000^(-2i/C) (Vaswani et al. 2017)."""
    frequency = 10000.0 ** (-torch.arange(0, channels, 2) / channels)
    angle = torch.arange(n_steps)[:, None] * frequency
    return torch.stack([angle.sin(), angle.cos()], dim=2).flatten(1)[:, :channels]


class ResBlock(nn.Module):
    """Residual block of the paper's table "ResnetBlockSnn".

    h = conv2(dropout(G(norm2(conv1(G(norm1(x))) + e_t)))),  y = shortcut(x) + h,  with the gate G(x) = x · LIF(x)
    and e_t = W G(emb_t) the optional embedding of the SNN step: the row "LIF-Nonlinearity => Time Embedding Addition".

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        n_steps: SNN steps T; needed for the time embedding only.
        shortcut: ``1x1`` or ``3x3`` convolution where the widths differ; the identity where they agree.
        time_embedding: ``learned`` or ``sinusoidal`` embedding of the step; None adds nothing, as the released code.
        dropout: Probability of dropping a unit before the second convolution.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        n_steps: int = 1,
        shortcut: str = "1x1",
        time_embedding: str | None = None,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.norm1 = group_norm(in_channels)
        self.gate1 = LIFGate()
        self.conv1 = Conv2d(in_channels, out_channels, 3, padding=1)
        self.step_emb: Tensor | None = None
        if time_embedding == "learned":
            self.step_emb = nn.Parameter(torch.randn(n_steps, out_channels))
        elif time_embedding == "sinusoidal":
            del self.step_emb
            self.register_buffer("step_emb", sinusoids(n_steps, out_channels), persistent=False)
        self.step_gate = LIFGate() if time_embedding else None
        self.step_proj = nn.Linear(out_channels, out_channels) if time_embedding else None
        self.norm2 = group_norm(out_channels)
        self.gate2 = LIFGate()
        self.dropout = nn.Dropout(dropout)
        self.conv2 = Conv2d(out_channels, out_channels, 3, padding=1)
        self.shortcut: nn.Module = nn.Identity()
        if in_channels != out_channels:
            kernel = {"1x1": 1, "3x3": 3}[shortcut]
            self.shortcut = Conv2d(in_channels, out_channels, kernel, padding=kernel // 2)

    def forward(self, x_seq: Float[Tensor, "T B C_in H W"]) -> Float[Tensor, "T B C_out H W"]:
        """Map a sequence of feature maps."""
        h = merge_time(self.conv1, norm_lif(self.norm1, self.gate1, x_seq))
        if self.step_emb is not None and self.step_gate is not None and self.step_proj is not None:
            h = h + self.step_proj(self.step_gate(self.step_emb))[:, None, :, None, None]
        h = self.dropout(norm_lif(self.norm2, self.gate2, h))
        return _add(merge_time(self.shortcut, x_seq), self.conv2, h)


def _add(
    x_seq: Float[Tensor, "T B C H W"], conv: nn.Conv2d, h_seq: Float[Tensor, "T B C2 H W"]
) -> Float[Tensor, "T B C H W"]:
    """Return x + conv(h), written into the memory of the convolution's result where every step has its own."""
    if x_seq.stride(0) == 0 or h_seq.stride(0) == 0:
        return x_seq + merge_time(conv, h_seq)
    return merge_time(lambda h: conv(h).add_(x_seq.flatten(0, 1)), h_seq)


def res_blocks(config: VQVAEConfig) -> Callable[[int, int], ResBlock]:
    """Return the function (channels in, channels out) -> residual block of a network."""
    return partial(
        ResBlock,
        n_steps=config.n_steps,
        shortcut=config.shortcut,
        time_embedding=config.time_embedding_form if config.time_embedding else None,
        dropout=config.dropout,
    )


class SpikeAttention(nn.Module):
    """Self-attention over all sites of a map, with spiking queries and keys (the paper's "AttnBlockSnn").

    y_i = C^(-1/2) Σ_j (q_i · k_j) v_j,  out = x + W_o y,  q, k = LIF(W x̂) in {0, 1}, v = W_v x̂ analog, x̂ = norm(x).
    There is neither softmax nor count: y grows with H·W, so weights do not transfer between resolutions, unless
    ``normalise`` is ``count``, which divides y by H·W.

    Args:
        channels: Channels of input and output.
        normalise: ``none`` or ``count``.
    """

    def __init__(self, channels: int, normalise: str = "none") -> None:
        super().__init__()
        self.normalise = normalise
        self.norm = group_norm(channels)
        self.q = Conv2d(channels, channels, 1)
        self.k = Conv2d(channels, channels, 1)
        self.v = Conv2d(channels, channels, 1)
        self.q_lif = LIF()
        self.k_lif = LIF()
        self.proj = Conv2d(channels, channels, 1)

    def forward(self, x_seq: Float[Tensor, "T B C H W"]) -> Float[Tensor, "T B C H W"]:
        """Map a sequence of feature maps; sites attend within their own image and step."""
        h = merge_time(self.norm, x_seq)
        q = self.q_lif(merge_time(self.q, h)).flatten(3).transpose(2, 3)  # (T, B, HW, C)
        k = self.k_lif(merge_time(self.k, h)).flatten(3).transpose(2, 3)
        v = merge_time(self.v, h).flatten(3).transpose(2, 3)
        sites, channels = q.shape[2:]
        y = (q @ k.transpose(2, 3)) @ v if sites < channels else q @ (k.transpose(2, 3) @ v)
        y = (
            (y * (channels**-0.5 / (sites if self.normalise == "count" else 1)))
            .transpose(2, 3)
            .unflatten(3, x_seq.shape[3:])
        )
        return x_seq + merge_time(self.proj, y)


def attentions(config: VQVAEConfig) -> Callable[[int], SpikeAttention]:
    """Return the function (channels) -> attention of a network."""
    return partial(SpikeAttention, normalise=config.attn_normalise)


class Downsample(nn.Module):
    """Halve height and width: pad one row and column at the bottom right, then a strided 3x3 convolution."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = Conv2d(channels, channels, 3, stride=2)

    def forward(self, x_seq: Float[Tensor, "T B C H W"]) -> Float[Tensor, "T B C H/2 W/2"]:
        """Map a sequence of feature maps with even sides."""
        return merge_time(lambda x: self.conv(F.pad(x, (0, 1, 0, 1))), x_seq)


class Upsample(nn.Module):
    """Double height and width.

    Args:
        channels: Channels of input and output.
        mode: ``transpose``, a transposed 4x4 convolution with stride 2 (the paper's table), or ``nearest``, repetition
            followed by a 3x3 convolution (the released code).
    """

    def __init__(self, channels: int, mode: str = "transpose") -> None:
        super().__init__()
        self.resample: nn.Module = nn.Identity()
        self.conv: Callable[[Tensor], Tensor]
        if mode == "transpose":
            self.conv = ConvTranspose2d(channels, channels, 4, stride=2, padding=1)
        else:
            self.resample = nn.Upsample(scale_factor=2, mode="nearest")
            self.conv = Conv2d(channels, channels, 3, padding=1)

    def forward(self, x_seq: Float[Tensor, "T B C H W"]) -> Float[Tensor, "T B C 2*H 2*W"]:
        """Map a sequence of feature maps."""
        return merge_time(lambda x: self.conv(self.resample(x)), x_seq)


class Middle(nn.Module):
    """Residual block, attention, residual block: the lowest resolution of encoder and decoder."""

    def __init__(
        self, channels: int, block: Callable[[int, int], ResBlock], attend: Callable[[int], SpikeAttention]
    ) -> None:
        super().__init__()
        self.block1 = block(channels, channels)
        self.attn = attend(channels)
        self.block2 = block(channels, channels)

    def forward(self, x_seq: Float[Tensor, "T B C H W"]) -> Float[Tensor, "T B C H W"]:
        """Map a sequence of feature maps."""
        return self.block2(self.attn(self.block1(x_seq)))


class Level(nn.Module):
    """The residual blocks of one resolution, each followed by attention where it is asked for, then a resampling."""

    def __init__(
        self,
        channels: list[int],
        block: Callable[[int, int], ResBlock],
        attend: Callable[[int], SpikeAttention] | None,
        resample: nn.Module,
    ) -> None:
        super().__init__()
        self.blocks = nn.ModuleList([block(a, b) for a, b in pairwise(channels)])
        self.attns = nn.ModuleList([nn.Identity() if attend is None else attend(b) for b in channels[1:]])
        self.resample = resample

    def forward(self, x_seq: Float[Tensor, "T B C H W"]) -> Float[Tensor, "T B C2 H2 W2"]:
        """Map a sequence of feature maps."""
        for block, attn in zip(self.blocks, self.attns, strict=True):
            x_seq = attn(block(x_seq))
        return self.resample(x_seq)
