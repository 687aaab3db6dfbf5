"""The spiking decoder: features ``(T, B, z_channels, h, w)`` to frames ``(T, B, C, H, W)``."""

from jaxtyping import Float
from torch import Tensor, nn

from tcvq_neurons import LIF, LIFGate, merge_time, norm_lif
from tcvq_vqvae.blocks import Level, Middle, Upsample, attentions, group_norm, res_blocks
from tcvq_vqvae.config import VQVAEConfig
from tcvq_vqvae.conv import Conv2d


class Decoder(nn.Module):
    """Convolutional spiking decoder of the paper's table "Decoder Architecture"; levels run from the grid upwards.

    Args:
        config: Sizes and options; ``space_to_depth`` unfolds channels into pixels after the last convolution.
    """

    def __init__(self, config: VQVAEConfig) -> None:
        super().__init__()
        block, attend = res_blocks(config), attentions(config)
        widths = [config.width * m for m in (*config.channel_mult, config.channel_mult[-1])]
        side = config.image_size // config.space_to_depth
        self.conv_in = Conv2d(config.z_channels, widths[-1], 3, padding=1)
        self.mid = Middle(widths[-1], block, attend)
        self.levels = nn.ModuleList()
        for i in reversed(range(len(config.channel_mult))):
            self.levels.append(
                Level(
                    [widths[i + 1]] + [widths[i]] * (config.n_res_blocks + 1),
                    block,
                    attend if side // 2**i in config.attn_resolutions else None,
                    Upsample(widths[i], config.upsample) if i else nn.Identity(),
                )
            )
        self.norm_out = group_norm(widths[0])
        self.neuron_out = LIFGate() if config.out_nonlinearity == "gate" else LIF()
        self.conv_out = Conv2d(widths[0], config.in_channels * config.space_to_depth**2, 3, padding=1)
        self.unfold = nn.PixelShuffle(config.space_to_depth)

    def forward(self, z_seq: Float[Tensor, "T B Z h w"]) -> Float[Tensor, "T B C H W"]:
        """Decode a sequence of features; values are not squashed."""
        h = self.mid(merge_time(self.conv_in, z_seq))
        for level in self.levels:
            h = level(h)
        h = norm_lif(self.norm_out, self.neuron_out, h)
        return merge_time(lambda x: self.unfold(self.conv_out(x)), h)
