"""Codes that are searched in fewer dimensions than they are used in."""

from typing import Unpack

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int, Int64
from torch import Tensor, nn

from tcvq_codebook.config import CodebookOptions
from tcvq_codebook.interface import Quantized
from tcvq_codebook.layout import Mask, require_codes, take, zero_masked
from tcvq_codebook.straight_through import straight_through
from tcvq_codebook.temporal import TemporalCodebook


class FactorisedCodebook(nn.Module):
    """A temporal codebook between two linear maps shared by all steps: D → c before the search, c → D after it.

    k_p = argmin_k Σ_t ‖A z_t,p + a − E_k,t‖² with E_k ∈ R^(T×c), and z_q[t, p] = B E_{k_p},t + b. Short vectors keep
    more codes in use where long trajectories collapse. Losses are those of the short vectors; the gradient reaches the
    latents through both maps.

    Args:
        n_embed: Number of entries K.
        embed_dim: Width D of one step of the latents.
        n_steps: Number of steps T.
        lookup_dim: Width c of one step of an entry.
        **options: The other fields of `CodebookConfig`, for the inner codebook.

    Attributes:
        down: The map D → c.
        inner: The codebook of short trajectories.
        up: The map c → D.

    Source: Yu et al. 2022, arXiv 2110.04627, section 3.2, for vectors.
    """

    def __init__(
        self,
        n_embed: int,
        embed_dim: int,
        n_steps: int,
        *,
        lookup_dim: int = 16,
        **options: Unpack[CodebookOptions],
    ) -> None:
        super().__init__()
        self.inner = TemporalCodebook(n_embed, lookup_dim, n_steps, **options)
        self.down = nn.Linear(embed_dim, lookup_dim)
        self.up = nn.Linear(lookup_dim, embed_dim)
        self.n_embed, self.embed_dim, self.n_steps = n_embed, embed_dim, n_steps

    def forward(self, z: Float[Tensor, "T B D H W"], mask: Mask | None = None) -> Quantized:
        """Quantize latents and compute the losses, as `TemporalCodebook.forward` does.

        Raises:
            ValueError: If T or D is not the codebook's, a latent is not finite, or the mask does not fit.
        """
        out = self.inner(self._short(z, mask), mask)
        z_q = _per_step(self.up, out.z_q)
        if not (self.training and self.inner.config.update == "ema"):  # else the entries have moved on
            z_q = straight_through(z_q, take(self._entries(), out.indices))  # the bits of `lookup`, for any batch
        return Quantized(
            z_q=z_q,
            indices=out.indices,
            loss=out.loss,
            perplexity=out.perplexity,
            codebook_loss=out.codebook_loss,
            commitment_loss=out.commitment_loss,
        )

    def encode(self, z: Float[Tensor, "T B D H W"], mask: Mask | None = None) -> Int64[Tensor, "B H W"]:
        """Return the index of the nearest entry of every site, without gradient; errors as for `forward`."""
        return self.inner.encode(self._short(z.detach(), mask), mask)

    def lookup(self, indices: Int[Tensor, "B *grid"]) -> Float[Tensor, "T B D *grid"]:
        """Return the entries that the indices name, with gradient to entries and map.

        Raises:
            ValueError: If an index is not one of 0 … K − 1.
        """
        require_codes(indices, self.n_embed)
        return take(self._entries(), indices)

    @torch.no_grad()
    def initialize(self, z: Float[Tensor, "T B D H W"], mask: Mask | None = None) -> None:
        """Draw all codes from these latents now; see `TemporalCodebook.initialize`."""
        self.inner.initialize(self._short(z, mask), mask)

    @torch.no_grad()
    def revive(
        self, z: Float[Tensor, "T B D H W"], mask: Mask | None = None, *, min_usage: float = 0.1
    ) -> Bool[Tensor, "K"]:
        """Replace dead entries by these latents, in the short space; see `TemporalCodebook.revive`."""
        return self.inner.revive(self._short(z, mask), mask, min_usage=min_usage)

    def _entries(self) -> Float[Tensor, "K T D"]:
        return _exact(self.up, self.inner.entries())

    def _short(self, z: Float[Tensor, "T B D H W"], mask: Mask | None) -> Float[Tensor, "T B c H W"]:
        if z.shape[2] != self.embed_dim:
            raise ValueError(
                f"latents have shape (T, B, D, H, W) = {tuple(z.shape)}, but this codebook has D = {self.embed_dim}"
            )
        return _per_step(self.down, zero_masked(z, mask))


def _exact(linear: nn.Linear, x: Tensor) -> Tensor:
    """Apply a linear map in the dtype of its weight, also under autocast."""
    with torch.autocast(x.device.type, enabled=False):
        return F.linear(x.to(linear.weight.dtype), linear.weight, linear.bias)


def _per_step(linear: nn.Linear, z: Float[Tensor, "T B D H W"]) -> Float[Tensor, "T B c H W"]:
    return _exact(linear, z.movedim(2, -1)).movedim(-1, 2)
