"""Conformance kit: what every `CodePrior` must do."""

import torch
from torch import Tensor

from tcvq_prior.interface import CacheChoice, CodePrior


def check_prior(prior: CodePrior) -> None:
    """Check shapes, causality, caches and reproducible sampling of a prior in evaluation mode.

    In float32 a rounding can flip a spike, so 1 logit in 10 may differ between a cache and the full forward.

    Args:
        prior: The implementation under test, small enough for a few forward passes.

    Raises:
        AssertionError: Naming the first promise that does not hold.
    """
    height, width = prior.grid
    length, batch = height * width, 2
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(prior.n_embed, (batch, length), generator=generator)
    labels = torch.arange(batch) % prior.n_classes if prior.n_classes else None
    with torch.no_grad():
        logits = prior(tokens[:, :-1], labels)
        assert logits.shape == (batch, length, prior.n_embed), f"logits are {tuple(logits.shape)}"
        for t in range(length - 1):
            other = tokens.clone()
            other[:, t] = (other[:, t] + 1) % prior.n_embed
            moved = prior(other[:, :-1], labels)
            assert torch.equal(moved[:, : t + 1], logits[:, : t + 1]), f"output before token {t} depends on it"
        _check_caches(prior, tokens, labels, logits)
    three = torch.arange(3) % prior.n_classes if prior.n_classes else None
    two = None if three is None else three[:2]
    grids = prior.sample(3, labels=three, seed=1, micro_batch=4)
    assert grids.shape == (3, height, width), f"samples are {tuple(grids.shape)}"
    assert int(grids.min()) >= 0, "a negative code was drawn"
    assert int(grids.max()) < prior.n_embed, "a code beyond the codebook was drawn"
    assert torch.equal(prior.sample(2, labels=two, seed=1, micro_batch=4), grids[:2]), "samples depend on their number"


def _check_caches(prior: CodePrior, tokens: Tensor, labels: Tensor | None, logits: Tensor) -> None:
    """Compare each cache with the full forward, cut in two after the first half, rows in reverse order."""
    half, back = tokens.shape[1] // 2, torch.arange(len(tokens) - 1, -1, -1)
    reversed_labels = None if labels is None else labels[back]
    kinds: tuple[CacheChoice, ...] = ("auto", "state", "kv", "none")
    for kind in kinds:
        try:
            cache = prior.new_cache(kind)
        except ValueError:
            assert kind not in ("auto", "none"), f"the prior has no cache {kind}"
            continue
        before, cache = prior.extend(tokens[:, :half], labels, 0, cache)
        assert before.shape[1] == cache.length == min(half + 1, tokens.shape[1]), f"{kind}: cache.length is wrong"
        if cache.length < tokens.shape[1]:
            after, _ = prior.extend(tokens[back, :-1], reversed_labels, cache.length, cache.select(back))
            same = (torch.cat([before, after[back]], dim=1) - logits).abs() <= 1e-4
            assert same.float().mean() > 0.9, f"{kind}: the cache and the full forward give other logits"
        held, said = cache.nbytes, prior.cache_bytes(len(tokens), kind)
        assert held <= said, f"{kind}: the cache holds {held} bytes, cache_bytes says {said}"
