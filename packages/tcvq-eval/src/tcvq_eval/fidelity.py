"""How close two sets of images are as distributions, measured on their feature vectors."""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

CHUNK = 1024
EXACT = 1 << 30  # multiplications: up to here distances are sums of squares, beyond that matrix products


@dataclass(frozen=True, kw_only=True, slots=True)
class PrecisionRecall:
    """Overlap of two sets as manifolds of k-nearest-neighbour balls.

    Attributes:
        precision: Share of generated images that lie in the manifold of the real ones (quality).
        recall: Share of real images that lie in the manifold of the generated ones (variety).
        k: Neighbours that set the radius of a ball.
    """

    precision: float
    recall: float
    k: int


@dataclass(frozen=True, kw_only=True, slots=True)
class DensityCoverage:
    """Overlap of two sets, robust against outliers in either.

    Attributes:
        density: Mean number of real balls around a generated image, over k; 1 on average for real images, unbounded.
        coverage: Share of real balls that hold a generated image; at most 1, expected 1 - 1/2^k for real images.
        k: Neighbours that set the radius of a ball.
    """

    density: float
    coverage: float
    k: int


def check_features(a: Tensor, b: Tensor, least: int) -> None:
    """Reject sets that are too small, of different width, or not finite.

    Raises:
        ValueError: As above, naming the sizes.
    """
    if a.shape[1] != b.shape[1]:
        raise ValueError(f"feature sets have {a.shape[1]} and {b.shape[1]} features; use one extractor for both")
    if min(len(a), len(b)) < least:
        raise ValueError(f"feature sets hold {len(a)} and {len(b)} vectors; each needs at least {least}")
    if not bool(a.isfinite().all() and b.isfinite().all()):
        raise ValueError("a feature vector is not finite; look for NaN in the images it came from")


def _centred_root(features: Tensor) -> tuple[Tensor, Tensor]:
    """Return the mean and an upper-triangular R with RᵀR = the covariance (divisor n - 1)."""
    mean = features.mean(dim=0)
    root = torch.linalg.qr((features - mean) / (len(features) - 1) ** 0.5, mode="r").R
    return mean, root


def frechet_distance(features_a: Float[Tensor, "N F"], features_b: Float[Tensor, "M F"]) -> float:
    """Return the squared Frechet distance of the Gaussians fitted to two sets of feature vectors.

    |mu_a - mu_b|² + tr(S_a) + tr(S_b) - 2 tr((S_a S_b)^½)   (Dowson & Landau 1982)

    With S = RᵀR the last trace is the sum of the singular values of R_a R_bᵀ. No covariance is formed and no matrix
    root is taken, so the value is symmetric and accurate to rounding even where a covariance is singular. Computed in
    float64.

    Raises:
        ValueError: Fewer than two vectors in a set, different widths, or values that are not finite.
    """
    check_features(features_a, features_b, 2)
    mean_a, root_a = _centred_root(features_a.double())
    mean_b, root_b = _centred_root(features_b.double())
    cross = torch.linalg.svdvals(root_a @ root_b.T).sum()
    distance = (mean_a - mean_b).square().sum() + root_a.square().sum() + root_b.square().sum() - 2 * cross
    return max(distance.item(), 0.0)


def _distances(a: Tensor, b: Tensor) -> Tensor:
    """Return Euclidean distances (N, M), exactly zero between equal vectors unless there are very many."""
    exact = len(a) * b.numel() <= EXACT
    return torch.cdist(a, b, compute_mode=f"{'donot_use' if exact else 'use'}_mm_for_euclid_dist")


def nearest(queries: Float[Tensor, "N *d"], reference: Float[Tensor, "M *d"]) -> tuple[Tensor, Tensor]:
    """Find the nearest reference of each query by Euclidean distance, in chunks.

    Returns:
        Distances (N,) in the dtype of the queries and indices (N,) int64 into the reference.
    """
    flat = reference.flatten(1)
    chunks = queries.flatten(1).split(CHUNK)
    indices = torch.cat([torch.cdist(chunk, flat).argmin(dim=1) for chunk in chunks])
    distances = (queries.flatten(1) - flat[indices]).norm(dim=1)  # cdist's matrix product is inexact near zero
    return distances, indices


