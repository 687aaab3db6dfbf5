"""How far the samples of a run are from real data: in Inception's features on request, in the suite for recordings."""

import dataclasses
import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor

from tcvq_data import EventFrames, ImageSource, read_batch
from tcvq_eval import (
    KNOWN_WEIGHTS,
    USUAL_METRICS,
    EventClassifier,
    EventEvaluation,
    EventTraining,
    FashionFeatures,
    FeatureExtractor,
    FeatureSet,
    InceptionFeatures,
    Measurement,
    MissingWeightsError,
    Source,
    cached_event_classifier,
    cached_features,
    evaluate_events,
    extract_features,
    extractor_facts,
    file_sha256,
    fit_gaussian,
    measure,
    skipped,
    tensor_source,
    weights_folder,
)
from tcvq_runner.config import Recipe
from tcvq_runner.passes import image_batches
from tcvq_runner.progress import Reporter
from tcvq_runner.recipe import ConfigError
from tcvq_runner.samples import Samples
from tcvq_runner.wiring import Compute, feature_extractor, open_split
from tcvq_vqvae import Perceptual

MOST_EVENTS = 2000  # generated recordings that are measured, against twice as many real ones


@dataclass(frozen=True, kw_only=True, slots=True)
class Request:
    """What the user asked to measure beyond what every run measures.

    Attributes:
        metrics: Names of ``tcvq_eval.METRICS``; all but the extrapolation if empty.
        weights: Inception's weights; None looks where `tcvq weights download` puts them.
        weights_sha256: Hash of weights that are not the published ones.
        resize: How images are resized for Inception.
        resamples: Halves for the spread.
        seed: Of every random division.
        cache: Folder that keeps the features of the real images.
        inception: Whether Inception was asked for.
        lpips: VGG16's weights, for the perceptual distance of reconstructions; None leaves it out.
        lpips_sha256: Hash of weights that are not torchvision's.
    """

    metrics: tuple[str, ...] = ()
    weights: Path | None = None
    weights_sha256: str | None = None
    resize: str = "tf1"
    resamples: int = 10
    seed: int = 0
    cache: Path | None = None
    inception: bool = False
    lpips: Path | None = None
    lpips_sha256: str | None = None


def perceptual_of(request: Request, compute: Compute) -> Callable[[Tensor, Tensor], Tensor] | None:
    """Return the function (images, reconstructions) -> LPIPS of each pair, None where it was not asked for.

    Raises:
        ConfigError: The file of weights or the package `lpips` is missing, or the file is another one.
    """
    path = request.lpips
    if path is None:
        return None
    what = "LPIPS needs torchvision's vgg16-397923af.pth; get it with: tcvq weights download vgg16"
    if not path.is_file():
        raise ConfigError(f"--lpips {path}: there is no such file; {what}")
    if find_spec("lpips") is None:
        raise ConfigError("--lpips needs the package lpips, which is not installed; uv pip install lpips")
    wanted = request.lpips_sha256 or KNOWN_WEIGHTS["vgg16"].sha256
    if (found := file_sha256(path)) != wanted:
        raise ConfigError(
            f"--lpips {path} has sha256 {found[:12]}, not {wanted[:12]}; {what}; or --lpips-sha256 {found}"
        )
    network = Perceptual(path, wanted).to(compute.device)

    def each(x: Tensor, x_hat: Tensor) -> Tensor:
        pairs = zip(x.to(compute.device).split(1), x_hat.to(compute.device).split(1), strict=True)
        return torch.stack([network(a, b) for a, b in pairs]).cpu()

    return each


def origin_of(samples: Samples, batch_size: int) -> dict[str, object]:
    """Return the fields of a fingerprint that say where samples came from."""
    return {
        "model_sha256": samples.prior_sha256,
        "codec_sha256": samples.vqvae_sha256,
        "sampler": samples.settings,
        "micro_batch": f"decoded in batches of {batch_size}",
    }


def known_features(features: Tensor, name: str, extractor: FeatureExtractor) -> FeatureSet:
    """Return features that a pass has computed already as a set."""
    score = getattr(extractor, "logits_of", None)
    return FeatureSet(
        name=name,
        n=len(features),
        gaussian=fit_gaussian(features),
        features=features,
        logits=None if score is None else score(features),
        facts=extractor_facts(extractor),
    )


