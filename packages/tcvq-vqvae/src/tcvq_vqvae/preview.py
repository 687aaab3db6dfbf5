"""Reconstructions in the middle of a training, without a trace in it."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from jaxtyping import Float
from torch import Tensor, nn

from tcvq_vqvae.model import SpikingVQVAE


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Put a module and all its parts into evaluation mode, without gradient; each gets its own mode back in the end."""
    modes = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for part, mode in modes:
            part.training = mode


def reconstruct(
    model: SpikingVQVAE, x: Float[Tensor, "*batch C H W"], *, quantized: bool = True
) -> Float[Tensor, "*batch C H W"]:
    """Return the reconstruction of images or event frames in [-1, 1], clamped; nothing of the model changes.

    Args:
        model: In whatever mode; it is evaluated and put back.
        x: Images ``(B, C, H, W)`` or frames ``(T, B, C, H, W)``.
        quantized: Go through the codebook; False decodes the latents themselves.
    """
    with evaluating(model):
        x_hat = model(x).x_hat if quantized else model.decode(model.latents(x))
        return x_hat.clamp(-1.0, 1.0)
