"""Less memory, or less time, for the same numbers: recomputed blocks and compiled levels."""

from functools import partial

from torch.utils.checkpoint import checkpoint

from tcvq_vqvae.blocks import Level, Middle, ResBlock, SpikeAttention
from tcvq_vqvae.model import SpikingVQVAE


def prepare_blocks(model: SpikingVQVAE, *, recompute: bool, compiled: bool) -> None:
    """Turn on recomputation and compilation, in place.

    Args:
        model: The network.
        recompute: Keep only the inputs of residual and attention blocks; the backward pass computes the rest again.
        compiled: Compile the levels and the middle of encoder and decoder. The last convolution stays out: the
            adaptive weight differentiates it alone, and twice.
    """
    for part in model.modules():
        if recompute and isinstance(part, ResBlock | SpikeAttention):
            part.forward = partial(checkpoint, part.forward, use_reentrant=False)  # type: ignore[method-assign]
        if compiled and isinstance(part, Level | Middle):
            part.compile()