def nearest_in_batches(
    queries: Float[Tensor, "N *d"], batches: Iterable[Float[Tensor, "_ *d"]]
) -> tuple[Float[Tensor, " N"], Float[Tensor, "N *d"], int]:
    """Find the nearest item of a large set to each query, holding one batch of the set at a time.

    Returns:
        Distances, the nearest items themselves, and the number of items searched.

    Raises:
        ValueError: There is no query or no batch.
    """
    if not len(queries):
        raise ValueError("a search for nearest neighbours needs at least one query")
    best = torch.full((len(queries),), torch.inf, dtype=queries.dtype, device=queries.device)
    twins, searched = queries.clone(), 0
    for batch in batches:
        items = batch.to(queries)
        distances, rows = nearest(queries, items)
        closer = distances < best
        best[closer], twins[closer] = distances[closer], items[rows[closer]]
        searched += len(items)
    if not searched:
        raise ValueError("a search for nearest neighbours needs a set to search")
    return best, twins, searched


def _radii(features: Tensor, k: int) -> Tensor:
    """Return the distance of each vector to its k-th nearest other vector of the set."""
    return torch.cat([_distances(chunk, features).kthvalue(k + 1, dim=1).values for chunk in features.split(CHUNK)])


def _share_inside(queries: Tensor, centres: Tensor, radii: Tensor) -> float:
    """Return the share of queries that lie in at least one ball."""
    inside = [(_distances(chunk, centres) <= radii).any(dim=1) for chunk in queries.split(CHUNK)]
    return torch.cat(inside).double().mean().item()


def precision_recall(real: Float[Tensor, "N F"], fake: Float[Tensor, "M F"], k: int = 3) -> PrecisionRecall:
    """Compare two sets of feature vectors as manifolds (Kynkäänniemi et al. 2019, arXiv 1904.06991, eq. 1-2).

    The manifold of a set is the union of balls around its vectors, each reaching to the k-th nearest other vector. Use
    as many real as generated vectors: both numbers depend on the set sizes. Computed in float64.

    Raises:
        ValueError: ``k`` is not positive, a set has no more than ``k`` vectors, or features do not match.
    """
    if k < 1:
        raise ValueError(f"k is {k}; it must be at least 1")
    check_features(real, fake, k + 1)
    real, fake = real.double(), fake.double()
    return PrecisionRecall(
        precision=_share_inside(fake, real, _radii(real, k)),
        recall=_share_inside(real, fake, _radii(fake, k)),
        k=k,
    )


def density_coverage(real: Float[Tensor, "N F"], fake: Float[Tensor, "M F"], k: int = 5) -> DensityCoverage:
    """Compare two sets by how often and how evenly balls of the real one are hit.

    density = Σ_j Σ_i 1[f_j in B(r_i)] / kM, coverage = Σ_i 1[some f_j in B(r_i)] / N (Naeem et al. 2020,
    arXiv 2002.09797, eq. 3 and 4), where B(r_i) reaches to the k-th nearest other real vector. Computed in float64.

    Raises:
        ValueError: ``k`` is not positive, a set has no more than ``k`` vectors, or features do not match.
    """
    if k < 1:
        raise ValueError(f"k is {k}; it must be at least 1")
    check_features(real, fake, k + 1)
    real, fake = real.double(), fake.double()
    radii, covered, hits = _radii(real, k), torch.zeros(len(real), dtype=torch.bool, device=real.device), 0
    for chunk in fake.split(CHUNK):
        inside = _distances(chunk, real) < radii
        covered |= inside.any(dim=0)
        hits += int(inside.sum())
    return DensityCoverage(density=hits / (k * len(fake)), coverage=covered.double().mean().item(), k=k)
