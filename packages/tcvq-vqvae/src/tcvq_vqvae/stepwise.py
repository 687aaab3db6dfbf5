"""The paper's baseline codebook, whose T indices per site stand in one grid per image like those of any other."""

from dataclasses import dataclass

from einops import rearrange
from jaxtyping import Bool, Float, Int, Int64
from torch import Tensor, nn

from tcvq_codebook import Quantized, VanillaCodebook


@dataclass(frozen=True, kw_only=True, slots=True)
class StackedGrids(Quantized):
    """A `Quantized` whose grids hold the T grids of an image below each other."""

    indices: Int[Tensor, "B Th W"]


class StepwiseCodebook(nn.Module):
    """One index per step and site, of a codebook shared by all steps: grids ``(B, T*h, w)``, step 0 on top.

    A `VanillaCodebook` with the surface of a `TemporalCodebook` of one-step entries: what learns from, saves or shows
    grids and entries need not know which of the two it has.

    Args:
        vanilla: The codebook of single steps.
        n_steps: SNN steps T; the rows of a grid are a multiple of it.
    """

    def __init__(self, vanilla: VanillaCodebook, n_steps: int) -> None:
        super().__init__()
        self.vanilla = vanilla
        self.n_embed, self.embed_dim, self.n_steps = vanilla.n_embed, vanilla.embed_dim, n_steps

    @property
    def codebook(self) -> Float[Tensor, "K 1 D"]:
        """The entries, trajectories of one step: the parameter itself."""
        return self.vanilla.step.codebook

    @property
    def counts(self) -> Int64[Tensor, "K"]:
        """How often each entry was chosen in training since the last `revive`."""
        return self.vanilla.step.counts

    @property
    def initted(self) -> Bool[Tensor, ""]:
        """Whether the entries are final in the sense of ``init``."""
        return self.vanilla.step.initted

    def forward(self, z: Float[Tensor, "T B D h w"]) -> StackedGrids:
        """Quantize every step of the latents and compute the losses.

        Raises:
            ValueError: If T or D is not the codebook's, or a latent is not finite.
        """
        out = self.vanilla(self._checked(z))
        return StackedGrids(
            z_q=out.z_q,
            indices=_to_grid(out.indices),
            loss=out.loss,
            perplexity=out.perplexity,
            codebook_loss=out.codebook_loss,
            commitment_loss=out.commitment_loss,
        )

    def encode(self, z: Float[Tensor, "T B D h w"]) -> Int64[Tensor, "B Th w"]:
        """Return the index of the nearest entry of every step of every site, without gradient; errors as `forward`."""
        return _to_grid(self.vanilla.encode(self._checked(z)))

    def lookup(self, indices: Int[Tensor, "B Th w"]) -> Float[Tensor, "T B D h w"]:
        """Return the entries that grids name, with gradient to the codebook.

        Raises:
            ValueError: If the rows are no whole number of grids of one step, or an index is not one of 0 … K − 1.
        """
        if indices.shape[1] % self.n_steps:
            raise ValueError(
                f"indices have shape {tuple(indices.shape)}; a codebook of single steps takes (B, T*h, w) with "
                f"T = {self.n_steps}"
            )
        return self.vanilla.lookup(rearrange(indices, "b (t h) w -> t b h w", t=self.n_steps))

    def initialize(self, z: Float[Tensor, "T B D h w"]) -> None:
        """Draw all codes from these latents now; see `TemporalCodebook.initialize`."""
        self.vanilla.initialize(self._checked(z))

    def revive(self, z: Float[Tensor, "T B D h w"], *, min_usage: float = 0.1) -> Bool[Tensor, "K"]:
        """Replace dead entries by steps of these latents; see `TemporalCodebook.revive`."""
        return self.vanilla.revive(self._checked(z), min_usage=min_usage)

    def is_initted(self) -> bool:
        """Return ``initted`` as a bool, remembered once it is true."""
        return self.vanilla.step.is_initted()

    def _checked(self, z: Float[Tensor, "T B D h w"]) -> Float[Tensor, "T B D h w"]:
        if len(z) != self.n_steps:
            raise ValueError(f"latents have {len(z)} steps; this codebook takes T = {self.n_steps}")
        return z


def _to_grid(indices: Int64[Tensor, "T B h w"]) -> Int64[Tensor, "B Th w"]:
    return rearrange(indices, "t b h w -> b (t h) w")
