"""What is said about a set of generated recordings: distances, statistics, classes, and a test of the ruler."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from .comparison import as_saved, halves
from .event_features import EventClassifier
from .event_statistics import CountCheck, StatisticDistance, class_histogram, count_check, statistic_distances
from .feature_set import extract_features
from .fidelity import frechet_distance
from .measurement import RESAMPLES, Measurement, measure
from .sources import tensor_source

METRICS = ("fd", "kid", "precision", "recall", "density", "coverage")
TELLING_RATIO = 3.0  # an order of time that costs less than this many noise floors is not seen by the measure


@dataclass(frozen=True, kw_only=True, slots=True)
class TemporalYardstick:
    """What a known destruction of time in real recordings costs in a measure.

    Attributes:
        name: ``reverse``, ``shuffle`` (another order for each recording) or ``last`` (every step is the last one).
        fd: Frechet distance of real recordings so destroyed from others.
        ratio: ``fd`` over the noise floor.
        seen: Whether the ratio is at least ``TELLING_RATIO``: only then does the measure say something about time.
    """

    name: str
    fd: float
    ratio: float
    seen: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class EventEvaluation:
    """All measures of a set of generated recordings.

    Attributes:
        n: Generated recordings, and real ones on each side of every noise floor.
        measurements: Distance and overlap in the features of the classifier.
        slice_fd: Frechet distance of the frames of each step.
        slice_floor: The same of real against real.
        difference_fd: Frechet distance of the frames x_t - x_{t-1}, mean over t; None with one step.
        difference_floor: The same of real against real.
        statistics: Counted statistics.
        temporal: What destroying time in real recordings costs.
        counts: Whether generated values can be numbers of events.
        real_counts: The same of the real ones, which resizing may have made fractional.
        accuracy: Share of generated recordings that the classifier takes for the class they were asked to be.
        real_accuracy: Share of real ones that it gets right.
        classes: Share of each class among the generated ones, as the classifier sees it.
        real_classes: The same among the real ones.
    """

    n: int
    measurements: tuple[Measurement, ...]
    slice_fd: tuple[float, ...]
    slice_floor: tuple[float, ...]
    difference_fd: float | None
    difference_floor: float | None
    statistics: tuple[StatisticDistance, ...]
    temporal: tuple[TemporalYardstick, ...]
    counts: CountCheck
    real_counts: CountCheck
    accuracy: float | None
    real_accuracy: float | None
    classes: tuple[float, ...]
    real_classes: tuple[float, ...]


def destroyed(clips: Float[Tensor, "N T *d"], how: str, seed: int = 0) -> Float[Tensor, "N T *d"]:
    """Return recordings whose time is destroyed: ``reverse``, ``shuffle`` or ``last``.

    Raises:
        ValueError: There is no such way.
    """
    n, steps = clips.shape[:2]
    if how == "reverse":
        return clips.flip(1)
    if how == "last":
        return clips[:, -1:].expand_as(clips)
    if how == "shuffle":
        order = torch.rand(n, steps, generator=torch.Generator().manual_seed(seed)).argsort(dim=1)
        return clips[torch.arange(n)[:, None], order]
    raise ValueError(f"unknown destruction {how!r}; there are reverse, shuffle and last")


def temporal_yardsticks(
    real: Float[Tensor, "N T P H W"], other: Float[Tensor, "M T P H W"], classifier: EventClassifier
) -> tuple[TemporalYardstick, ...]:
    """Measure what destroying time in one set of real recordings costs against another.

    Args:
        real: Real recordings in [-1, 1].
        other: As many others, which are destroyed.
        classifier: The feature space.
    """
    reference = classifier(real)
    floor = frechet_distance(reference, classifier(other))
    found = []
    for how in ("reverse", "shuffle", "last"):
        fd = frechet_distance(reference, classifier(destroyed(other, how)))
        ratio = fd / floor if floor > 0 else float("inf")
        found.append(TemporalYardstick(name=how, fd=fd, ratio=ratio, seen=ratio >= TELLING_RATIO))
    return tuple(found)


def evaluate_events(
    fake: Float[Tensor, "M T P H W"],
    real: Float[Tensor, "N T P H W"],
    classifier: EventClassifier,
    *,
    labels: Int[Tensor, " M"] | None = None,
    real_labels: Int[Tensor, " N"] | None = None,
    peak: float = 1.0,
    real_split: str = "test",
    resamples: int = RESAMPLES,
    seed: int = 0,
    origin: Mapping[str, object] | None = None,
) -> EventEvaluation:
    """Measure generated recordings against held-out real ones, and real ones against each other.

    ``n = min(M, N // 2)`` recordings stand on each side of slices, statistics and yardsticks; of the generated ones
    the first ``n``. Both are rounded to 8 bit, as samples are stored.

    Args:
        fake: Generated recordings in [-1, 1], where -1 is no event.
        real: Held-out real ones, at least twice as many if all generated ones are to count.
        classifier: Trained on the real training split.
        labels: Classes that the generated ones were asked to be; None or -1 where there were none.
        real_labels: Classes of the real ones.
        peak: Events that +1 stands for.
        real_split: Name of the real set in fingerprints.
        resamples: Halves for the spread.
        seed: Of every random division.
        origin: Further fields of the fingerprints.

    Raises:
        ValueError: There are too few recordings, or they have another form than the classifier's.
    """
    n = min(len(fake), len(real) // 2)
    if n < 2:
        raise ValueError(f"{len(fake)} generated and {len(real)} real recordings are too few to compare")
    first, second = halves(len(real), n, seed)
    fake, real = _saved(fake), _saved(real)
    a, b, f = real[first], real[second], fake[:n]
    whole, drawn = (
        extract_features(tensor_source(x, y), classifier) for x, y in ((real, real_split), (fake, "samples"))
    )
    measured = measure(whole, drawn, METRICS, real_split=real_split, resamples=resamples, seed=seed, origin=origin)
    slices, floors = (_slices(a, x, classifier) for x in (f, b))
    of_real, of_fake = (each.logits.argmax(dim=1) for each in (whole, drawn) if each.logits is not None)
    return EventEvaluation(
        n=n,
        measurements=tuple(measured),
        slice_fd=slices,
        slice_floor=floors,
        difference_fd=_differences(a, f, classifier),
        difference_floor=_differences(a, b, classifier),
        statistics=statistic_distances(*((x + 1) * (peak / 2) for x in (a, b, f))),
        temporal=temporal_yardsticks(a, b, classifier),
        counts=count_check((f + 1) * (peak / 2), tolerance=peak / 510),
        real_counts=count_check((a + 1) * (peak / 2), tolerance=peak / 510),
        accuracy=_accuracy(of_fake, labels),
        real_accuracy=_accuracy(of_real, real_labels),
        classes=class_histogram(of_fake, classifier.n_classes),
        real_classes=class_histogram(of_real, classifier.n_classes),
    )


def _saved(clips: Tensor) -> Tensor:
    """Clamp and round to 8 bit, as samples are stored."""
    return as_saved(clips.flatten(0, 1)).view_as(clips)


def _slices(a: Tensor, b: Tensor, classifier: EventClassifier) -> tuple[float, ...]:
    """Return the Frechet distance of each step's frames."""
    return tuple(
        frechet_distance(classifier.frame_features(a[:, t]), classifier.frame_features(b[:, t]))
        for t in range(a.shape[1])
    )


def _differences(a: Tensor, b: Tensor, classifier: EventClassifier) -> float | None:
    """Return the mean distance of half the differences of neighbouring frames, which lie in [-1, 1] too."""
    if a.shape[1] < 2:
        return None
    values = _slices(a.diff(dim=1) / 2, b.diff(dim=1) / 2, classifier)
    return sum(values) / len(values)


def _accuracy(predicted: Tensor, labels: Tensor | None) -> float | None:
    if labels is None or not bool((labels >= 0).all()):
        return None
    return (predicted == labels.cpu()).double().mean().item()