def inception_distances(
    samples: Samples, recipe: Recipe, request: Request, compute: Compute, reporter: Reporter
) -> list[Measurement]:
    """Measure samples against the training split in Inception's features, or say why not.

    Raises:
        ValueError: The weights are others than the published ones, and their hash was not given.
    """
    names = request.metrics or USUAL_METRICS
    labels = ["fid" if name == "fd" else name for name in names]
    if not request.inception:
        reason = "Inception takes its time and its weights; measure with: tcvq eval RUN --weights FILE"
        return [skipped("fid", reason), skipped("kid", reason)]
    try:
        network = InceptionFeatures(request.weights, resize=request.resize, sha256=request.weights_sha256)
    except MissingWeightsError as error:
        return [skipped(label, str(error)) for label in labels]
    network.to(compute.device)
    train = open_split(recipe, "train")

    def read(size: int) -> Iterator[Tensor]:
        return (images for _, images in image_batches(train, size))

    real = _extracted(Source(name="train", n=len(train), read=read), network, request, reporter)
    fake = _extracted(tensor_source(samples.images, "samples"), network, Request(), reporter)
    return measure(
        real,
        fake,
        names,
        real_split="train",
        resamples=request.resamples,
        seed=request.seed,
        origin=origin_of(samples, recipe.eval.batch_size),
    )


def _extracted(source: Source, network: FeatureExtractor, request: Request, reporter: Reporter) -> FeatureSet:
    with reporter.task("features", source.n, "image") as task:

        def progress(done: int, _: int) -> None:
            task.update(done)

        if request.cache is not None:
            return cached_features(request.cache, source, network, progress=progress)
        return extract_features(source, network, progress=progress)


def classifier_of(
    recipe: Recipe, train: ImageSource, reporter: Reporter
) -> tuple[FashionFeatures | EventClassifier | None, str]:
    """Return the classifier in whose features samples are compared with real data, or why there is none.

    That of recordings is trained once per training split.

    Raises:
        OSError: It cannot be kept.
    """
    if recipe.vqvae.encoding != "event":
        missing = f"there is no classifier for {recipe.data.name}, in whose features images could be compared"
        return feature_extractor(recipe), missing
    if problem := no_classes(recipe, train):
        return None, problem
    return event_classifier(recipe, train, reporter), ""


def no_classes(recipe: Recipe, train: ImageSource) -> str:
    """Return why no classifier can be trained on a split, "" if one can."""
    if len(train.classes) and int(train.labels.min()) >= 0:
        return ""
    return f"{recipe.data.name} has no classes, so no classifier can be trained on it"


def event_distances(
    samples: Samples, recipe: Recipe, request: Request, classifier: EventClassifier
) -> tuple[EventEvaluation | None, str]:
    """Measure generated recordings in the suite for events, or say why not."""
    test = open_split(recipe, "test")
    fake, labels = samples.images[:MOST_EVENTS], samples.labels[:MOST_EVENTS]
    generator = torch.Generator().manual_seed(request.seed)
    rows = torch.randperm(len(test), generator=generator)[: 2 * len(fake)].sort().values
    real = read_batch(test, rows.tolist())
    peak = test.peak if isinstance(test, EventFrames) else None
    try:
        found = evaluate_events(
            fake,
            real.image,
            classifier,
            labels=labels,
            real_labels=real.label,
            peak=float(peak or 1),
            resamples=request.resamples,
            seed=request.seed,
            origin=origin_of(samples, recipe.eval.batch_size),
        )
    except ValueError as error:
        return None, str(error)
    return found, ""


def event_classifier(recipe: Recipe, train: ImageSource, reporter: Reporter) -> EventClassifier:
    """Return the classifier of a training split of recordings, trained if it was not before."""
    root = recipe.data.root
    folder = weights_folder() if root is None else Path(root).expanduser() / ".cache" / "classifiers"
    cache = getattr(getattr(train, "cache", None), "manifest", None)
    what: Mapping[str, object] = {
        "data": dataclasses.asdict(recipe.data),
        "size": recipe.vqvae.image_size,
        "arrays": {} if cache is None else cache.arrays,
    }
    key = hashlib.sha256(json.dumps(what, sort_keys=True, default=str).encode()).hexdigest()
    shape = train[0].image.shape

    def read(rows: Tensor) -> Tensor:
        return read_batch(train, rows.tolist()).image

    training = EventTraining()
    with reporter.task("ruler", training.steps, "step") as task:
        return cached_event_classifier(
            folder,
            key,
            read,
            train.labels,
            n_steps=shape[0],
            n_classes=len(train.classes),
            training=training,
            progress=lambda done, _: task.update(done),
        )
