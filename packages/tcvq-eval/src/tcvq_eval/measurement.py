"""Distances between a generated and a real set of features, each with its spread, its noise floor and a fingerprint."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor

from .feature_set import FeatureSet
from .fidelity import density_coverage, precision_recall
from .fingerprint import Fingerprint, library_versions, machine_class
from .kernel import CMMD_SIGMA, SUBSET_SIZE, SUBSETS, cmmd, kernel_distance
from .resampling import fd_infinity, frechet, half_spread
from .score import SPLITS, inception_score

METRICS = ("fd", "kid", "is", "precision", "recall", "density", "coverage", "fd_infinity", "cmmd")
USUAL_METRICS = METRICS[:-2]  # of an extractor that asks for nothing else
MANIFOLD_IMAGES = 5_000  # nearest neighbours take time with the square of it
K_OVERLAP, K_COVERAGE = 3, 5
RESAMPLES = 10
_LOWER = frozenset({"fd", "kid", "fd_infinity", "cmmd"})
_FAMILY = dict.fromkeys(("precision", "recall", "density", "coverage"), "overlap")


@dataclass(frozen=True, kw_only=True, slots=True)
class Measurement:
    """One number, and what it has to be read against.

    Attributes:
        name: Of the measure: ``fid`` for the Frechet distance in Inception's features, else as in ``METRICS``.
        value: The value; not a number if it was skipped.
        spread: Its uncertainty: of KID and IS the standard deviation over subsets or splits that the libraries print,
            else the standard error from repeated halves of both sets (delete-half jackknife); None if unknown.
        noise_floor: The same measure of real against real, ``n_floor`` images on each side; None if unknown.
        n_floor: Images on each side of the noise floor.
        better: Which direction is better.
        note: What a reader must know, such as that there were too few images; may be empty.
        skipped: Why there is no value; empty if there is one.
        fingerprint: What two values must share to be comparable; None if skipped.
    """

    name: str
    value: float
    spread: float | None = None
    noise_floor: float | None = None
    n_floor: int = 0
    better: Literal["lower", "higher", ""] = ""
    note: str = ""
    skipped: str = ""
    fingerprint: Fingerprint | None = None


def skipped(name: str, reason: str) -> Measurement:
    """Return the entry of a measure that could not be taken."""
    return Measurement(name=name, value=math.nan, skipped=reason)


def metric_label(metric: str, facts: Mapping[str, str]) -> str:
    """Return the name of a measure in the space of an extractor: ``fid``, ``fd_fashion``, ``fd[my-net/1]``."""
    extractor = facts.get("extractor", "")
    if extractor.startswith("inception-v3"):
        return metric.replace("fd", "fid", 1)
    if metric.startswith("fd"):
        return metric.replace("fd", "fd_fashion", 1) if extractor == "fashion-cnn/1" else f"{metric}[{extractor}]"
    return metric if not extractor else f"{metric}[{extractor}]"


def measure(
    real: FeatureSet,
    fake: FeatureSet,
    metrics: Sequence[str] = USUAL_METRICS,
    *,
    real_split: str = "",
    resamples: int = RESAMPLES,
    seed: int = 0,
    origin: Mapping[str, object] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> list[Measurement]:
    """Measure a generated against a real set.

    Args:
        real: Features of the real set.
        fake: Features of the generated set, in the same space.
        metrics: Names from ``METRICS``.
        real_split: Name of the real set in the fingerprint; that of ``real`` by default.
        resamples: Halves for the spread; 0 leaves it out.
        seed: Of every random division.
        origin: Further fields of the fingerprint, such as ``model_sha256``, ``sampler``, ``micro_batch``.
        progress: Called with the number of measures done and of all.

    Returns:
        One entry per metric, in their order; what cannot be measured is there with its reason.

    Raises:
        ValueError: A metric is unknown, or the sets come from different extractors.
    """
    if unknown := [name for name in metrics if name not in METRICS]:
        raise ValueError(f"unknown metric {unknown[0]!r}; there are {', '.join(METRICS)}")
    if real.facts and fake.facts and dict(real.facts) != dict(fake.facts):
        raise ValueError(f"{real.name} and {fake.name} were measured by different extractors; use one for both")
    task = _Task(real=real, fake=fake, seed=seed, resamples=resamples, split=real_split or real.name)
    results = []
    for done, name in enumerate(metrics, 1):
        try:
            results.append(task.run(name, origin or {}))
        except ValueError as error:
            results.append(skipped(metric_label(name, fake.facts), str(error)))
        if progress is not None:
            progress(done, len(metrics))
    return results


def _pair(real: FeatureSet, fake: FeatureSet, most: int | None = None) -> tuple[Tensor, Tensor]:
    """Return the vectors of both sets, equally many and at most ``most`` if that is given.

    Raises:
        ValueError: Only the Gaussian of one is known.
    """
    for each in (real, fake):
        if each.features is None:
            raise ValueError(f"{each.name} holds a mean and a covariance only; this measure needs the images")
    assert real.features is not None
    assert fake.features is not None
    if most is None:
        return real.features, fake.features
    n = min(real.n, fake.n, most)
    pick = [torch.randperm(x.n, generator=torch.Generator().manual_seed(0))[:n] for x in (real, fake)]
    return real.features[pick[0]], fake.features[pick[1]]


def _fd(real: FeatureSet, fake: FeatureSet) -> dict[str, float]:
    return {"fd": frechet(real, fake)}


def _kid(real: FeatureSet, fake: FeatureSet) -> dict[str, float]:
    result = kernel_distance(*_pair(real, fake))
    return {"kid": result.mean, "spread": result.std}


def _splits(n: int) -> int:
    """Return how many parts n images make for the Inception Score: ten, or of two images each."""
    return min(SPLITS, max(n // 2, 1))


def _is(real: FeatureSet, fake: FeatureSet) -> dict[str, float]:
    if fake.logits is None:
        raise ValueError("the extractor has no class scores")
    result = inception_score(fake.logits, splits=_splits(fake.n))
    return {"is": result.mean, "spread": result.std}


def _overlap(real: FeatureSet, fake: FeatureSet) -> dict[str, float]:
    a, b = _pair(real, fake, MANIFOLD_IMAGES)
    balls, hits = precision_recall(a, b, K_OVERLAP), density_coverage(a, b, K_COVERAGE)
    return {
        "precision": balls.precision,
        "recall": balls.recall,
        "density": hits.density,
        "coverage": hits.coverage,
    }


def _infinity(real: FeatureSet, fake: FeatureSet) -> dict[str, float]:
    return {"fd_infinity": fd_infinity(real, fake), "spread": math.nan}


def _cmmd(real: FeatureSet, fake: FeatureSet) -> dict[str, float]:
    return {"cmmd": cmmd(*_pair(real, fake)), "spread": math.nan}


_FUNCTIONS: Mapping[str, Callable[[FeatureSet, FeatureSet], dict[str, float]]] = {
    "fd": _fd,
    "kid": _kid,
    "is": _is,
    "overlap": _overlap,
    "fd_infinity": _infinity,
    "cmmd": _cmmd,
}


@dataclass(frozen=True, kw_only=True, slots=True)
class _Task:
    """Two sets, and how to measure them; what several measures share is computed once."""

    real: FeatureSet
    fake: FeatureSet
    seed: int
    resamples: int
    split: str
    memo: dict[tuple[str, str], Any] = field(default_factory=dict)

    def run(self, name: str, origin: Mapping[str, object]) -> Measurement:
        """Measure one thing."""
        family, facts = _FAMILY.get(name, name), dict(self.fake.facts)
        value = self._once("value", family, lambda: _FUNCTIONS[family](self.real, self.fake))
        floor, n_floor = self._once("floor", family, lambda: self._floor(family))
        spread = value.get("spread", self._once("spread", family, lambda: self._spread(family)).get(name))
        settings, note = _settings(name, self.real.n, self.fake.n, len(self.fake.gaussian.mean))
        made = Fingerprint(
            metric=metric_label(name, facts),
            settings=settings,
            n_real=self.real.n,
            n_fake=self.fake.n,
            real_split=self.split,
            real_sha256=self.real.sha256,
            seed=self.seed,
            libraries=library_versions("torch-fidelity"),
            machine=machine_class(),
            **(facts | dict(origin)),  # type: ignore[arg-type]  # checked by its constructor
        )
        return Measurement(
            name=made.metric,
            value=value[name],
            spread=None if spread is None or math.isnan(spread) else spread,
            noise_floor=floor.get(name),
            n_floor=n_floor,
            better="lower" if name in _LOWER else "higher",
            note=note,
            fingerprint=made,
        )

    def _once(self, what: str, family: str, make: Callable[[], Any]) -> Any:
        if (what, family) not in self.memo:
            self.memo[what, family] = make()
        return self.memo[what, family]

    def _floor(self, family: str) -> tuple[dict[str, float], int]:
        """Return the measure of real against real on disjoint parts, and their size; nothing where it is unknown."""
        n = min(self.fake.n, self.real.n // 2)
        if self.real.features is None or n < 2:
            return {}, 0
        order = torch.randperm(self.real.n, generator=torch.Generator().manual_seed(self.seed))
        parts = self._once("parts", "", lambda: (self.real.take(order[:n]), self.real.take(order[n : 2 * n])))
        try:
            return _FUNCTIONS[family](*parts), n
        except ValueError:
            return {}, 0

    def _spread(self, family: str) -> dict[str, float]:
        """Return the standard errors; nothing where there are too few images, or the libraries print their own."""
        real, fake = self.real, self.fake
        halved = family in ("fd", "overlap") and real.features is not None and fake.features is not None
        if self.resamples < 2 or not halved:
            return {}
        function = _FUNCTIONS[family]
        names = [name for name in METRICS if _FAMILY.get(name, name) == family]

        def of(a: Tensor, b: Tensor) -> list[float]:
            found = function(real.take(a), fake.take(b))
            return [found[name] for name in names]

        try:
            errors = half_spread(of, real.n, fake.n, resamples=self.resamples, seed=self.seed)
        except ValueError:
            return {}
        return dict(zip(names, errors, strict=True))


def _settings(name: str, n_real: int, n_fake: int, width: int) -> tuple[dict[str, object], str]:
    """Return the parameters of a measure and what a reader must know."""
    n = min(n_real or n_fake, n_fake)
    if name == "kid":
        size = min(SUBSET_SIZE, n)
        note = f"subsets of {size}, all that there are, instead of {SUBSET_SIZE}" if size < SUBSET_SIZE else ""
        return {"subsets": SUBSETS, "size": size, "kernel": "(x·y/F + 1)³", "estimate": "unbiased"}, note
    if name == "cmmd":
        return {"sigma": CMMD_SIGMA, "kernel": "Gaussian", "features": "of length 1", "estimate": "all pairs"}, ""
    if name == "is":
        return {"splits": _splits(n_fake)}, "says little of other images than natural ones in colour"
    if name in _FAMILY:
        k = K_OVERLAP if name in ("precision", "recall") else K_COVERAGE
        return {"k": k, "n": min(n, MANIFOLD_IMAGES)}, ""
    thin = f"{n} images cannot fill {width} features: the covariance is singular and the value too large"
    return {}, thin if n <= width else ""
