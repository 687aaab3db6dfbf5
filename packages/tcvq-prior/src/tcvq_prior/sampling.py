"""Drawing grids of codes token by token, reproducibly for each sample."""

from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from tcvq_prior.interface import CodePrior


def filter_logits(
    logits: Float[Tensor, "B K"], *, temperature: float, top_k: int | None, top_p: float | None
) -> Float[Tensor, "B K"]:
    """Turn logits into probabilities: temperature, then top-k, then top-p, keeping at least one code.

    Args:
        logits: Scores of each code.
        temperature: Divides the logits; 0 puts all probability on the largest.
        top_k: Keep the k most probable codes; None keeps all.
        top_p: Keep the smallest set of codes whose probabilities reach p (Holtzman et al. 2020); None keeps all.

    Returns:
        Probabilities, float64, summing to 1.
    """
    logits = logits.double()
    if temperature == 0:
        return torch.nn.functional.one_hot(logits.argmax(-1), logits.shape[-1]).double()
    logits = (logits - logits.amax(-1, keepdim=True)) / temperature  # at most 0: no overflow at low temperatures
    if top_k is not None and top_k < logits.shape[-1]:
        kept = logits.topk(top_k, dim=-1).indices
        logits = logits.masked_fill(torch.ones_like(logits, dtype=torch.bool).scatter(-1, kept, False), -torch.inf)
    probabilities = logits.softmax(-1)
    if top_p is not None and top_p < 1:
        ordered, order = probabilities.sort(dim=-1, descending=True)
        dropped = (ordered.cumsum(-1) - ordered) >= top_p
        probabilities = probabilities.masked_fill(dropped.scatter(-1, order, dropped), 0.0)
        probabilities = probabilities / probabilities.sum(-1, keepdim=True)
    return probabilities


def uniforms(seed: int, first: int, n: int, length: int) -> Float[np.ndarray, "n length"]:
    """One uniform number per (seed, sample, position) from a counter-based generator, whatever the batch."""
    keys = np.array([[seed, first + i] for i in range(n)], dtype=np.uint64)
    return np.stack([np.random.Generator(np.random.Philox(key=key)).random(length) for key in keys])


@torch.no_grad()
def sample_grids(
    prior: CodePrior,
    n: int,
    *,
    labels: Int[Tensor, " n"] | None = None,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    seed: int = 0,
    micro_batch: int = 64,
    callback: Callable[[int], None] | None = None,
) -> Int[Tensor, "n H W"]:
    """Draw ``n`` grids; sample i is decided by ``seed`` and i, whatever ``n`` is.

    The network always runs on exactly ``micro_batch`` rows (the last batch is padded), because in float32 another batch
    shape can round a membrane to the other side of the threshold.

    Args:
        prior: The model.
        n: Number of grids.
        labels: Class of each grid.
        temperature: Divides the logits; 0 is greedy.
        top_k: Keep the k most probable codes.
        top_p: Keep the smallest set of codes whose probabilities reach p.
        seed: Any integer from 0 to 2**64 - 1.
        micro_batch: Rows computed at a time.
        callback: Told the number of finished grids after each micro-batch.

    Raises:
        ValueError: If an argument is out of range, or there is not one label per grid.
        FloatingPointError: If the prior's logits are not finite.
    """
    if n < 0 or micro_batch < 1:
        raise ValueError(f"n is {n} and micro_batch {micro_batch}; need n >= 0 and micro_batch >= 1")
    if labels is not None and labels.shape != (n,):
        raise ValueError(f"{tuple(labels.shape)} labels for {n} samples; give one label per sample")
    _check_filter(temperature, top_k, top_p)
    choose = partial(filter_logits, temperature=temperature, top_k=top_k, top_p=top_p)
    if not 0 <= seed < 2**64:
        raise ValueError(f"seed is {seed}; it must lie between 0 and 2**64 - 1")
    known = prior.n_classes + (prior.null_class is not None)
    if labels is not None and n and not 0 <= int(labels.min()) <= int(labels.max()) < known:
        raise ValueError(f"labels reach from {labels.min()} to {labels.max()}; the prior has {prior.n_classes} classes")
    network = prior if isinstance(prior, torch.nn.Module) and prior.training else None
    if network is not None:
        network.eval()
    try:
        parts = []
        for first in range(0, n, micro_batch):
            rows = min(micro_batch, n - first)
            batch_labels = None
            if labels is not None:
                batch_labels = torch.nn.functional.pad(labels[first : first + rows], (0, micro_batch - rows))
            numbers = torch.from_numpy(uniforms(seed, first, micro_batch, prior.grid[0] * prior.grid[1]))
            parts.append(_sample_batch(prior, numbers, batch_labels, choose)[:rows])
            if callback is not None:
                callback(first + rows)
    finally:
        if network is not None:
            network.train()
    return torch.cat(parts) if parts else torch.zeros(0, *prior.grid, dtype=torch.long)


def _sample_batch(
    prior: CodePrior,
    numbers: Float[Tensor, "B L"],
    labels: Int[Tensor, " B"] | None,
    choose: Callable[[Tensor], Tensor],
) -> Int[Tensor, "B H W"]:
    """Extend all rows code by code: the code at a position is the inverse CDF at its uniform number."""
    device = prior.device
    numbers = numbers.to(device)
    labels = None if labels is None else labels.to(device)
    tokens = torch.zeros(numbers.shape[0], 0, dtype=torch.long, device=device)
    cache = prior.new_cache()
    for position in range(prior.grid[0] * prior.grid[1]):
        logits, cache = prior.extend(tokens, labels, position, cache)
        if not logits[:, -1].isfinite().all():
            raise FloatingPointError(
                f"the prior's logits at position {position} are not finite; train or load it again"
            )
        cdf = choose(logits[:, -1]).cumsum(-1)
        drawn = torch.searchsorted(cdf, numbers[:, position, None] * cdf[:, -1:], right=True).clamp(
            max=prior.n_embed - 1
        )
        tokens = torch.cat([tokens, drawn], dim=1)
    return tokens.unflatten(1, prior.grid)


def _check_filter(temperature: float, top_k: int | None, top_p: float | None) -> None:
    if not temperature >= 0:
        raise ValueError(f"temperature is {temperature}; it must not be negative")
    if top_k is not None and top_k < 1:
        raise ValueError(f"top_k is {top_k}; it must be at least 1")
    if top_p is not None and not 0 < top_p <= 1:
        raise ValueError(f"top_p is {top_p}; it must lie in (0, 1]")
