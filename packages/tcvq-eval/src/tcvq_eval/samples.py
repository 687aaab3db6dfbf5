"""Everything that is said about a set of generated images: fidelity, class agreement, memorisation."""

from dataclasses import dataclass

from jaxtyping import Float, Int
from torch import Tensor

from .comparison import Fidelity, as_saved, evaluate_fidelity, halves
from .features import FashionFeatures
from .fidelity import nearest
from .interface import FeatureExtractor


@dataclass(frozen=True, kw_only=True, slots=True)
class ClassAgreement:
    """How often a classifier sees the class that a sample was asked to be.

    Attributes:
        overall: Share over all samples.
        per_class: Share per class, not a number where a class was never asked for.
        real: Share of real held-out images that the same classifier gets right, or None if their labels are unknown.
    """

    overall: float
    per_class: tuple[float, ...]
    real: float | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Memorisation:
    """Distance of samples to the training set, beside that of held-out images.

    Attributes:
        sample_distance: Median root-mean-square pixel difference of a sample to its nearest training image.
        held_out_distance: The same of held-out images.
        ratio: ``sample_distance / held_out_distance``; far below 1 means copies.
        copies: Share of samples nearer to the training set than 99 % of the held-out images are.
        n_train: Training images searched.
    """

    sample_distance: float
    held_out_distance: float
    ratio: float
    copies: float
    n_train: int


@dataclass(frozen=True, kw_only=True, slots=True)
class SampleEvaluation:
    """All measures of a set of generated images.

    Attributes:
        n: Number of samples.
        fidelity: Distance and overlap with real images.
        codec: The same for reconstructions, the best that a prior can reach; None if not asked for.
        agreement: Class agreement; None without labels or without a classifier.
        memorisation: Distance to the training set; None if not asked for.
    """

    n: int
    fidelity: Fidelity
    codec: Fidelity | None
    agreement: ClassAgreement | None
    memorisation: Memorisation | None


def class_agreement(
    predicted: Int[Tensor, " N"], labels: Int[Tensor, " N"], n_classes: int, real: float | None = None
) -> ClassAgreement:
    """Count how often predicted classes equal the labels, over all and per label.

    Args:
        predicted: Classes that a classifier assigns.
        labels: Classes that were asked for.
        n_classes: Number of classes.
        real: The classifier's accuracy on real images, passed through.
    """
    hit = (predicted.cpu() == labels.cpu()).double()
    per_class = tuple(hit[labels.cpu() == c].mean().item() for c in range(n_classes))
    return ClassAgreement(overall=hit.mean().item(), per_class=per_class, real=real)


def memorisation(
    samples: Float[Tensor, "N *d"], train: Float[Tensor, "M *d"], held_out: Float[Tensor, "L *d"]
) -> Memorisation:
    """Compare the distances of samples and of held-out data to their nearest training neighbours.

    Args:
        samples: Generated images or features.
        train: The training set in the same space.
        held_out: Data of the same kind that was not trained on.

    Raises:
        ValueError: One of the three sets is empty.
    """
    if not min(len(samples), len(train), len(held_out)):
        raise ValueError(
            f"memorisation needs samples, training and held-out data; got {len(samples)}, {len(train)}, {len(held_out)}"
        )
    return memorisation_of(
        nearest(samples, train)[0], nearest(held_out, train)[0], values=samples[0].numel(), n_train=len(train)
    )


def memorisation_of(
    ours: Float[Tensor, " N"], theirs: Float[Tensor, " L"], *, values: int, n_train: int
) -> Memorisation:
    """Compare distances to the nearest training item, for training sets that are searched in batches.

    Args:
        ours: Euclidean distance of each sample to its nearest training item.
        theirs: The same of held-out data.
        values: Numbers per item, such as pixels.
        n_train: Training items searched.
    """
    ours, theirs = ours * values**-0.5, theirs * values**-0.5
    return Memorisation(
        sample_distance=ours.median().item(),
        held_out_distance=theirs.median().item(),
        ratio=(ours.median() / theirs.median()).item(),
        copies=(ours < theirs.quantile(0.01)).double().mean().item(),
        n_train=n_train,
    )


def evaluate_samples(
    samples: Float[Tensor, "M C H W"],
    labels: Int[Tensor, " M"] | None,
    real: Float[Tensor, "N C H W"],
    extractor: FeatureExtractor,
    *,
    real_labels: Int[Tensor, " N"] | None = None,
    train: Float[Tensor, "K C H W"] | None = None,
    reconstructions: Float[Tensor, "R C H W"] | None = None,
    real_split: str = "test",
    seed: int = 0,
) -> SampleEvaluation:
    """Measure a set of generated images against held-out real ones.

    Args:
        samples: Generated images; clamped and rounded to 8 bit here.
        labels: Classes the samples were asked to be; None or -1 for unconditional samples.
        real: Held-out real images in [-1, 1], at least twice as many as samples if all samples are to count.
        extractor: Feature space; class agreement is reported if it also is a ``FashionFeatures``.
        real_labels: Classes of the real images, for the classifier's accuracy on them.
        train: Training images, for the memorisation check against ``samples`` and ``real``.
        reconstructions: The images of ``real`` after the codec, in the same order, for the best score that a prior can
            reach; compared with the other half of the real images at the size of the samples' comparison.
        real_split: Name of the real set in the fingerprint.
        seed: Seed of the split of the real set.

    Raises:
        ValueError: There are too few images, the extractor rejects them, or reconstructions do not match ``real``.
    """
    samples, real = as_saved(samples).to(real.device), as_saved(real)
    codec = None
    if reconstructions is not None:
        if len(reconstructions) != len(real):
            raise ValueError(f"{len(reconstructions)} reconstructions of {len(real)} real images; pass one of each")
        _, others = halves(len(real), min(len(samples), len(real) // 2), seed)  # never an image against itself
        codec = evaluate_fidelity(reconstructions[others], real, extractor, real_split=real_split, seed=seed)
    agreement = None
    if labels is not None and bool((labels >= 0).all()) and isinstance(extractor, FashionFeatures):
        known = None
        if real_labels is not None:
            known = (extractor.predict(real).cpu() == real_labels.cpu()).double().mean().item()
        agreement = class_agreement(extractor.predict(samples), labels, extractor.n_classes, known)
    return SampleEvaluation(
        n=len(samples),
        fidelity=evaluate_fidelity(samples, real, extractor, real_split=real_split, seed=seed),
        codec=codec,
        agreement=agreement,
        memorisation=None if train is None else memorisation(samples, as_saved(train).to(real.device), real),
    )
