"""The passes of an evaluation over its data: test images through the codec, training images for nearest neighbours."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from tcvq_data import ImageSource, read_batch
from tcvq_eval import (
    FeatureExtractor,
    Memorisation,
    Reconstruction,
    ReconstructionMeter,
    StepContributions,
    StepMeter,
    as_saved,
    memorisation_of,
    nearest_in_batches,
)
from tcvq_runner.batching import in_batches
from tcvq_runner.progress import Task
from tcvq_runner.wiring import Compute
from tcvq_vqvae import SpikingVQVAE

SHOWN = 16  # test images kept for pictures
STEP_IMAGES = 1000  # enough for means over steps
SEARCHED = 2000  # samples, and held-out images, whose nearest training images are searched
TRAIN_BATCH = 500


@dataclass(frozen=True, kw_only=True, slots=True)
class CodecPass:
    """What one pass of the test split through the codec gave.

    Attributes:
        x: The first test images or recordings ``(N, T, 2, H, W)``.
        x_hat: Their reconstructions.
        reconstruction: How close reconstructions are; frames of recordings count as images.
        steps: What each step of the trajectories contributes.
        real: Features of all test images; None without an extractor.
        codec: Features of all reconstructions.
    """

    x: Float[Tensor, "N *shape"]
    x_hat: Float[Tensor, "N *shape"]
    reconstruction: Reconstruction
    steps: StepContributions
    real: Float[Tensor, "M F"] | None
    codec: Float[Tensor, "M F"] | None


def item_shape(x: Tensor) -> Tensor:
    """Return decoded images with items first: recordings ``(T, B, C, H, W)`` become ``(B, T, C, H, W)``."""
    return x.transpose(0, 1) if x.ndim == 5 else x


def decode(model: SpikingVQVAE, indices: Int[Tensor, "N h w"], size: int, compute: Compute) -> Tensor:
    """Decode grids of codes in batches of one size; items first."""
    return in_batches(lambda i: item_shape(model.decode_indices(i)), indices, size, compute)


def codec_pass(
    source: ImageSource,
    indices: Int[Tensor, "N h w"],
    model: SpikingVQVAE,
    size: int,
    compute: Compute,
    *,
    extractor: FeatureExtractor | None = None,
    perceptual: Callable[[Tensor, Tensor], Tensor] | None = None,
    task: Task | None = None,
) -> CodecPass:
    """Decode the codes of a split and compare them with its images, a batch at a time.

    Args:
        source: The split.
        indices: Its codes, in its order.
        model: The codec.
        size: Images per batch.
        compute: Where to compute.
        extractor: Space in which images and reconstructions will be compared.
        perceptual: LPIPS of each pair of images, if there is one.
        task: Told the number of finished images.
    """
    meter, steps = ReconstructionMeter(perceptual), StepMeter()
    shown: list[tuple[Tensor, Tensor]] = []
    features: tuple[list[Tensor], list[Tensor]] = ([], [])
    for first, x in image_batches(source, size):
        rows = indices[first : first + len(x)]
        x_hat = decode(model, rows, size, compute)
        meter.update(_frames(x), _frames(x_hat))
        if first < STEP_IMAGES:
            _add_latents(steps, model, x, rows, compute)
        if first < SHOWN:
            shown.append((x[: SHOWN - first], x_hat[: SHOWN - first]))
        if extractor is not None:
            for kept, images in zip(features, (x, x_hat), strict=True):
                kept.append(extractor(saved_form(images)).cpu())
        if task is not None:
            task.update(first + len(x))
    real, codec = (torch.cat(each) if each else None for each in features)
    return CodecPass(
        x=torch.cat([x for x, _ in shown]),
        x_hat=torch.cat([x_hat for _, x_hat in shown]),
        reconstruction=meter.result(),
        steps=steps.result(),
        real=real,
        codec=codec,
    )


def image_batches(source: ImageSource, size: int) -> Iterator[tuple[int, Tensor]]:
    """Yield the first row and the images of each batch of a dataset, items first."""
    for first in range(0, len(source), size):
        yield first, read_batch(source, list(range(first, min(first + size, len(source))))).image


def nearest_training(
    samples: Float[Tensor, "N *shape"], test: ImageSource, train: ImageSource, task: Task | None = None
) -> tuple[Memorisation, Float[Tensor, "M *shape"]]:
    """Search the training split for the nearest image of each sample, and of as many held-out images.

    Args:
        samples: Generated images; the first ``SEARCHED`` count.
        test: The held-out split; the same.
        train: The training split, of which one batch is in memory at a time.
        task: Told the number of training images searched.

    Returns:
        The distances compared, and the nearest training image of each sample.
    """
    samples = samples[:SEARCHED]
    held_out = read_batch(test, list(range(min(len(test), SEARCHED)))).image
    queries = torch.cat([samples, saved_form(held_out)])

    def batches() -> Iterator[Tensor]:
        for first, images in image_batches(train, TRAIN_BATCH):
            yield saved_form(images)
            if task is not None:
                task.update(first + len(images))

    distances, twins, searched = nearest_in_batches(queries, batches())
    ours, theirs = distances.split([len(samples), len(held_out)])
    compared = memorisation_of(ours, theirs, values=samples[0].numel(), n_train=searched)
    return compared, twins[: len(samples)]


@torch.no_grad()
def _add_latents(meter: StepMeter, model: SpikingVQVAE, x: Tensor, indices: Tensor, compute: Compute) -> None:
    """Add the latents of some images and their entries of the codebook."""
    z = model.latents(item_shape(x).to(compute.device))
    meter.update(z, model.codebook.lookup(indices.to(compute.device)))


def _frames(x: Tensor) -> Tensor:
    """Return images, or all frames of recordings as images."""
    return x.flatten(0, 1) if x.ndim == 5 else x


def saved_form(x: Tensor) -> Tensor:
    """Clamp and round to 8 bit, as samples are stored."""
    return as_saved(_frames(x)).view_as(x)
