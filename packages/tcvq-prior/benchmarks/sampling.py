"""Codes per second of sampling with the running state, against a full forward for every code.

Run ``python sampling.py``; in float64 both draw the same codes, and the script checks it first.
"""

import time
from collections.abc import Callable

import torch
from torch import Tensor

from tcvq_prior import PriorConfig, SpikingPrior, filter_logits
from tcvq_prior.sampling import uniforms

CONFIG = PriorConfig(n_embed=512, grid=(7, 7), n_classes=10, n_layer=3, n_head=4, width=128)
N = 64


def sample_state(prior: SpikingPrior, n: int) -> Tensor:
    """Sample as the package does."""
    return prior.sample(n, labels=torch.arange(n) % CONFIG.n_classes, seed=0, micro_batch=n)


@torch.no_grad()
def sample_full(prior: SpikingPrior, n: int) -> Tensor:
    """Sample with a full forward for every code."""
    labels, numbers = torch.arange(n) % CONFIG.n_classes, torch.from_numpy(uniforms(0, 0, n, CONFIG.n_tokens))
    tokens = torch.zeros(n, 0, dtype=torch.long)
    for position in range(CONFIG.n_tokens):
        logits = prior(tokens, labels)[:, -1]
        cdf = filter_logits(logits, temperature=1.0, top_k=None, top_p=None).cumsum(-1)
        drawn = torch.searchsorted(cdf, numbers[:, position, None] * cdf[:, -1:], right=True)
        tokens = torch.cat([tokens, drawn.clamp(max=CONFIG.n_embed - 1)], dim=1)
    return tokens.unflatten(1, CONFIG.grid)


def rate(sampler: Callable[[SpikingPrior, int], Tensor], prior: SpikingPrior) -> float:
    """Best codes per second of three runs."""
    best = 0.0
    for _ in range(3):
        start = time.perf_counter()
        sampler(prior, N)
        best = max(best, N * CONFIG.n_tokens / (time.perf_counter() - start))
    return best


def main() -> None:
    """Print both rates."""
    torch.manual_seed(0)
    prior = SpikingPrior(CONFIG).double().eval()
    same = torch.equal(sample_state(prior, 4), sample_full(prior, 4))
    prior.float()
    state, full = rate(sample_state, prior), rate(sample_full, prior)
    print(f"{torch.get_num_threads()} threads, {N} grids of {CONFIG.grid}, {CONFIG.n_layer} layers of {CONFIG.width}")
    print(f"same codes in float64: {same}")
    print(f"running state {state:9.0f} codes/s")
    print(f"full forward  {full:9.0f} codes/s   ratio {state / full:.2f}")


if __name__ == "__main__":
    main()
