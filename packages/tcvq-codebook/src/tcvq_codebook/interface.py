"""The contract of tcvq-codebook: what a quantizer takes and returns, and the version of that promise."""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from jaxtyping import Float, Int
from torch import Tensor

INTERFACE_VERSION = "0.2"


@dataclass(frozen=True, kw_only=True, slots=True)
class Quantized:
    """What a codebook returns for one batch of latents.

    Attributes:
        z_q: The chosen entries; equal to ``lookup(indices)`` bit for bit. The latents get its gradient unchanged, or as
            the codebook's estimator transforms it.
        indices: Which entry each site chose, raster order; int64.
        loss: Codebook term plus commitment term, weighted; what a training loop adds to its objective.
        perplexity: exp(entropy) of the code counts of this batch, between 1 and K; in training, over all
            ranks. A diagnostic without gradient.
        codebook_loss: mean ||sg(z) - e||^2 over all elements, unweighted.
        commitment_loss: mean ||z - sg(e)||^2 over all elements, unweighted.
    """

    z_q: Float[Tensor, "T B D H W"]
    indices: Int[Tensor, "B H W"]
    loss: Float[Tensor, ""]
    perplexity: Float[Tensor, ""]
    codebook_loss: Float[Tensor, ""]
    commitment_loss: Float[Tensor, ""]


@runtime_checkable
class Quantizer(Protocol):
    """A codebook over trajectories: one index per site, shared by all ``n_steps`` steps."""

    n_embed: int
    embed_dim: int
    n_steps: int

    def __call__(self, z: Float[Tensor, "T B D H W"]) -> Quantized:
        """Quantize latents and compute the losses."""
        ...

    def encode(self, z: Float[Tensor, "T B D H W"]) -> Int[Tensor, "B H W"]:
        """Return the index of the nearest entry of every site, without gradient."""
        ...

    def lookup(self, indices: Int[Tensor, "B H W"]) -> Float[Tensor, "T B D H W"]:
        """Return the entries that the indices name."""
        ...
