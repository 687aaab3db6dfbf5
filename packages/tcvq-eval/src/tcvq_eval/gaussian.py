"""Mean and covariance of any number of feature vectors in constant memory, and the Frechet distance of two of them."""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True, kw_only=True, slots=True)
class Gaussian:
    """The Gaussian fitted to a set of feature vectors, in float64.

    Attributes:
        n: Number of vectors.
        mean: Their mean.
        scatter: Sum of the outer products of their deviations from the mean.
    """

    n: int
    mean: Float[Tensor, " F"]
    scatter: Float[Tensor, "F F"]

    @property
    def covariance(self) -> Float[Tensor, "F F"]:
        """The covariance with divisor n - 1."""
        return self.scatter / max(self.n - 1, 1)

    def merge(self, other: "Gaussian") -> "Gaussian":
        """Return the Gaussian of both sets together (Chan, Golub & LeVeque 1979, eq. 2.1).

        With m = n_a + n_b and d = mean_b - mean_a: mean = mean_a + d n_b / m, S = S_a + S_b + d dᵀ n_a n_b / m.
        """
        m = self.n + other.n
        if not self.n or not other.n:
            return self if self.n else other
        d = other.mean - self.mean
        mean = self.mean + d * (other.n / m)
        scatter = self.scatter + other.scatter + torch.outer(d, d) * (self.n * other.n / m)
        return Gaussian(n=m, mean=mean, scatter=scatter)


def fit_gaussian(features: Float[Tensor, "N F"]) -> Gaussian:
    """Fit a Gaussian to feature vectors.

    Raises:
        ValueError: A feature is not finite.
    """
    if not bool(features.isfinite().all()):
        raise ValueError("a feature vector is not finite; look for NaN in the images it came from")
    x = features.double()
    mean = x.mean(dim=0)
    centred = x - mean
    return Gaussian(n=len(x), mean=mean, scatter=centred.T @ centred)


def gaussian_of(batches: Iterable[Float[Tensor, "_ F"]]) -> Gaussian:
    """Fit a Gaussian to batches of feature vectors, holding one batch at a time; equal to one big batch to rounding.

    Raises:
        ValueError: There is no batch, or a feature is not finite.
    """
    total: Gaussian | None = None
    for batch in batches:
        part = fit_gaussian(batch)
        total = part if total is None else total.merge(part)
    if total is None:
        raise ValueError("statistics need at least one batch of features")
    return total


def gather_gaussian(part: Gaussian) -> Gaussian:
    """Return the Gaussian over the sets of all processes of a distributed run; the same on each of them.

    Merged in the order of ranks. Without a process group this is ``part`` itself.
    """
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return part
    world = torch.distributed.get_world_size()
    packed = torch.cat([part.mean.new_tensor([part.n]), part.mean, part.scatter.flatten()])
    everyone = [torch.empty_like(packed) for _ in range(world)]
    torch.distributed.all_gather(everyone, packed)
    width, total = len(part.mean), Gaussian(n=0, mean=part.mean, scatter=part.scatter)
    for each in everyone:
        n, mean, scatter = each.split([1, width, width * width])
        total = total.merge(Gaussian(n=int(n), mean=mean, scatter=scatter.reshape(width, width)))
    return total


def _root(covariance: Float[Tensor, "F F"]) -> Float[Tensor, "F F"]:
    """Return R with RᵀR = the covariance, directions of rounding size left out."""
    values, vectors = torch.linalg.eigh(covariance)
    floor = values.abs().max() * len(values) * torch.finfo(values.dtype).eps
    return torch.where(values > floor, values, 0).sqrt()[:, None] * vectors.T


def gaussian_distance(a: Gaussian, b: Gaussian) -> float:
    """Return the squared Frechet distance of two Gaussians.

    |mu_a - mu_b|² + tr(S_a) + tr(S_b) - 2 tr((S_a S_b)^½)   (Dowson & Landau 1982)

    With S = RᵀR the last trace is the sum of the singular values of R_a R_bᵀ.

    Raises:
        ValueError: Fewer than two vectors in a set, or different widths.
    """
    if a.mean.shape != b.mean.shape:
        raise ValueError(
            f"feature sets have {len(a.mean)} and {len(b.mean)} features; use one extractor, layer and resize for both"
        )
    if min(a.n, b.n) < 2:
        raise ValueError(f"feature sets hold {a.n} and {b.n} vectors; each needs at least 2")
    cross = torch.linalg.svdvals(_root(a.covariance) @ _root(b.covariance).T).sum()
    distance = (a.mean - b.mean).square().sum() + a.covariance.trace() + b.covariance.trace() - 2 * cross
    return max(distance.item(), 0.0)
