"""The space in which a study compares data: a classifier's features, and for recordings the whole suite for events."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from tcvq_data import EventFrames
from tcvq_eval import (
    TELLING_RATIO,
    EventClassifier,
    EventEvaluation,
    FashionFeatures,
    as_saved,
    evaluate_events,
    frechet_distance,
    halves,
    kernel_distance,
    temporal_yardsticks,
)
from tcvq_runner.batching import tensors
from tcvq_runner.config import Recipe
from tcvq_runner.distances import event_classifier, no_classes
from tcvq_runner.progress import Reporter
from tcvq_runner.recipe import ConfigError
from tcvq_runner.wiring import open_split

Features = Callable[[Tensor], Float[Tensor, "N F"]]
Pair = tuple[float, float]  # a value, and the same measure of real against real
_RESAMPLES = 20
_POOL = 8  # regions per side of the crude space of images


@dataclass(frozen=True, kw_only=True, slots=True)
class Yardstick:
    """Distances to the same n real images or recordings in one feature space.

    Attributes:
        space: Name of the space.
        features: Maps images to features.
        classifier: The same of recordings; None for images.
        x: All held-out images.
        labels: Their classes.
        first: Rows of the n real ones that everything is compared with.
        second: Rows of n other real ones, for the noise floor.
        real: Features of the first.
        floor: Fréchet distance of the second.
        kernel_floor: Kernel distance of the second.
        peak: Events that +1 stands for, of recordings.
    """

    space: str
    features: Features
    classifier: EventClassifier | None
    x: Float[Tensor, "N *frame"]
    labels: Int[Tensor, " N"]
    first: Int[Tensor, " n"]
    second: Int[Tensor, " n"]
    real: Float[Tensor, "n F"]
    floor: float
    kernel_floor: float
    peak: float

    @property
    def n(self) -> int:
        """Images on each side of a distance."""
        return len(self.first)

    def distance(self, images: Tensor) -> float:
        """Return the Fréchet distance of n images, clamped and rounded as a file of 8 bits would."""
        return frechet_distance(self.real, self.features(saved(images)))

    def kernel(self, images: Tensor) -> float:
        """Return the kernel distance of n images, unbiased at any n."""
        return kernel_distance(self.real, self.features(saved(images))).mean

    def spread(self, images: Tensor) -> float:
        """Return the standard deviation of the Fréchet distance over resampled images."""
        fake, generator = self.features(saved(images)), torch.Generator().manual_seed(0)
        rows = [torch.randint(len(fake), (len(fake),), generator=generator) for _ in range(_RESAMPLES)]
        return torch.tensor([frechet_distance(self.real, fake[row]) for row in rows]).std().item()

    def time(self) -> dict[str, float]:
        """Return what reversing, shuffling and freezing real recordings costs, in noise floors; nothing for images."""
        if self.classifier is None:
            return {}
        a, b = saved(self.x[self.first]), saved(self.x[self.second])
        return {yard.name: yard.ratio for yard in temporal_yardsticks(a, b, self.classifier)}

    def suite(self, images: Tensor, labels: Tensor | None, among: Int[Tensor, " n"] | None = None) -> dict[str, Pair]:
        """Return every measure of the suite for recordings beside real against real; nothing for images.

        Reconstructions are compared ``among`` rows that do not hold their originals; None compares with all rows.
        """
        if self.classifier is None:
            return {}
        rows = torch.arange(len(self.x)) if among is None else among
        found = evaluate_events(
            images,
            self.x[rows],
            self.classifier,
            labels=labels,
            real_labels=self.labels[rows],
            peak=self.peak,
            resamples=0,
        )
        return suite_numbers(found)


def yardstick(recipe: Recipe, most: int, reporter: Reporter) -> Yardstick:
    """Divide the held-out images at random into n that are compared with and n others, at most half of all.

    Raises:
        ConfigError: These are recordings without classes.
        OSError: The classifier of recordings, which is trained the first time, cannot be kept.
    """
    test = open_split(recipe, "test")
    x, labels = tensors(test)
    n = min(most, len(x) // 2)
    first, second = halves(len(x), n)
    space, features = feature_space(recipe, reporter)
    real, others = features(saved(x[first])), features(saved(x[second]))
    return Yardstick(
        space=space,
        features=features,
        classifier=features if isinstance(features, EventClassifier) else None,
        x=x,
        labels=labels,
        first=first,
        second=second,
        real=real,
        floor=frechet_distance(real, others),
        kernel_floor=kernel_distance(real, others).mean,
        peak=float((test.peak if isinstance(test, EventFrames) else None) or 1),
    )


def feature_space(recipe: Recipe, reporter: Reporter) -> tuple[str, Features]:
    """Return the name and function of the space in which samples are compared; it needs no download.

    Raises:
        ConfigError: These are recordings without classes.
        OSError: The classifier of recordings cannot be kept.
    """
    if recipe.vqvae.encoding == "event":
        check_space(recipe)
        classifier = event_classifier(recipe, open_split(recipe, "train"), reporter)
        return classifier.name, classifier
    if recipe.data.name in ("fashion-mini", "fashion-mnist") and recipe.vqvae.image_size == 28:
        return "fd_fashion", FashionFeatures()
    return f"pooled pixels {_POOL}x{_POOL}", pooled_pixels


def check_space(recipe: Recipe) -> None:
    """Refuse data for which there will be no space, before anything is trained.

    Raises:
        ConfigError: These are recordings without classes.
    """
    if recipe.vqvae.encoding == "event" and (problem := no_classes(recipe, open_split(recipe, "train"))):
        raise ConfigError(f"{problem}; a study compares recordings in its features: choose data with classes")


def pooled_pixels(x: Float[Tensor, "N C H W"]) -> Float[Tensor, "N F"]:
    """Return the means of 8 x 8 regions: a crude space for images for which there is no classifier."""
    return F.adaptive_avg_pool2d(x.float(), _POOL).flatten(1)


def suite_numbers(found: EventEvaluation) -> dict[str, Pair]:
    """Return the suite for recordings as one list of numbers, each beside real against real.

    The Fréchet distance of whole recordings is not among them: `Yardstick.distance` has it at equal numbers.
    """
    nan = float("nan")
    rows: dict[str, Pair] = {
        each.name.partition("[")[0]: (each.value, nan if each.noise_floor is None else each.noise_floor)
        for each in found.measurements
        if not each.name.startswith("fd")
    }
    rows["FD per step"] = (_mean(found.slice_fd), _mean(found.slice_floor))
    if found.difference_fd is not None and found.difference_floor is not None:
        rows["FD of frame differences"] = (found.difference_fd, found.difference_floor)
    rows |= {f"{each.name.replace('_', ' ')}, W1": (each.w1, each.w1_floor) for each in found.statistics}
    if found.accuracy is not None and found.real_accuracy is not None:
        rows["class agreement"] = (found.accuracy, found.real_accuracy)
    return rows


def time_words(ratios: Mapping[str, float]) -> list[str]:
    """Say whether a space sees time at all, by what destroying it in real recordings costs; nothing for images."""
    if not ratios:
        return []
    costs = ", ".join(f"{how} {ratio:.1f}" for how, ratio in ratios.items())
    seen = min(ratios.values()) >= TELLING_RATIO
    return [
        f"What destroying time in real recordings costs in this space, in noise floors: {costs}; "
        + ("so it sees time." if seen else f"below {TELLING_RATIO:.0f} it is not seen, and the distance says nothing.")
    ]


def saved(x: Tensor) -> Tensor:
    """Clamp to [-1, 1] and round as a file of 8 bits would."""
    return as_saved(x.flatten(0, 1)).view_as(x) if x.ndim == 5 else as_saved(x)


def suite_table(columns: Mapping[str, Mapping[str, Pair]]) -> tuple[tuple[str, ...], list[list[object]]]:
    """Return headings and rows: a measure per row, a set of recordings per column, real against real last."""
    names = list(dict.fromkeys(name for column in columns.values() for name in column))
    first = next(iter(columns.values()))
    rows: list[list[object]] = [
        [name, *(column.get(name, (None, None))[0] for column in columns.values()), first.get(name, (None, None))[1]]
        for name in names
    ]
    return ("measure", *columns, "real against real"), rows


def _mean(values: tuple[float, ...]) -> float:
    return sum(values) / len(values)
