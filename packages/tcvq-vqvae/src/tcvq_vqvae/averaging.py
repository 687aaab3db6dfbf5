"""Moving average of a network's weights, and what has to jump with them when codebook entries are replaced."""

import torch
from jaxtyping import Bool
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from tcvq_codebook import TemporalCodebook
from tcvq_vqvae.model import SpikingVQVAE


def averaged(model: SpikingVQVAE, decay: float) -> AveragedModel:
    """Return a copy whose weights are θ̄ ← γθ̄ + (1−γ)θ after each of its updates, and θ after the first.

    Buffers are copied as they are. The copy holds no gradient, so that no optimizer and no process group sees it.
    """
    copy = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(decay))
    return copy.requires_grad_(False)


def trained_codes(model: nn.Module) -> TemporalCodebook:
    """Return the codebook of a network that holds the entries, inside whatever is wrapped around it."""
    return next(module for module in model.modules() if isinstance(module, TemporalCodebook))


@torch.no_grad()
def copy_entries(source: nn.Module, target: nn.Module, which: Bool[Tensor, "K"] | None = None) -> None:
    """Set entries of ``target`` to those of ``source``: an average with entries that are gone means nothing."""
    entries, averages = trained_codes(source).codebook, trained_codes(target).codebook
    if which is None:
        averages.copy_(entries)
    else:
        averages[which] = entries[which]
