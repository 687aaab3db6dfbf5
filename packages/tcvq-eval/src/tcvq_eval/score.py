"""Inception Score: how sure a classifier is of each image and how evenly its classes are used."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

SPLITS = 10
SEED = 2020  # of torch-fidelity


@dataclass(frozen=True, kw_only=True, slots=True)
class InceptionScore:
    """An Inception Score over splits.

    Attributes:
        mean: Mean over splits, between 1 and the number of classes.
        std: Standard deviation over splits.
        splits: Number of splits.
    """

    mean: float
    std: float
    splits: int


def inception_score(logits: Float[Tensor, "N K"], *, splits: int = SPLITS, seed: int = SEED) -> InceptionScore:
    """Return exp E KL(p(y|x) || p(y)), mean and spread over splits (Salimans et al. 2016, arXiv 1606.03498).

    The vectors are shuffled and split as torch-fidelity 0.4 does with the same seed, and computed in float64. The
    published values use the logits of Inception without bias; for other images than natural ones the score means less.

    Args:
        logits: Class scores before the softmax.
        splits: Number of disjoint parts.
        seed: Of the shuffle.

    Raises:
        ValueError: There are fewer images than splits, or a value is not finite.
    """
    if splits < 1 or len(logits) < splits:
        raise ValueError(f"{len(logits)} images cannot make {splits} splits; pass more images or fewer splits")
    if not bool(logits.isfinite().all()):
        raise ValueError("a logit is not finite; look for NaN in the images it came from")
    order = torch.from_numpy(np.random.RandomState(seed).permutation(len(logits)))
    log_p = logits[order].double().log_softmax(dim=1)
    scores = []
    for i in range(splits):
        part = log_p[i * len(log_p) // splits : (i + 1) * len(log_p) // splits]
        p = part.exp()
        scores.append((p * (part - p.mean(dim=0).log())).sum(dim=1).mean().exp().item())
    return InceptionScore(mean=float(np.mean(scores)), std=float(np.std(scores)), splits=splits)
