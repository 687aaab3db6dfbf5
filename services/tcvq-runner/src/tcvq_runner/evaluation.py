"""The last step of a run: measure reconstructions, codes and samples, and write the report."""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from tcvq_data import ArtifactError, sha256_file, write_bytes
from tcvq_eval import (
    CodeUsage,
    Reconstruction,
    SampleEvaluation,
    code_usage,
    evaluate_reconstruction,
    evaluate_samples,
    reconstruction_grid,
    write_report,
)
from tcvq_runner.batching import in_batches, tensors
from tcvq_runner.config import Recipe
from tcvq_runner.networks import look_into
from tcvq_runner.progress import Reporter
from tcvq_runner.report import compose
from tcvq_runner.run_dir import RunFolder
from tcvq_runner.samples import Samples, read_samples
from tcvq_runner.stages import codes_of
from tcvq_runner.wiring import Compute, feature_extractor, open_split
from tcvq_vqvae import load_vqvae

MIN_IMAGES = 8  # on each side: below this, nearest neighbours and covariances mean nothing


@dataclass(frozen=True, kw_only=True, slots=True)
class Findings:
    """What was measured of a run.

    Attributes:
        x: Test images.
        x_hat: Their reconstructions.
        train: Training images.
        samples: Generated images.
        reconstruction: How close ``x_hat`` is to ``x``.
        usage: Use of the codebook by the test images.
        fidelity: Distance of the samples from the test images; None where it cannot be measured.
        skipped: Why not, then.
    """

    x: Float[Tensor, "N C H W"]
    x_hat: Float[Tensor, "N C H W"]
    train: Float[Tensor, "M C H W"]
    samples: Samples
    reconstruction: Reconstruction
    usage: CodeUsage
    fidelity: SampleEvaluation | None
    skipped: str


def evaluate(folder: RunFolder, recipe: Recipe, compute: Compute, reporter: Reporter) -> None:
    """Measure the run and write ``report.json``, ``report.html`` and ``reconstructions.png``.

    Raises:
        RunFolderError: A file of an earlier step is missing.
        ArtifactError: One is damaged, or they do not belong together.
        OSError: A file cannot be written.
    """
    with folder.step("eval"):
        found = measure(folder, recipe, compute, reporter)
        networks = look_into(folder, recipe, compute)
        pairs = reconstruction_grid(found.x[:16], found.x_hat[:16])
        write_bytes(folder.reconstructions_png, pairs)
    write_report(folder.path, compose(folder, recipe, found, pairs, networks))


def measure(folder: RunFolder, recipe: Recipe, compute: Compute, reporter: Reporter) -> Findings:
    """Read what the earlier steps made, check that it belongs together, and compare it with the test images."""
    vqvae = load_vqvae(folder.need(folder.vqvae))
    codes = codes_of(folder, "test", vqvae.sha256)
    samples = read_samples(folder.need(folder.samples))
    _check_origin(folder, samples, vqvae.sha256)
    x, labels = tensors(open_split(recipe, "test"))
    train = tensors(open_split(recipe, "train"))[0]
    if len(x) != len(codes.indices):
        raise ArtifactError(
            f"{folder.codes('test')} holds {len(codes.indices)} grids but the recipe's test split has {len(x)} images; "
            f"encode again with: tcvq encode {folder.path}"
        )
    with reporter.task("eval", len(x), "image") as task:
        decode = vqvae.model.to(compute.device).decode_indices
        x_hat = in_batches(decode, codes.indices, recipe.eval.batch_size, compute, task=task)
        fidelity, skipped = _fidelity(recipe, samples, (x, labels), x_hat, train)
    return Findings(
        x=x,
        x_hat=x_hat,
        train=train,
        samples=samples,
        reconstruction=evaluate_reconstruction(x, x_hat),
        usage=code_usage(codes.indices, codes.n_embed),
        fidelity=fidelity,
        skipped=skipped,
    )


def _fidelity(
    recipe: Recipe, samples: Samples, test: tuple[Tensor, Tensor], x_hat: Tensor, train: Tensor
) -> tuple[SampleEvaluation | None, str]:
    """Compare the samples with the test images, or say why not."""
    x, labels = test
    extractor = feature_extractor(recipe)
    if extractor is None:
        return None, f"there is no classifier for {recipe.data.name}, in whose features images could be compared"
    if min(len(samples.images), len(x) // 2) < MIN_IMAGES:
        return None, f"{len(samples.images)} samples and {len(x)} test images are too few to compare"
    evaluation = evaluate_samples(
        samples.images,
        samples.labels,
        x,
        extractor,
        real_labels=labels,
        train=train,
        reconstructions=x_hat,
    )
    return evaluation, ""


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
