"""Spiking VQ-VAE with a temporal codebook: images and event frames to grids of code indices and back."""

from importlib.metadata import version
from typing import TYPE_CHECKING

from tcvq_vqvae.checkpoint import LoadedVQVAE, load_vqvae, save_vqvae
from tcvq_vqvae.config import VQVAEConfig
from tcvq_vqvae.discriminator import PatchDiscriminator
from tcvq_vqvae.interface import INTERFACE_VERSION, ImageTokenizer, VQVAEOutput
from tcvq_vqvae.losses import (
    adaptive_weight,
    generator_loss,
    hinge_discriminator_loss,
    pixel_loss,
    vanilla_discriminator_loss,
)
from tcvq_vqvae.model import SpikingVQVAE
from tcvq_vqvae.perceptual import Perceptual
from tcvq_vqvae.preview import reconstruct
from tcvq_vqvae.reference import discriminator_from_reference, from_reference
from tcvq_vqvae.stepwise import StepwiseCodebook
from tcvq_vqvae.train_config import LossConfig, Stage1Config

if TYPE_CHECKING:
    from tcvq_vqvae.lit import LitVQVAE, Previews

__version__ = version("tcvq-vqvae")

__all__ = [
    "INTERFACE_VERSION",
    "ImageTokenizer",
    "LitVQVAE",
    "LoadedVQVAE",
    "LossConfig",
    "PatchDiscriminator",
    "Perceptual",
    "Previews",
    "SpikingVQVAE",
    "Stage1Config",
    "StepwiseCodebook",
    "VQVAEConfig",
    "VQVAEOutput",
    "adaptive_weight",
    "discriminator_from_reference",
    "from_reference",
    "generator_loss",
    "hinge_discriminator_loss",
    "load_vqvae",
    "pixel_loss",
    "reconstruct",
    "save_vqvae",
    "vanilla_discriminator_loss",
]


def __getattr__(name: str) -> object:
    """Import Lightning only when the training module is asked for."""
    if name in ("LitVQVAE", "Previews"):
        from tcvq_vqvae import lit

        return getattr(lit, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
