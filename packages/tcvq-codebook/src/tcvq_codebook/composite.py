"""Several temporal codebooks with one index each per site: one after the other, or side by side."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Unpack

import torch
from jaxtyping import Bool, Float, Int, Int64
from torch import Tensor, nn

from tcvq_codebook.config import CodebookOptions
from tcvq_codebook.interface import Quantized
from tcvq_codebook.layout import Mask, latents_of, sites_of, zero_masked
from tcvq_codebook.straight_through import estimate
from tcvq_codebook.temporal import TemporalCodebook


@dataclass(frozen=True, kw_only=True, slots=True)
class StackedQuantized(Quantized):
    """A `Quantized` with Q indices per site; losses and perplexity are means over the Q codebooks."""

    indices: Int[Tensor, "Q B H W"]


class ResidualCodebook(nn.Module):
    """Q codebooks, each for what those before it left over: r_1 = z, r_{q+1} = r_q − e_q, z_q = Σ_q e_q.

    The gradient of the output reaches the latents once, as that of the sum. A level learns from the moment at which
    all levels before it are initialised.

    Args:
        n_embed: Number of entries K of each level.
        embed_dim: Width D of one step of an entry.
        n_steps: Number of steps T.
        n_levels: Number of levels Q.
        **options: The other fields of `CodebookConfig`, for every level.

    Attributes:
        levels: The codebooks.

    Raises:
        ValueError: If there is no level, or ``similarity`` is ``cosine``: a sum of unit vectors is not one.

    Source: Zeghidour et al. 2021, arXiv 2107.03312, section III-C, for vectors.
    """

    def __init__(
        self, n_embed: int, embed_dim: int, n_steps: int, *, n_levels: int, **options: Unpack[CodebookOptions]
    ) -> None:
        super().__init__()
        if n_levels < 1:
            raise ValueError(f"n_levels must be at least 1, got {n_levels}")
        if options.get("similarity", "l2") != "l2":
            raise ValueError("a residual codebook adds entries and needs similarity='l2'")
        self.levels = nn.ModuleList(TemporalCodebook(n_embed, embed_dim, n_steps, **options) for _ in range(n_levels))
        self.n_embed, self.embed_dim, self.n_steps = n_embed, embed_dim, n_steps

    def forward(self, z: Float[Tensor, "T B D H W"], mask: Mask | None = None) -> StackedQuantized:
        """Quantize latents and compute the losses, as `TemporalCodebook.forward` does; errors as there."""
        rest = z = zero_masked(z.to(_codebooks(self.levels)[0].codebook.dtype), mask)
        outs: list[Quantized] = []
        learn = self.training
        for level in _codebooks(self.levels):
            outs.append(level.quantize(rest, mask, learn=learn))
            rest = rest - outs[-1].z_q.detach()
            learn = learn and level.is_initted()
        e = _sum([out.z_q.detach() for out in outs])
        z_q = estimate(sites_of(z).flatten(1), sites_of(e).flatten(1), level.config.estimator)
        return _stacked(outs, latents_of(z_q.unflatten(1, (self.n_steps, -1)), z))

    @torch.no_grad()
    def encode(self, z: Float[Tensor, "T B D H W"], mask: Mask | None = None) -> Int64[Tensor, "Q B H W"]:
        """Return the indices of every site, without gradient; errors as for `forward`."""
        return torch.stack([level.encode(rest, mask) for level, rest in self._rests(z, mask)])

    def lookup(self, indices: Int[Tensor, "Q B *grid"]) -> Float[Tensor, "T B D *grid"]:
        """Return the sums of the entries that the indices name; of fewer than Q levels, a coarser result.

        Raises:
            ValueError: If an index is not one of 0 … K − 1, or there are more levels of indices than codebooks.
        """
        if not 1 <= len(indices) <= len(self.levels):
            raise ValueError(f"got indices of {len(indices)} levels; this codebook has {len(self.levels)}")
        return _sum([level.lookup(index) for level, index in zip(_codebooks(self.levels), indices, strict=False)])

    @torch.no_grad()
    def initialize(self, z: Float[Tensor, "T B D H W"], mask: Mask | None = None) -> None:
        """Draw the codes of one level after the other; see `TemporalCodebook.initialize`."""
        for level, rest in self._rests(z, mask):
            level.initialize(rest, mask)

    @torch.no_grad()
    def revive(
        self, z: Float[Tensor, "T B D H W"], mask: Mask | None = None, *, min_usage: float = 0.1
    ) -> Bool[Tensor, "Q K"]:
        """Replace dead entries of every level by what is left over at it; see `TemporalCodebook.revive`."""
        rests = self._rests(z, mask)
        return torch.stack([level.revive(rest, mask, min_usage=min_usage) for level, rest in rests])

    def _rests(self, z: Tensor, mask: Mask | None) -> Iterator[tuple[TemporalCodebook, Tensor]]:
        """Yield every level and r_q, which is computed with the levels before it as they are then."""
        levels = _codebooks(self.levels)
        rest = zero_masked(z.to(levels[0].codebook.dtype), mask)
        for level in levels:
            yield level, rest
            if level is not levels[-1]:
                rest = rest - level.lookup(level.encode(rest, mask))


class MultiHeadCodebook(nn.Module):
    """M codebooks side by side, each for its own D/M of the D channels of every step.

    Args:
        n_embed: Number of entries K of each head.
        embed_dim: Width D of one step of the latents.
        n_steps: Number of steps T.
        n_heads: Number of heads M, a divisor of D.
        **options: The other fields of `CodebookConfig`, for every head.

    Attributes:
        heads: The codebooks.

    Raises:
        ValueError: If D does not divide into the heads.
    """

    def __init__(
        self, n_embed: int, embed_dim: int, n_steps: int, *, n_heads: int, **options: Unpack[CodebookOptions]
    ) -> None:
        super().__init__()
        if n_heads < 1 or embed_dim % n_heads:
            raise ValueError(f"embed_dim={embed_dim} does not divide into n_heads={n_heads}")
        width = embed_dim // n_heads
        self.heads = nn.ModuleList(TemporalCodebook(n_embed, width, n_steps, **options) for _ in range(n_heads))
        self.n_embed, self.embed_dim, self.n_steps = n_embed, embed_dim, n_steps

    def forward(self, z: Float[Tensor, "T B D H W"], mask: Mask | None = None) -> StackedQuantized:
        """Quantize latents and compute the losses, as `TemporalCodebook.forward` does; errors as there."""
        outs = [head(part, mask) for head, part in self._parts(z)]
        return _stacked(outs, torch.cat([out.z_q for out in outs], dim=2))

    def encode(self, z: Float[Tensor, "T B D H W"], mask: Mask | None = None) -> Int64[Tensor, "M B H W"]:
        """Return the indices of every site, without gradient; errors as for `forward`."""
        return torch.stack([head.encode(part, mask) for head, part in self._parts(z)])

    def lookup(self, indices: Int[Tensor, "M B *grid"]) -> Float[Tensor, "T B D *grid"]:
        """Return the entries that the indices name, the heads' channels one after the other.

        Raises:
            ValueError: If an index is not one of 0 … K − 1, or there is not one index per head.
        """
        if len(indices) != len(self.heads):
            raise ValueError(f"got indices of {len(indices)} heads; this codebook has {len(self.heads)}")
        entries = [head.lookup(index) for head, index in zip(_codebooks(self.heads), indices, strict=True)]
        return torch.cat(entries, dim=2)

    def initialize(self, z: Float[Tensor, "T B D H W"], mask: Mask | None = None) -> None:
        """Draw the codes of every head; see `TemporalCodebook.initialize`."""
        for head, part in self._parts(z):
            head.initialize(part, mask)

    def revive(
        self, z: Float[Tensor, "T B D H W"], mask: Mask | None = None, *, min_usage: float = 0.1
    ) -> Bool[Tensor, "M K"]:
        """Replace dead entries of every head; see `TemporalCodebook.revive`."""
        return torch.stack([head.revive(part, mask, min_usage=min_usage) for head, part in self._parts(z)])

    def _parts(self, z: Float[Tensor, "T B D H W"]) -> list[tuple[TemporalCodebook, Tensor]]:
        if z.shape[2] != self.embed_dim:
            raise ValueError(
                f"latents have shape (T, B, D, H, W) = {tuple(z.shape)}, but this codebook has D = {self.embed_dim}"
            )
        return list(zip(_codebooks(self.heads), z.chunk(len(self.heads), dim=2), strict=True))


def _codebooks(modules: nn.ModuleList) -> list[TemporalCodebook]:
    return [module for module in modules if isinstance(module, TemporalCodebook)]


def _sum(entries: list[Tensor]) -> Tensor:
    """Add in the order of the levels, so that lookup and forward round alike."""
    total = entries[0]
    for e in entries[1:]:
        total = total + e
    return total


def _stacked(outs: list[Quantized], z_q: Tensor) -> StackedQuantized:
    def mean(name: str) -> Tensor:
        return torch.stack([getattr(out, name) for out in outs]).mean()

    return StackedQuantized(
        z_q=z_q,
        indices=torch.stack([out.indices for out in outs]),
        loss=mean("loss"),
        perplexity=mean("perplexity"),
        codebook_loss=mean("codebook_loss"),
        commitment_loss=mean("commitment_loss"),
    )
