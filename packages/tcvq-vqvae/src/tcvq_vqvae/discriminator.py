"""The patch discriminator of the adversarial loss (Isola et al. 2017, as in the released code)."""

import math
from typing import Literal

from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from tcvq_vqvae.config import VQVAEConfig
from tcvq_vqvae.conv import Conv2d
from tcvq_vqvae.parallel import GlobalBatchNorm2d
from tcvq_vqvae.train_config import LossConfig

Norm = Literal["batch", "group", "none"]


class PatchDiscriminator(nn.Module):
    """Strided 4x4 convolutions that judge overlapping patches of an image, real (positive) or reconstructed.

    Args:
        in_channels: Channels of the image.
        width: Channels of the first layer; layer n has ``width * min(2**n, 8)``.
        n_layers: Hidden layers; all but the last halve the resolution.
        norm: Between the convolutions: BatchNorm (of all processes together, as in the paper), GroupNorm, or nothing.
    """

    def __init__(self, in_channels: int, width: int = 64, n_layers: int = 3, norm: Norm = "batch") -> None:
        super().__init__()
        layers: list[nn.Module] = [Conv2d(in_channels, width, 4, stride=2, padding=1), nn.LeakyReLU(0.2)]
        channels = width
        for n in range(1, n_layers + 1):
            following = width * min(2**n, 8)
            stride = 2 if n < n_layers else 1
            layers += [
                Conv2d(channels, following, 4, stride=stride, padding=1, bias=norm == "none"),
                _normalisation(norm, following),
                nn.LeakyReLU(0.2),
            ]
            channels = following
        layers.append(Conv2d(channels, 1, 4, stride=1, padding=1))
        self.layers = nn.Sequential(*layers)
        self.apply(_init_weights)

    def forward(self, x: Float[Tensor, "B C H W"]) -> Float[Tensor, "B 1 h w"]:
        """Return one score per patch."""
        return self.layers(x)


def build_discriminator(config: VQVAEConfig, loss: LossConfig) -> PatchDiscriminator | None:
    """Return the discriminator of an objective, None where it has none.

    Raises:
        ValueError: If it is too deep for the images, or judges clips where there are none.
    """
    if loss.disc_weight == 0:
        return None
    if config.image_size < 3 * 2**loss.disc_layers:  # else no patch is left
        raise ValueError(
            f"loss.disc_layers is {loss.disc_layers}, which needs images of {3 * 2**loss.disc_layers} pixels, not "
            f"{config.image_size}; use fewer layers, or disc_weight 0"
        )
    if loss.disc_input == "clip" and config.encoding != "event":
        raise ValueError(
            f"loss.disc_input is 'clip' but vqvae.encoding is {config.encoding!r}; only event recordings have clips"
        )
    channels = config.in_channels * (config.n_steps if loss.disc_input == "clip" else 1)
    return PatchDiscriminator(channels, loss.disc_width, loss.disc_layers, loss.disc_norm)


def pictures(x: Float[Tensor, "*batch C H W"], *, clips: bool) -> Float[Tensor, "N C2 H W"]:
    """Return what the discriminator judges: images as they are, event frames ``(T, B, C, H, W)`` singly or as clips.

    Args:
        x: Images, or frames of recordings.
        clips: Make the T frames of a recording the channels of one picture.
    """
    if x.dim() == 4:
        return x
    return rearrange(x, "t b c h w -> b (t c) h w") if clips else x.flatten(0, 1)


def _normalisation(norm: Norm, channels: int) -> nn.Module:
    if norm == "batch":
        return GlobalBatchNorm2d(channels)
    return nn.GroupNorm(math.gcd(32, channels), channels) if norm == "group" else nn.Identity()


def _init_weights(module: nn.Module) -> None:
    if isinstance(module, nn.Conv2d):
        nn.init.normal_(module.weight, 0.0, 0.02)
    elif isinstance(module, nn.BatchNorm2d | nn.GroupNorm):
        nn.init.normal_(module.weight, 1.0, 0.02)
        nn.init.zeros_(module.bias)
