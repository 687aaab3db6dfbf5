"""The spiking encoder: frames ``(T, B, C, H, W)`` to features ``(T, B, z_channels, h, w)``."""

from jaxtyping import Float
from torch import Tensor, nn

from tcvq_neurons import LIF, LIFGate, merge_time, norm_lif
from tcvq_vqvae.blocks import Downsample, Level, Middle, attentions, group_norm, res_blocks
from tcvq_vqvae.config import VQVAEConfig
from tcvq_vqvae.conv import Conv2d


class Encoder(nn.Module):
    """Convolutional spiking encoder of the paper's table "Encoder Architecture".

    Args:
        config: Sizes and options; ``space_to_depth`` folds pixels into channels before the first convolution.
    """

    def __init__(self, config: VQVAEConfig) -> None:
        super().__init__()
        block, attend = res_blocks(config), attentions(config)
        widths = [config.width * m for m in (1, *config.channel_mult)]
        side = config.image_size // config.space_to_depth
        self.fold = nn.PixelUnshuffle(config.space_to_depth)
        self.conv_in = Conv2d(config.in_channels * config.space_to_depth**2, config.width, 3, padding=1)
        self.levels = nn.ModuleList()
        for i, width in enumerate(widths[1:]):
            last = i == len(config.channel_mult) - 1
            self.levels.append(
                Level(
                    [widths[i]] + [width] * config.n_res_blocks,
                    block,
                    attend if side // 2**i in config.attn_resolutions else None,
                    nn.Identity() if last else Downsample(width),
                )
            )
        self.mid = Middle(widths[-1], block, attend)
        self.norm_out = group_norm(widths[-1])
        self.neuron_out = LIFGate() if config.out_nonlinearity == "gate" else LIF()
        self.conv_out = Conv2d(widths[-1], config.z_channels, 3, padding=1)

    def forward(self, x_seq: Float[Tensor, "T B C H W"]) -> Float[Tensor, "T B Z h w"]:
        """Encode a sequence of frames; a time-constant sequence is computed once up to the first neuron."""
        h = merge_time(lambda x: self.conv_in(self.fold(x)), x_seq)
        for level in self.levels:
            h = level(h)
        h = norm_lif(self.norm_out, self.neuron_out, self.mid(h))
        return merge_time(self.conv_out, h)
