"""Conformance kit: what every `CodePrior` must do."""

import torch

from tcvq_prior.interface import CodePrior


def check_prior(prior: CodePrior) -> None:
    """Check shapes, causality and reproducible sampling of a prior in evaluation mode.

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
    three = torch.arange(3) % prior.n_classes if prior.n_classes else None
    two = None if three is None else three[:2]
    grids = prior.sample(3, labels=three, seed=1, micro_batch=4)
    assert grids.shape == (3, height, width), f"samples are {tuple(grids.shape)}"
    assert int(grids.min()) >= 0, "a negative code was drawn"
    assert int(grids.max()) < prior.n_embed, "a code beyond the codebook was drawn"
    assert torch.equal(prior.sample(2, labels=two, seed=1, micro_batch=4), grids[:2]), "samples depend on their number"
