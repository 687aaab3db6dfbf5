"""The spiking VQ-VAE: encoder, temporal codebook and decoder wired together."""

from typing import Any

from jaxtyping import Float, Int
from torch import Tensor, nn

from tcvq_codebook import Quantized, TemporalCodebook, VanillaCodebook
from tcvq_neurons import SpikeDecoder, SpikeEncoder, merge_time
from tcvq_vqvae.config import VQVAEConfig
from tcvq_vqvae.conv import Conv2d
from tcvq_vqvae.decoder import Decoder
from tcvq_vqvae.encoder import Encoder
from tcvq_vqvae.interface import VQVAEOutput
from tcvq_vqvae.stepwise import StepwiseCodebook


def check_images(x: Tensor, config: VQVAEConfig) -> None:
    """Refuse what is no batch of a network's images; the number of axes and of steps is checked where time is added.

    Raises:
        ValueError: If size or number of channels differ.
        TypeError: If the pixels are not floating point.
    """
    expected = (config.in_channels, config.image_size, config.image_size)
    if not x.is_floating_point():
        raise TypeError(f"images are {x.dtype}; this VQ-VAE takes floating point pixels in [-1, 1]: x / 127.5 - 1")
    if x.shape[-3:] != expected:
        raise ValueError(f"images are {tuple(x.shape[-3:])} (channels, height, width); this VQ-VAE takes {expected}")


def build_codebook(config: VQVAEConfig) -> TemporalCodebook | StepwiseCodebook:
    """Return the codebook that ``config.codebook`` names."""
    options: dict[str, Any] = {
        "beta": config.beta,
        "legacy_beta": config.legacy_beta,
        "init": config.codebook_init,
        "update": config.codebook_update,
        "decay": config.codebook_decay,
        "similarity": config.codebook_similarity,
        "estimator": config.codebook_estimator,
    }
    if config.codebook == "vanilla":
        return StepwiseCodebook(VanillaCodebook(config.n_embed, config.embed_dim, **options), config.n_steps)
    return TemporalCodebook(config.n_embed, config.embed_dim, config.n_steps, **options)


class SpikingVQVAE(nn.Module):
    """Image or event frames -> spiking encoder -> temporal codebook -> spiking decoder -> image or frames.

    Still images are ``(B, C, H, W)``; event frames are ``(T, B, C, H, W)``. Pixel values lie in [-1, 1]. The network
    starts from rest at every call: nothing is remembered between batches.

    Args:
        config: Sizes and options.
    """

    def __init__(self, config: VQVAEConfig) -> None:
        super().__init__()
        self.config = config
        self.spike_encoder = SpikeEncoder(config.encoding, n_steps=config.n_steps)
        self.encoder = Encoder(config)
        self.quant_conv = Conv2d(config.z_channels, config.embed_dim, 1)
        self.codebook = build_codebook(config)
        self.post_quant_conv = Conv2d(config.embed_dim, config.z_channels, 1)
        self.decoder = Decoder(config)
        self.spike_decoder = SpikeDecoder(config.decoding)

    def latents(self, x: Float[Tensor, "*batch C H W"]) -> Float[Tensor, "T B D h w"]:
        """Return the analog latents that the codebook quantizes.

        Raises:
            ValueError: If the image has another size or number of channels than the network was built for.
            TypeError: If the pixels are not floating point.
        """
        check_images(x, self.config)
        return merge_time(self.quant_conv, self.encoder(self.spike_encoder(x)))

    def encode(self, x: Float[Tensor, "*batch C H W"]) -> Quantized:
        """Encode and quantize; ``.indices`` are grids of codes ``(B, h, w)``, ``(B, T*h, w)`` of a vanilla codebook."""
        return self.codebook(self.latents(x))

    def decode(self, z_q: Float[Tensor, "T B D h w"]) -> Float[Tensor, "*batch C H W"]:
        """Decode latents, quantized or not; the result is not clamped.

        Raises:
            ValueError: If the latents have another width or other sites than the network was built for.
        """
        expected = (self.config.embed_dim, *self.config.sites)
        if z_q.ndim != 5 or z_q.shape[2:] != expected:
            raise ValueError(
                f"latents are {tuple(z_q.shape)}; this VQ-VAE decodes (T, B, D, h, w) with (D, h, w) = {expected}"
            )
        return self.spike_decoder(self.decoder(merge_time(self.post_quant_conv, z_q)))

    def decode_indices(self, indices: Int[Tensor, "B h w"]) -> Float[Tensor, "*batch C H W"]:
        """Decode a grid of codes; equal to the reconstruction of the image that gave them."""
        return self.decode(self.codebook.lookup(indices))

    def forward(self, x: Float[Tensor, "*batch C H W"]) -> VQVAEOutput:
        """Reconstruct."""
        quantized = self.encode(x)
        return VQVAEOutput(x_hat=self.decode(quantized.z_q), quantized=quantized)
