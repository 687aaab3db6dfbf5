"""How many grids fit into memory at once."""

import os

import torch

from tcvq_prior.interface import CacheChoice, CodePrior

MOST_ROWS = 256  # more rows make no draw faster
SHARE = 0.25  # of the free memory; activations and other processes need some, too
_CHOOSING = 8  # float64 copies of the logits while a code is chosen


def fitting_micro_batch(prior: CodePrior, cache: CacheChoice = "auto", *, guided: bool = False) -> int:
    """Return the largest power of two of rows, at most 256, whose caches fit into a quarter of the free memory.

    Args:
        prior: The model, where it will compute.
        cache: What it will remember.
        guided: Whether a second cache is needed.
    """
    rows, budget = MOST_ROWS, SHARE * free_memory(prior.device)
    while rows > 1 and rows * prior.n_embed * 8 * _CHOOSING + (1 + guided) * prior.cache_bytes(rows, cache) > budget:
        rows //= 2
    return rows


def free_memory(device: torch.device) -> int:
    """Return the free bytes of a device's memory."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
