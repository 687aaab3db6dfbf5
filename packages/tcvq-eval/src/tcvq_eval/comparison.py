"""Generated against real images beside real against real: the same measures, set sizes and fingerprint."""

import platform
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version

import torch
from jaxtyping import Float, Int
from torch import Tensor

from .features import FashionFeatures
from .fidelity import frechet_distance, precision_recall
from .interface import FeatureExtractor


@dataclass(frozen=True, kw_only=True, slots=True)
class Fidelity:
    """A distance between generated and real images, beside the same measure between real and real.

    Both compare ``n`` images with ``n`` images: generated against the first half of the shuffled real set, and the
    second half of the real set against the first.

    Attributes:
        n: Images on each side of every comparison.
        fd: Frechet distance of generated against real features.
        fd_noise_floor: Frechet distance of real against real features: what perfect samples would score.
        precision: Share of generated images inside the real manifold.
        recall: Share of real images inside the generated manifold.
        precision_ceiling: The precision of real against real.
        recall_ceiling: The recall of real against real.
        k: Neighbours that set the radius of a ball in precision and recall.
        note: A warning about the set sizes, or empty.
        fingerprint: What two values must share to be comparable.
    """

    n: int
    fd: float
    fd_noise_floor: float
    precision: float
    recall: float
    precision_ceiling: float
    recall_ceiling: float
    k: int
    note: str
    fingerprint: Mapping[str, object]


def as_saved(images: Float[Tensor, "N C H W"]) -> Float[Tensor, "N C H W"]:
    """Clamp to [-1, 1] and round to the 256 levels of an 8-bit picture, the form in which samples are compared."""
    return ((images.float().clamp(-1, 1) + 1) * 127.5).round() / 127.5 - 1


def fingerprint(
    metric: str, extractor: FeatureExtractor, n_real: int, n_fake: int, *, split: str, seed: int
) -> dict[str, object]:
    """Describe a feature-space metric: two values are comparable only if their fingerprints agree."""
    return {
        "metric": metric,
        "extractor": extractor.name,
        "extractor_sha256": getattr(extractor, "weights_sha256", "unknown"),
        "num_features": extractor.num_features,
        "n_real": n_real,
        "n_fake": n_fake,
        "real_split": split,
        "split_seed": seed,
        "input": "[-1, 1], clamped and rounded to 8 bit, original size",
        "dtype": "float64 on float32 features",
        "versions": {name: version(name) for name in ("tcvq-eval", "torch")} | {"python": platform.python_version()},
    }


def metric_name(extractor: FeatureExtractor) -> str:
    """Return ``fd_fashion`` for the shipped classifier, else a name that says which extractor was used."""
    return "fd_fashion" if isinstance(extractor, FashionFeatures) else f"fd[{extractor.name}]"


def halves(total: int, n: int, seed: int = 0) -> tuple[Int[Tensor, " n"], Int[Tensor, " n"]]:
    """Return two disjoint random sets of ``n`` indices below ``total``.

    Raises:
        ValueError: ``total`` is less than ``2 n``.
    """
    if total < 2 * n:
        raise ValueError(f"two disjoint sets of {n} need {2 * n} vectors; got {total}")
    first, second, _ = torch.randperm(total, generator=torch.Generator().manual_seed(seed)).tensor_split([n, 2 * n])
    return first, second


def noise_floor(features: Float[Tensor, "N F"], n: int, seed: int = 0) -> float:
    """Return the Frechet distance between two disjoint random sets of ``n`` real feature vectors."""
    first, second = halves(len(features), n, seed)
    return frechet_distance(features[first], features[second])


def evaluate_fidelity(
    fake: Float[Tensor, "M C H W"],
    real: Float[Tensor, "N C H W"],
    extractor: FeatureExtractor,
    *,
    real_split: str = "test",
    k: int = 3,
    seed: int = 0,
) -> Fidelity:
    """Compare generated with real images, and real with real images by the same measure.

    ``n = min(M, N // 2)`` images stand on each side, the first ``n`` generated ones among them: Frechet distance,
    precision and recall depend on set sizes, so the noise floor is only comparable at the same size.

    Raises:
        ValueError: There are too few images for ``k``, or the extractor rejects them.
    """
    n = min(len(fake), len(real) // 2)
    first, second = halves(len(real), n, seed)
    rows = torch.cat([first, second])
    features = torch.empty(len(real), extractor.num_features, device=real.device)
    features[rows] = extractor(as_saved(real[rows])).to(real.device)
    return fidelity_of_features(
        extractor(as_saved(fake[:n])), features, extractor, real_split=real_split, k=k, seed=seed
    )


def fidelity_of_features(
    fake: Float[Tensor, "M F"],
    real: Float[Tensor, "N F"],
    extractor: FeatureExtractor,
    *,
    real_split: str = "test",
    k: int = 3,
    seed: int = 0,
) -> Fidelity:
    """Compare features of generated and real images as `evaluate_fidelity` does, for sets that are read in batches.

    Args:
        fake: Features of the generated images, of which the first ``n`` count.
        real: Features of the real ones.
        extractor: What made both.
        real_split: Name of the real set in the fingerprint.
        k: Neighbours that set the radius of a ball.
        seed: Of the division of the real set.

    Raises:
        ValueError: There are too few images for ``k``.
    """
    n = min(len(fake), len(real) // 2)
    fake, (first, second) = fake[:n], halves(len(real), n, seed)
    real_a, real_b = real[first], real[second]
    samples, ceiling = precision_recall(real_a, fake, k), precision_recall(real_a, real_b, k)
    thin = n <= extractor.num_features
    return Fidelity(
        n=n,
        fd=frechet_distance(real_a, fake),
        fd_noise_floor=frechet_distance(real_a, real_b),
        precision=samples.precision,
        recall=samples.recall,
        precision_ceiling=ceiling.precision,
        recall_ceiling=ceiling.recall,
        k=k,
        note=f"{n} images cannot fill {extractor.num_features} features: singular covariance" if thin else "",
        fingerprint=fingerprint(metric_name(extractor), extractor, n, n, split=real_split, seed=seed),
    )


def fd_fashion(
    fake: Float[Tensor, "M C H W"], real: Float[Tensor, "N C H W"], extractor: FashionFeatures | None = None
) -> Fidelity:
    """Compare images in the space of the shipped Fashion-MNIST classifier; not a FID and not comparable with one.

    Args:
        fake: Generated images (M, 1, 28, 28), clamped and rounded here.
        real: Real images (N, 1, 28, 28) in [-1, 1].
        extractor: The classifier, loaded from the package if not given.
    """
    return evaluate_fidelity(fake, real, extractor or FashionFeatures())
