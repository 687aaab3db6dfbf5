"""The last step of a run: measure reconstructions, codes and samples, and write the report."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from tcvq_data import ArtifactError, sha256_file, write_bytes
from tcvq_eval import (
    USUAL_METRICS,
    CodeUsage,
    EventClassifier,
    EventEvaluation,
    FashionFeatures,
    Measurement,
    Memorisation,
    Reconstruction,
    SampleEvaluation,
    StepContributions,
    TokenDistances,
    class_agreement,
    code_usage,
    event_strips,
    fidelity_of_features,
    halves,
    reconstruction_grid,
    token_distances,
    write_report,
)
from tcvq_eval import measure as measure_sets
from tcvq_runner.config import Recipe
from tcvq_runner.distances import (
    Request,
    classifier_of,
    event_distances,
    inception_distances,
    known_features,
    origin_of,
    perceptual_of,
)
from tcvq_runner.layers import ConfigError
from tcvq_runner.networks import look_into
from tcvq_runner.passes import CodecPass, codec_pass, nearest_training, saved_form
from tcvq_runner.progress import Reporter
from tcvq_runner.report import compose
from tcvq_runner.run_dir import RunFolder
from tcvq_runner.samples import Samples, read_samples
from tcvq_runner.stages import codes_of
from tcvq_runner.wiring import Compute, open_split
from tcvq_vqvae import load_vqvae

_SMALLEST_LPIPS = 16  # pixels: VGG16 halves an image four times
MIN_IMAGES = 8  # on each side: below this, nearest neighbours and covariances mean nothing


@dataclass(frozen=True, kw_only=True, slots=True)
class Findings:
    """What was measured of a run.

    Attributes:
        x: The first test images, or recordings ``(N, T, 2, H, W)``.
        x_hat: Their reconstructions.
        train: The nearest training image of each sample.
        samples: Generated images.
        reconstruction: How close reconstructions are, over the whole test split.
        usage: Use of the codebook by the test images.
        tokens: How far the sampled grids of codes are from those of the test images.
        steps: What each step of the trajectories contributes.
        fidelity: Distance of the samples from the test images in the features of a classifier; None if there is none.
        skipped: Why not, then.
        distances: The same by further measures, in these features and in Inception's.
        events: The suite for recordings; None for images.
        events_skipped: Why recordings could not be measured; empty if they could.
        memorisation: Distance of the samples to the training set.
    """

    x: Float[Tensor, "N *shape"]
    x_hat: Float[Tensor, "N *shape"]
    train: Float[Tensor, "M *shape"]
    samples: Samples
    reconstruction: Reconstruction
    usage: CodeUsage
    tokens: TokenDistances | None
    steps: StepContributions
    fidelity: SampleEvaluation | None
    skipped: str
    distances: tuple[Measurement, ...]
    events: EventEvaluation | None
    events_skipped: str
    memorisation: Memorisation


def evaluate(
    folder: RunFolder, recipe: Recipe, compute: Compute, reporter: Reporter, request: Request | None = None
) -> None:
    """Measure the run and write ``report.json``, ``report.html`` and ``reconstructions.png``.

    Args:
        folder: The run.
        recipe: What was run.
        compute: Where to compute.
        reporter: Shows the progress.
        request: What to measure beyond what every run measures.

    Raises:
        RunFolderError: A file of an earlier step is missing.
        ArtifactError: One is damaged, or they do not belong together.
        ConfigError: Weights that the request names are missing or others.
        OSError: A file cannot be written.
    """
    with folder.step("eval"):
        found = measure(folder, recipe, compute, reporter, request or Request())
        networks = look_into(folder, recipe, compute)
        pairs = _pairs(found)
        write_bytes(folder.reconstructions_png, pairs)
    write_report(folder.path, compose(folder, recipe, found, pairs, networks))


def _check_lpips(recipe: Recipe) -> None:
    config = recipe.vqvae
    if config.encoding == "event":
        raise ConfigError("--lpips compares images, and this run made recordings; leave it out")
    if config.in_channels not in (1, 3) or config.image_size < _SMALLEST_LPIPS:
        raise ConfigError(
            f"--lpips compares grey or colour images of at least {_SMALLEST_LPIPS} pixels; this run made "
            f"{config.in_channels} channels of {config.image_size}: leave it out"
        )


def measure(
    folder: RunFolder, recipe: Recipe, compute: Compute, reporter: Reporter, request: Request | None = None
) -> Findings:
    """Read what the earlier steps made, check that it belongs together, and compare it with the test split.

    Splits are read a batch at a time; of them only features and the images to show are kept.

    Raises:
        RunFolderError: A file of an earlier step is missing.
        ArtifactError: One is damaged, or they do not belong together.
    """
    vqvae, request = load_vqvae(folder.need(folder.vqvae)), request or Request()
    if request.lpips is not None:
        _check_lpips(recipe)
    perceptual = perceptual_of(request, compute)
    codes = codes_of(folder, "test", vqvae.sha256)
    samples = read_samples(folder.need(folder.samples))
    _check_origin(folder, samples, vqvae.sha256)
    test, train = open_split(recipe, "test"), open_split(recipe, "train")
    if len(test) != len(codes.indices):
        raise ArtifactError(
            f"{folder.codes('test')} holds {len(codes.indices)} grids but the recipe's test split has {len(test)} "
            f"images; encode again with: tcvq encode {folder.path}"
        )
    (extractor, missing), model = classifier_of(recipe, train, reporter), vqvae.model.to(compute.device)
    with reporter.task("eval", len(test), "image") as task:
        passed = codec_pass(
            test,
            codes.indices.long(),
            model,
            recipe.eval.batch_size,
            compute,
            extractor=extractor,
            perceptual=perceptual if recipe.vqvae.encoding != "event" else None,
            task=task,
        )
    with reporter.task("nearest", len(train), "image") as task:
        memory, twins = nearest_training(samples.images, test, train, task)
    fidelity, skipped, distances = None, missing, list[Measurement]()
    if extractor is not None:
        fidelity, skipped, distances = _fidelity(
            recipe, samples, test.labels, passed=passed, extractor=extractor, memory=memory, request=request
        )
    if samples.images.ndim == 4:
        distances += inception_distances(samples, recipe, request, compute, reporter)
    events, reason = None, missing
    if isinstance(extractor, EventClassifier):
        events, reason = event_distances(samples, recipe, request, extractor)
    return Findings(
        x=passed.x,
        x_hat=passed.x_hat,
        train=twins,
        samples=samples,
        reconstruction=passed.reconstruction,
        usage=code_usage(codes.indices, codes.n_embed),
        tokens=None if len(codes.indices) < 2 else token_distances(codes.indices, samples.indices, codes.n_embed),
        steps=passed.steps,
        fidelity=fidelity,
        skipped=skipped,
        distances=tuple(distances),
        events=events,
        events_skipped=reason,
        memorisation=memory,
    )


def _fidelity(
    recipe: Recipe,
    samples: Samples,
    labels: Tensor,
    *,
    passed: CodecPass,
    extractor: FashionFeatures | EventClassifier,
    memory: Memorisation,
    request: Request,
) -> tuple[SampleEvaluation | None, str, list[Measurement]]:
    """Compare the samples with the test images in the features of a classifier, or say why not."""
    assert passed.real is not None
    assert passed.codec is not None
    n, real = min(len(samples.images), len(passed.real) // 2), passed.real
    if n < MIN_IMAGES:
        return None, f"{len(samples.images)} samples and {len(real)} test images are too few to compare", []
    fake = extractor(saved_form(samples.images))
    _, others = halves(len(real), n)  # never an image against itself
    agreement = None
    if bool((samples.labels >= 0).all()):
        right = (extractor.logits_of(real).argmax(dim=1) == labels).double().mean().item()
        predicted = extractor.logits_of(fake).argmax(dim=1)
        agreement = class_agreement(predicted, samples.labels, extractor.n_classes, right)
    sets = known_features(real, "test", extractor), known_features(fake, "samples", extractor)
    origin = origin_of(samples, recipe.eval.batch_size)
    further: list[Measurement] = []
    if isinstance(extractor, FashionFeatures):  # recordings have a suite of their own
        further = measure_sets(*sets, USUAL_METRICS, resamples=request.resamples, seed=request.seed, origin=origin)
    evaluation = SampleEvaluation(
        n=len(samples.images),
        fidelity=fidelity_of_features(fake, real, extractor),
        codec=fidelity_of_features(passed.codec[others], real, extractor),
        agreement=agreement,
        memorisation=memory,
    )
    return evaluation, "", further


def _pairs(found: Findings) -> bytes:
    """Return a PNG of test images above their reconstructions, or of recordings, each above its reconstruction."""
    if found.x.ndim == 4:
        return reconstruction_grid(found.x, found.x_hat)
    both = torch.stack([found.x[:8], found.x_hat[:8].clamp(-1, 1)], dim=1).flatten(0, 1)
    return event_strips((both + 1) / 2, row_labels=["real", "codec"] * (len(both) // 2))


def _check_origin(folder: RunFolder, samples: Samples, vqvae_sha256: str) -> None:
    """Raise `ArtifactError` if the samples came from other models than the run's."""
    prior = folder.need(folder.prior)
    for path, theirs, ours in (
        (folder.vqvae, samples.vqvae_sha256, vqvae_sha256),
        (prior, samples.prior_sha256, sha256_file(prior)),
    ):
        if theirs != ours:
            raise ArtifactError(
                f"{folder.samples} was not made with {path} (it names {theirs[:12]}, the file is {ours[:12]}); "
                f"draw again with: tcvq sample {folder.path}"
            )
