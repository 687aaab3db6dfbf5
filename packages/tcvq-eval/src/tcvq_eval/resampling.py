"""What a distance of two sets would be at another size: its spread over halves, and its limit for many images."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from .feature_set import FeatureSet
from .fidelity import frechet_distance
from .gaussian import gaussian_distance

INFINITY_SIZES = 8


def fd_infinity(real: FeatureSet, fake: FeatureSet, *, sizes: int = INFINITY_SIZES, seed: int = 0) -> float:
    """Return the Frechet distance extrapolated to infinitely many generated images (Chong & Forsyth 2020).

    The distance falls about linearly in 1/n; a line through its values at ``sizes`` numbers of generated images, from
    a tenth of them (at least two per feature) to all, gives the value at 1/n = 0.

    Raises:
        ValueError: There are fewer than four images per feature, too few for a line.
    """
    if fake.features is None or fake.n < 4 * fake.features.shape[1]:
        raise ValueError(f"{fake.n} images are too few to extrapolate {len(fake.gaussian.mean)} features: needs 4 each")
    least = max(fake.n // 10, 2 * fake.features.shape[1])
    numbers = torch.linspace(least, fake.n, sizes).long().tolist()
    order = torch.randperm(fake.n, generator=torch.Generator().manual_seed(seed))
    values = [gaussian_distance(real.gaussian, fake.take(order[:n]).gaussian) for n in numbers]
    x = torch.tensor([[1.0, 1 / n] for n in numbers], dtype=torch.float64)
    line = torch.linalg.lstsq(x, torch.tensor(values, dtype=torch.float64)[:, None]).solution
    return line[0].item()


def half_spread(
    value: Callable[[Tensor, Tensor], Sequence[float]], n_real: int, n_fake: int, *, resamples: int, seed: int = 0
) -> list[float]:
    """Return the standard errors of statistics of two sets by the delete-half jackknife (Shao & Wu 1989).

    Args:
        value: The statistics of the rows that it is given of both sets.
        n_real: Size of the first set.
        n_fake: Size of the second.
        resamples: Random halves of both; at least 2.
        seed: Of the halves.
    """
    generator = torch.Generator().manual_seed(seed)
    values = [
        list(value(*(torch.randperm(n, generator=generator)[: (n + 1) // 2] for n in (n_real, n_fake))))
        for _ in range(resamples)
    ]
    return torch.tensor(values, dtype=torch.float64).std(dim=0, correction=1).tolist()


def frechet(real: FeatureSet, fake: FeatureSet) -> float:
    """Return the Frechet distance: from the Gaussians, or exactly from the vectors where a covariance is singular."""
    thin = min(real.n, fake.n) <= len(real.gaussian.mean)
    if thin and real.features is not None and fake.features is not None:
        return frechet_distance(real.features, fake.features)
    return gaussian_distance(real.gaussian, fake.gaussian)
