"""What was measured, with what and on what: two numbers are comparable only where their fingerprints agree."""

import dataclasses
import hashlib
import json
import platform
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version

MODEL_FIELDS = frozenset({"model_sha256", "codec_sha256", "sampler"})
ENVIRONMENT_FIELDS = frozenset({"libraries", "machine"})


@dataclass(frozen=True, kw_only=True, slots=True)
class Fingerprint:
    """Everything that decides a measured number except the images themselves.

    Attributes:
        metric: Name of the measure, such as ``fid``.
        settings: Its parameters: neighbours, subsets, splits.
        extractor: Name of the feature extractor; empty for measures without one.
        extractor_sha256: Hash of its weights.
        layer: Which of its layers.
        resize: Method and size by which it resizes images, or ``none``.
        input: Range and type of the values that it was given.
        colour: How channels became those that it takes.
        n_real: Real images or recordings.
        n_fake: Generated ones.
        real_split: Which real ones.
        real_sha256: Hash of their content.
        seed: Seed of every random choice of the measure.
        dtype: Precision of features and of the measure.
        libraries: Versions that computed it.
        machine: Kind of processor.
        micro_batch: Items per batch while the generated ones were made and measured.
        model_sha256: Hash of the model that drew them; may differ between comparable numbers, as may the next two.
        codec_sha256: Hash of the model that decoded them.
        sampler: How they were drawn.
    """

    metric: str
    settings: Mapping[str, object] = field(default_factory=dict)
    extractor: str = ""
    extractor_sha256: str = ""
    layer: str = ""
    resize: str = "none"
    input: str = ""
    colour: str = "as given"
    n_real: int = 0
    n_fake: int = 0
    real_split: str = ""
    real_sha256: str = ""
    seed: int = 0
    dtype: str = "float64 on float32 features"
    libraries: Mapping[str, str] = field(default_factory=dict)
    machine: str = ""
    micro_batch: str = ""
    model_sha256: str = ""
    codec_sha256: str = ""
    sampler: Mapping[str, object] = field(default_factory=dict)

    def digest(self) -> str:
        """Return 16 hexadecimal digits of a hash over all fields; it changes with each of them."""
        text = json.dumps(dataclasses.asdict(self), sort_keys=True, default=str)
        return hashlib.sha256(text.encode()).hexdigest()[:16]


def fingerprint_differences(
    a: Fingerprint | Mapping[str, object], b: Fingerprint | Mapping[str, object]
) -> tuple[str, ...]:
    """Name the fields that forbid comparing two numbers: all that differ, except for those that say which model.

    Args:
        a: A fingerprint, or what a ``report.json`` holds of one.
        b: Another.

    Returns:
        Names in alphabetical order; empty if the numbers are comparable. Those in ``ENVIRONMENT_FIELDS`` deserve a
        warning rather than a refusal: another version or processor changes the last digits.
    """
    left, right = (json.loads(json.dumps(_mapping(x), default=str)) for x in (a, b))
    names = (left.keys() | right.keys()) - MODEL_FIELDS
    return tuple(sorted(name for name in names if left.get(name) != right.get(name)))


def library_versions(*extra: str) -> dict[str, str]:
    """Return the versions of this package, of torch and of ``extra`` distributions that are installed."""
    found = {"python": platform.python_version()}
    for name in ("tcvq-eval", "torch", *extra):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def machine_class() -> str:
    """Return the kind of processor, such as ``x86_64``."""
    return platform.machine()


def extractor_facts(extractor: object) -> dict[str, str]:
    """Return the fields of a fingerprint that an extractor knows of itself.

    ``name``, ``weights_sha256``, ``layer``, ``resize``, ``input`` and ``colour`` are read where they exist.
    """
    return {
        "extractor": str(getattr(extractor, "name", type(extractor).__name__)),
        "extractor_sha256": str(getattr(extractor, "weights_sha256", "unknown")),
        "layer": str(getattr(extractor, "layer", "")),
        "resize": str(getattr(extractor, "resize", "none")),
        "input": str(getattr(extractor, "input", "[-1, 1], rounded to 8 bit")),
        "colour": str(getattr(extractor, "colour", "as given")),
    }


def _mapping(value: Fingerprint | Mapping[str, object]) -> dict[str, object]:
    return dataclasses.asdict(value) if isinstance(value, Fingerprint) else dict(value)
