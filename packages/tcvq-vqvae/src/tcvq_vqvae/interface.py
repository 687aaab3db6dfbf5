"""The contract of tcvq-vqvae: what stage 1 offers to stage 2, sampling and evaluation."""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from jaxtyping import Float, Int
from torch import Tensor

from tcvq_codebook.interface import Quantized

INTERFACE_VERSION = "0.2"


@dataclass(frozen=True, kw_only=True, slots=True)
class VQVAEOutput:
    """What one forward pass of the VQ-VAE returns.

    Attributes:
        x_hat: Reconstruction, same shape as the input; not clamped.
        quantized: The codebook's result, with its losses.
    """

    x_hat: Float[Tensor, "*batch C H W"]
    quantized: Quantized


@runtime_checkable
class ImageTokenizer(Protocol):
    """Turns images into grids of code indices and back; a grid may hold all steps of a site or one below the other."""

    def encode(self, x: Float[Tensor, "*batch C H W"]) -> Quantized:
        """Encode and quantize."""
        ...

    def decode(self, z_q: Float[Tensor, "T B D h w"]) -> Float[Tensor, "*batch C H W"]:
        """Decode quantized latents."""
        ...

    def decode_indices(self, indices: Int[Tensor, "B h w"]) -> Float[Tensor, "*batch C H W"]:
        """Look the indices up and decode them."""
        ...
