"""The paper's baseline: one codebook of vectors shared by all steps, each step searched alone."""

from dataclasses import dataclass
from typing import Unpack

from einops import rearrange
from jaxtyping import Bool, Float, Int, Int64
from torch import Tensor, nn

from tcvq_codebook.config import CodebookOptions
from tcvq_codebook.interface import Quantized
from tcvq_codebook.layout import Mask
from tcvq_codebook.temporal import TemporalCodebook


@dataclass(frozen=True, kw_only=True, slots=True)
class StepwiseQuantized(Quantized):
    """A `Quantized` whose indices keep the time axis: T of them per site."""

    indices: Int[Tensor, "T B H W"]


class VanillaCodebook(nn.Module):
    """K vectors E_k ∈ R^D: k_{t,p} = argmin_k ‖z_{t,p} − E_k‖², z_q[t, p] = E[k_{t,p}], loss averaged over T.

    A temporal codebook of one step that sees every step as a further batch element. It returns T indices per site, so
    it is not a `Quantizer`, whose indices are shared by all steps.

    Args:
        n_embed: Number of entries K.
        embed_dim: Width D of an entry.
        **options: The other fields of `CodebookConfig`, with n_steps = 1.
    """

    def __init__(self, n_embed: int, embed_dim: int, **options: Unpack[CodebookOptions]) -> None:
        super().__init__()
        self.step = TemporalCodebook(n_embed, embed_dim, 1, **options)
        self.n_embed, self.embed_dim = n_embed, embed_dim

    @property
    def codebook(self) -> Float[Tensor, "K D"]:
        """The entries, a view of ``step.codebook``."""
        return self.step.codebook.squeeze(1)

    def forward(self, z: Float[Tensor, "T B D H W"], mask: Mask | None = None) -> StepwiseQuantized:
        """Quantize every step of the latents and compute the losses.

        Raises:
            ValueError: If D is not the codebook's, a latent is not finite, or the mask does not fit.
        """
        out = self.step(_fold(z), _fold_mask(mask))
        return StepwiseQuantized(
            z_q=_unfold(out.z_q.squeeze(0), len(z)),
            indices=_unfold(out.indices, len(z)),
            loss=out.loss,
            perplexity=out.perplexity,
            codebook_loss=out.codebook_loss,
            commitment_loss=out.commitment_loss,
        )

    def encode(self, z: Float[Tensor, "T B D H W"], mask: Mask | None = None) -> Int64[Tensor, "T B H W"]:
        """Return the index of the nearest entry of every step of every site, without gradient; 0 for masked steps."""
        return _unfold(self.step.encode(_fold(z), _fold_mask(mask)), len(z))

    def lookup(self, indices: Int[Tensor, "T B *grid"]) -> Float[Tensor, "T B D *grid"]:
        """Return the entries that the indices name, with gradient to the codebook.

        Raises:
            ValueError: If an index is not one of 0 … K − 1.
        """
        return _unfold(self.step.lookup(indices.flatten(0, 1)).squeeze(0), len(indices))

    def initialize(self, z: Float[Tensor, "T B D H W"], mask: Mask | None = None) -> None:
        """Draw all codes from these latents now; see `TemporalCodebook.initialize`."""
        self.step.initialize(_fold(z), _fold_mask(mask))

    def revive(
        self, z: Float[Tensor, "T B D H W"], mask: Mask | None = None, *, min_usage: float = 0.1
    ) -> Bool[Tensor, "K"]:
        """Replace dead entries by steps of these latents; see `TemporalCodebook.revive`."""
        return self.step.revive(_fold(z), _fold_mask(mask), min_usage=min_usage)


def _fold(z: Float[Tensor, "T B D H W"]) -> Float[Tensor, "1 TB D H W"]:
    return rearrange(z, "t b d h w -> 1 (t b) d h w")


def _fold_mask(mask: Mask | None) -> Bool[Tensor, "1 TB *grid"] | None:
    return None if mask is None else mask.flatten(0, 1).unsqueeze(0)


def _unfold(x: Tensor, n_steps: int) -> Tensor:
    return rearrange(x, "(t b) ... -> t b ...", t=n_steps)
