"""The random numbers of a training, as tensors that a checkpoint can hold."""

import torch
from torch import Tensor


def rng_states() -> list[Tensor]:
    """Return the states of torch's random numbers: of the CPU and, where there is one, of the CUDA device in use."""
    return [torch.get_rng_state()] + ([torch.cuda.get_rng_state()] if torch.cuda.is_available() else [])


def set_rng_states(states: list[Tensor]) -> None:
    """Put states of `rng_states` back; that of a device which is not here is left out."""
    torch.set_rng_state(states[0].cpu())
    if len(states) > 1 and torch.cuda.is_available():
        torch.cuda.set_rng_state(states[1].cpu())
