"""The patch discriminator of the adversarial loss (Isola et al. 2017, as in the released code)."""

from jaxtyping import Float
from torch import Tensor, nn


class PatchDiscriminator(nn.Module):
    """Strided 4x4 convolutions that judge overlapping patches of an image, real (positive) or reconstructed.

    Args:
        in_channels: Channels of the image.
        width: Channels of the first layer; layer n has ``width * min(2**n, 8)``.
        n_layers: Hidden layers; all but the last halve the resolution.
    """

    def __init__(self, in_channels: int, width: int = 64, n_layers: int = 3) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Conv2d(in_channels, width, 4, stride=2, padding=1), nn.LeakyReLU(0.2)]
        channels = width
        for n in range(1, n_layers + 1):
            following = width * min(2**n, 8)
            stride = 2 if n < n_layers else 1
            layers += [
                nn.Conv2d(channels, following, 4, stride=stride, padding=1, bias=False),
                nn.BatchNorm2d(following),
                nn.LeakyReLU(0.2),
            ]
            channels = following
        layers.append(nn.Conv2d(channels, 1, 4, stride=1, padding=1))
        self.layers = nn.Sequential(*layers)
        self.apply(_init_weights)

    def forward(self, x: Float[Tensor, "B C H W"]) -> Float[Tensor, "B 1 h w"]:
        """Return one score per patch."""
        return self.layers(x)


def _init_weights(module: nn.Module) -> None:
    if isinstance(module, nn.Conv2d):
        nn.init.normal_(module.weight, 0.0, 0.02)
    elif isinstance(module, nn.BatchNorm2d):
        nn.init.normal_(module.weight, 1.0, 0.02)
        nn.init.zeros_(module.bias)
