"""Every size and option of the spiking VQ-VAE, checked when it is built; sizes default to the paper's."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, kw_only=True, slots=True)
class VQVAEConfig:
    """Architecture of the spiking VQ-VAE.

    Attributes:
        image_size: Height and width of the input; a multiple of ``space_to_depth * 2**(levels - 1)``.
        in_channels: Channels of the input: 1 grey, 3 colour, 2 event polarities.
        n_steps: SNN steps T; also the length of a codebook trajectory.
        width: Channels of the first level.
        channel_mult: Channels of each level as multiples of ``width``; one level per entry.
        n_res_blocks: Residual blocks per encoder level (the decoder has one more).
        attn_resolutions: Sides of the feature map at which attention follows each residual block.
        z_channels: Channels of the encoder's output, before the 1x1 convolution to ``embed_dim``.
        codebook: ``temporal``, one index per site for all steps, or ``vanilla``, the paper's baseline: one index per
            site and step, with T times as many tokens.
        n_embed: Number of codebook entries K.
        embed_dim: Width D of one entry at one step.
        beta: Weight of the commitment term.
        legacy_beta: Put ``beta`` on the codebook term instead, as the released code does.
        codebook_init: Where the first entries come from.
        codebook_update: Entries learn by ``gradient``, or are moving averages (``ema``) of their latents.
        codebook_decay: γ of these moving averages.
        codebook_similarity: Distance ``l2``, or ``cosine`` between trajectories of unit length.
        codebook_estimator: How gradients pass the codebook: ``straight_through``, or by the ``rotation`` trick.
        space_to_depth: Fold this many pixels per side into channels before the first convolution, and back after
            the last; 1 is the paper's network.
        upsample: ``transpose`` as the paper's tables, ``nearest`` as the released checkpoints.
        shortcut: Kernel of the convolution that matches channels around a residual block.
        out_nonlinearity: ``gate`` x·LIF(x) before the last convolution, or ``spike`` as the tables say literally.
        time_embedding: Add an embedding of the SNN step inside residual blocks, as the paper's table; the released code
            has none.
        time_embedding_form: ``learned`` vectors, or the fixed ``sinusoidal`` ones of Vaswani et al. 2017.
        attn_normalise: ``count`` divides attention by the number of sites, so that weights transfer between
            resolutions; ``none`` is the paper's.
        dropout: Dropout inside residual blocks.
        encoding: ``direct`` repeats a still image, ``event`` takes ``(T, B, C, H, W)`` frames.
        decoding: How the T output frames become the result.
    """

    image_size: int = 32
    in_channels: int = 1
    n_steps: int = 4
    width: int = 128
    channel_mult: tuple[int, ...] = (1, 1, 2, 2, 4)
    n_res_blocks: int = 2
    attn_resolutions: tuple[int, ...] = (2,)
    z_channels: int = 256
    codebook: Literal["temporal", "vanilla"] = "temporal"
    n_embed: int = 1024
    embed_dim: int = 256
    beta: float = 0.25  # van den Oord et al. 2017, eq. 3
    legacy_beta: bool = False
    codebook_init: Literal["uniform", "data", "kmeans"] = "kmeans"
    codebook_update: Literal["gradient", "ema"] = "gradient"
    codebook_decay: float = 0.99
    codebook_similarity: Literal["l2", "cosine"] = "l2"
    codebook_estimator: Literal["straight_through", "rotation"] = "straight_through"
    space_to_depth: int = 1
    upsample: Literal["transpose", "nearest"] = "transpose"
    shortcut: Literal["1x1", "3x3"] = "1x1"
    out_nonlinearity: Literal["gate", "spike"] = "gate"
    time_embedding: bool = False
    time_embedding_form: Literal["learned", "sinusoidal"] = "learned"
    attn_normalise: Literal["none", "count"] = "none"
    dropout: float = 0.0
    encoding: Literal["direct", "event"] = "direct"
    decoding: Literal["mean", "sum_sigmoid", "mean_sigmoid", "last", "event"] = "mean"

    def __post_init__(self) -> None:
        """Reject sizes that no network can be built from, naming the field."""
        for name in (
            "image_size",
            "in_channels",
            "n_steps",
            "width",
            "n_res_blocks",
            "z_channels",
            "n_embed",
            "embed_dim",
            "space_to_depth",
        ):
            if getattr(self, name) < 1:
                raise ValueError(f"vqvae.{name} is {getattr(self, name)}; it must be at least 1")
        if not self.channel_mult or min(self.channel_mult) < 1:
            raise ValueError(f"vqvae.channel_mult is {self.channel_mult}; it needs at least one entry, each >= 1")
        if self.image_size % self.total_stride:
            raise ValueError(
                f"vqvae.image_size is {self.image_size}; {len(self.channel_mult)} levels with space_to_depth "
                f"{self.space_to_depth} need a multiple of {self.total_stride}"
            )
        sides = [self.image_size // self.space_to_depth // 2**i for i in range(len(self.channel_mult))]
        if not set(self.attn_resolutions) <= set(sides):
            raise ValueError(f"vqvae.attn_resolutions is {self.attn_resolutions}; the levels have sides {sides}")
        if not 0.0 <= self.dropout < 1.0:
            raise ValueError(f"vqvae.dropout is {self.dropout}; it must lie in [0, 1)")
        if not 0.0 <= self.codebook_decay < 1.0:
            raise ValueError(f"vqvae.codebook_decay is {self.codebook_decay}; it must lie in [0, 1)")
        if (self.encoding == "event") != (self.decoding == "event"):
            raise ValueError(
                f"vqvae.encoding is {self.encoding!r} and decoding {self.decoding!r}; event goes with event"
            )

    @property
    def total_stride(self) -> int:
        """Pixels per grid cell, per side."""
        return self.space_to_depth * 2 ** (len(self.channel_mult) - 1)

    @property
    def sites(self) -> tuple[int, int]:
        """Height and width of the latents."""
        side = self.image_size // self.total_stride
        return side, side

    @property
    def grid(self) -> tuple[int, int]:
        """Height and width of an image's grid of indices; of a vanilla codebook the T grids below each other."""
        h, w = self.sites
        return (self.n_steps * h if self.codebook == "vanilla" else h), w

    @property
    def entry_size(self) -> int:
        """Numbers in one codebook entry: T·D of a trajectory, D of a single step."""
        return self.embed_dim * (1 if self.codebook == "vanilla" else self.n_steps)
