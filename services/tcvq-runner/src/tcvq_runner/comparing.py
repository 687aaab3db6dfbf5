"""Two sets of images compared: from what the user named to measured numbers, and those as lines or JSON."""

import json
from collections.abc import Sequence
from pathlib import Path

import torch

from tcvq_eval import (
    USUAL_METRICS,
    FashionFeatures,
    FeatureExtractor,
    FeatureSet,
    InceptionFeatures,
    Measurement,
    MissingWeightsError,
    Source,
    VGGFeatures,
    cached_features,
    clip_features,
    dinov2_features,
    extract_features,
    load_features,
    measure,
    open_source,
    skipped,
    tensor_source,
    to_json,
)
from tcvq_runner.progress import Reporter
from tcvq_runner.samples import read_samples
from tcvq_runner.wiring import Compute

SAMPLES = "samples.safetensors"
SCHEMA = "tcvq.comparison/1"
USUAL_BY_EXTRACTOR = {"vgg16": ("precision", "recall"), "dinov2": ("fd", "kid"), "clip": ("cmmd",)}


def compare_sets(
    real: Path,
    fake: Path,
    compute: Compute,
    reporter: Reporter,
    *,
    metrics: Sequence[str] = (),
    extractor: str = "inception",
    weights: Path | None = None,
    weights_sha256: str | None = None,
    resize: str = "tf1",
    resamples: int = 10,
    seed: int = 0,
    cache: Path | None = None,
) -> list[Measurement]:
    """Measure generated against real images.

    Args:
        real: A folder of pictures, an npz file of images or of ``mu`` and ``sigma``, features saved before, or a run.
        fake: The same.
        compute: Where to compute.
        reporter: Shows the progress.
        metrics: Names of ``tcvq_eval.METRICS``; those that the extractor is for by default.
        extractor: ``inception``, ``fashion``, ``vgg16``, ``dinov2`` or ``clip``.
        weights: File of the extractor's weights; None looks where `tcvq weights download` puts them.
        weights_sha256: Hash of weights that are not the published ones.
        resize: How images are resized for Inception.
        resamples: Halves for the spread.
        seed: Of every random division.
        cache: Folder that keeps the features of ``real``; None keeps nothing.

    Returns:
        One entry per metric; all are skipped, with the reason, where the extractor's weights are missing.

    Raises:
        ValueError: A set cannot be read, or the sets do not fit each other.
    """
    names = metrics or USUAL_BY_EXTRACTOR.get(extractor, USUAL_METRICS)
    sources = {path: _open(path) for path in (real, fake)}
    try:
        network = open_extractor(extractor, weights=weights, sha256=weights_sha256, resize=resize)
    except MissingWeightsError as error:
        label = {"fd": "fid", "fd_infinity": "fid_infinity"} if extractor == "inception" else {}
        return [skipped(label.get(name, name), str(error)) for name in names]
    if isinstance(network, torch.nn.Module):
        network.to(compute.device)
    of_real = _features(sources[real], network, reporter, cache)
    of_fake = _features(sources[fake], network, reporter, None)
    with reporter.task("measure", len(names), "measure") as task:
        return measure(
            of_real, of_fake, names, resamples=resamples, seed=seed, progress=lambda done, _: task.update(done)
        )


def open_extractor(
    name: str, *, weights: Path | None = None, sha256: str | None = None, resize: str = "tf1"
) -> FeatureExtractor:
    """Return the network in whose features images are compared.

    Raises:
        MissingWeightsError: Its weights, or the library that builds it, are not here.
        ValueError: The weights are others.
    """
    match name:
        case "fashion":
            return FashionFeatures()
        case "vgg16":
            return VGGFeatures(weights, sha256=sha256)
        case "dinov2":
            return dinov2_features(weights, sha256=sha256)
        case "clip":
            return clip_features(weights, sha256=sha256)
    return InceptionFeatures(weights, resize=resize, sha256=sha256)


def as_lines(found: Sequence[Measurement]) -> list[str]:
    """Return measured numbers as a table, its head first; what was skipped, notes and the fingerprint below."""
    lines = [f"{'measure':<26}{'value':>12}{'± spread':>12}{'real-real':>12}   better"]
    for each in found:
        if each.skipped:
            continue
        spread, floor = (("-" if x is None else f"{x:.4g}") for x in (each.spread, each.noise_floor))
        lines.append(f"{each.name:<26}{each.value:>12.6g}{spread:>12}{floor:>12}   {each.better}")
    for reason in dict.fromkeys(each.skipped for each in found if each.skipped):
        lines.append(f"skipped {', '.join(each.name for each in found if each.skipped == reason)}: {reason}")
    taken = [each for each in found if each.fingerprint is not None]
    lines += dict.fromkeys(f"note: {each.note}" for each in taken if each.note)
    if taken and (made := taken[0].fingerprint) is not None:
        lines.append(
            f"{made.n_fake} generated and {made.n_real or 'unknown'} real; real against real: {taken[0].n_floor} each; "
            f"{made.extractor} {made.extractor_sha256[:12]}, resize {made.resize}"
        )
        lines.append("fingerprints: " + ", ".join(f"{each.name} {each.fingerprint.digest()}" for each in taken))  # type: ignore[union-attr]
    return lines


def as_json(found: Sequence[Measurement]) -> str:
    """Return measured numbers as one JSON object, with whole fingerprints."""
    return json.dumps({"schema": SCHEMA, "measurements": to_json(list(found))}, ensure_ascii=False, indent=2)


def _open(path: Path) -> Source | FeatureSet:
    """Open what the user named.

    Raises:
        ValueError: It is no set of images.
    """
    if (path / SAMPLES).is_file():
        return tensor_source(read_samples(path / SAMPLES).images, str(path))
    if path.name == SAMPLES:
        return tensor_source(read_samples(path).images, str(path))
    if path.suffix == ".safetensors":
        return load_features(path)
    if path.suffix == ".npz" and path.is_file():
        from tcvq_eval import npz_member

        if not npz_member(path):
            return load_features(path)
    return open_source(path)


def _features(
    source: Source | FeatureSet, network: FeatureExtractor, reporter: Reporter, cache: Path | None
) -> FeatureSet:
    if isinstance(source, FeatureSet):
        return source
    with reporter.task("features", source.n, "image") as task:

        def progress(done: int, _: int) -> None:
            task.update(done)

        if cache is not None:
            return cached_features(cache, source, network, progress=progress)
        return extract_features(source, network, progress=progress)
