"""Gradients between the backward pass and the optimizer: averaged, rescaled, measured, clipped, kept for later."""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.utils import clip_grads_with_norm_, get_total_norm

from tcvq_vqvae.parallel import average_


def settle(parameters: list[nn.Parameter], *, factor: float = 1.0, max_norm: float = 0.0) -> Float[Tensor, ""]:
    """Average gradients over the processes, multiply them, and clip their norm; return the norm before clipping.

    Args:
        parameters: Those without gradient are left out, on all processes the same.
        factor: Multiplies every gradient.
        max_norm: The largest norm; 0 does not clip.
    """
    grads = [p.grad for p in parameters if p.grad is not None]
    average_(grads)
    if factor != 1.0:
        torch._foreach_mul_(grads, factor)
    norm = get_total_norm(grads)
    if max_norm:
        clip_grads_with_norm_(parameters, max_norm, norm)
    return norm


def gradients_of(module: nn.Module) -> dict[str, Tensor]:
    """Return copies of the gradients gathered so far, averaged over the processes."""
    gradients = {name: p.grad.clone() for name, p in module.named_parameters() if p.grad is not None}
    average_(gradients.values())
    return gradients


@torch.no_grad()
def set_gradients(module: nn.Module, gradients: dict[str, Tensor]) -> None:
    """Put gradients of `gradients_of` back."""
    for name, parameter in module.named_parameters():
        if name in gradients:
            parameter.grad = torch.empty_like(parameter).copy_(gradients[name])  # in the order of its memory
