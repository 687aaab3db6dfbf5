"""Kernel distances: unbiased squared maximum mean discrepancy with a polynomial kernel (KID), and CMMD."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from .fidelity import check_features

SUBSETS, SUBSET_SIZE = 100, 1000
CMMD_SIGMA, CMMD_SCALE = 10.0, 1000.0  # of the published code
CHUNK = 1024
SEED = 2020  # of torch-fidelity: with its numbers of subsets the values agree with it


@dataclass(frozen=True, kw_only=True, slots=True)
class KernelDistance:
    """A kernel distance over random subsets.

    Attributes:
        mean: Mean over subsets; slightly negative values are natural where the sets agree.
        std: Standard deviation over subsets.
        subsets: Number of subsets.
        size: Vectors of each set in a subset.
    """

    mean: float
    std: float
    subsets: int
    size: int


def _kernel(a: Tensor, b: Tensor) -> Tensor:
    """Return (x·y / F + 1)³ for all pairs (N, M)."""
    k = a @ b.T / a.shape[1] + 1
    return k * k * k


def mmd(a: Float[Tensor, "N F"], b: Float[Tensor, "M F"]) -> float:
    """Return the unbiased squared maximum mean discrepancy of two sets, in float64.

    Σ_{i≠j} k(a_i, a_j) / N(N-1) + Σ_{i≠j} k(b_i, b_j) / M(M-1) - 2 Σ_ij k(a_i, b_j) / NM   (Gretton et al. 2012,
    eq. 3) with k(x, y) = (x·y / F + 1)³ (Bińkowski et al. 2018).

    Raises:
        ValueError: Fewer than two vectors in a set, different widths, or values that are not finite.
    """
    check_features(a, b, 2)
    a, b = a.double(), b.double()
    n, m = len(a), len(b)
    aa, bb = _kernel(a, a), _kernel(b, b)
    within = (aa.sum() - aa.trace()) / (n * (n - 1)) + (bb.sum() - bb.trace()) / (m * (m - 1))
    return (within - 2 * _kernel(a, b).mean()).item()


def kernel_distance(
    a: Float[Tensor, "N F"],
    b: Float[Tensor, "M F"],
    *,
    subsets: int = SUBSETS,
    size: int = SUBSET_SIZE,
    seed: int = SEED,
) -> KernelDistance:
    """Return mean and spread of the unbiased squared discrepancy over random subsets of both sets.

    The subsets are those that torch-fidelity 0.4 draws with the same seed. Where a set is smaller than ``size`` the
    subsets are as large as it; the result says so in ``size``.

    Args:
        a: Features of one set.
        b: Features of another.
        subsets: Number of subsets; one is enough where they are as large as both sets.
        size: Vectors of each set in a subset.
        seed: Of the subsets.

    Raises:
        ValueError: As `mmd`, or there is no subset.
    """
    check_features(a, b, 2)
    if subsets < 1 or size < 2:
        raise ValueError(f"{subsets} subsets of {size} vectors; a kernel distance needs at least 1 subset of 2")
    size = min(size, len(a), len(b))
    if size == len(a) == len(b):
        return KernelDistance(mean=mmd(a, b), std=0.0, subsets=1, size=size)
    rng = np.random.RandomState(seed)
    values = []
    for _ in range(subsets):
        rows = rng.choice(len(a), size, replace=False), rng.choice(len(b), size, replace=False)
        values.append(mmd(a[torch.from_numpy(rows[0])], b[torch.from_numpy(rows[1])]))
    return KernelDistance(mean=float(np.mean(values)), std=float(np.std(values)), subsets=subsets, size=size)


def cmmd(a: Float[Tensor, "N F"], b: Float[Tensor, "M F"]) -> float:
    """Return 1000 · MMD² of features of length 1 with a Gaussian kernel, σ = 10 (Jayasumana et al. 2024), in float64.

    mean k(a_i, a_j) + mean k(b_i, b_j) - 2 mean k(a_i, b_j), k(x, y) = exp(-‖x - y‖² / 2σ²): means over all pairs, also
    of a vector with itself, as in the published code, so that it is never negative.

    Raises:
        ValueError: A set is empty, widths differ, or values are not finite.
    """
    check_features(a, b, 1)
    a, b = (torch.nn.functional.normalize(x.double(), dim=1) for x in (a, b))
    return CMMD_SCALE * (_gaussian_mean(a, a) + _gaussian_mean(b, b) - 2 * _gaussian_mean(a, b))


def _gaussian_mean(a: Tensor, b: Tensor) -> float:
    """Return the mean of exp(-‖x - y‖² / 2σ²) over all pairs of vectors of length 1, in chunks."""
    total = sum(torch.exp((part @ b.T - 1) / CMMD_SIGMA**2).sum().item() for part in a.split(CHUNK))
    return total / (len(a) * len(b))
