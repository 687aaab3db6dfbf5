"""What a study measures of every run: the codec on held-out data, the prior in bits, the samples in a feature space."""

import dataclasses
import json
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from tcvq_data import write_json
from tcvq_eval import FashionFeatures, as_saved, code_usage, frechet_distance
from tcvq_prior import load_prior, sample_grids
from tcvq_runner.batching import in_batches, tensors
from tcvq_runner.config import Recipe
from tcvq_runner.curves import read_metrics
from tcvq_runner.run_dir import RunFolder
from tcvq_runner.samples import read_samples
from tcvq_runner.stages import codes_of
from tcvq_runner.wiring import Compute, open_split, stage_seed
from tcvq_vqvae import load_vqvae

Features = Callable[[Tensor], Float[Tensor, "N F"]]
_RESAMPLES = 20
_POOL = 4  # regions per side in which events are counted


@dataclass(frozen=True, kw_only=True, slots=True)
class Measures:
    """Numbers of one run.

    Attributes:
        space: Feature space of the distances.
        n: Samples and real images on each side of a distance.
        fd: Fréchet distance of generated samples.
        fd_spread: Its standard deviation over resampled samples.
        fd_codec: The same of reconstructions of held-out data, the best a prior can reach.
        fd_noise_floor: Of real against real data.
        fd_reversed: Of real data with time reversed, to tell whether the space sees time; None for still images.
        l1: Mean absolute error of reconstructions.
        mse: Mean squared error of reconstructions.
        used: Share of codes used on held-out data.
        perplexity: exp(entropy) of their use.
        tokens: Codes per image.
        capacity: Bits that the codes of an image can hold, tokens · log2 K.
        bits_per_code: Of the prior on held-out codes.
        bits_per_image: The same times tokens.
        samples_per_second: Drawing and decoding.
        train_seconds: Stage 1 and stage 2.
    """

    space: str
    n: int
    fd: float
    fd_spread: float
    fd_codec: float
    fd_noise_floor: float
    fd_reversed: float | None
    l1: float
    mse: float
    used: float
    perplexity: float
    tokens: int
    capacity: float
    bits_per_code: float
    bits_per_image: float
    samples_per_second: float
    train_seconds: float


def pooled_counts(x: Float[Tensor, "N T C H W"]) -> Float[Tensor, "N F"]:
    """Return the mean of every step and polarity in 4 x 4 regions: a space that sees where and when events fall."""
    return F.adaptive_avg_pool2d(x.flatten(1, 2).float(), _POOL).flatten(1)


def pooled_pixels(x: Float[Tensor, "N C H W"]) -> Float[Tensor, "N F"]:
    """Return the means of 8 x 8 regions: a crude space for images for which there is no classifier."""
    return F.adaptive_avg_pool2d(x.float(), 2 * _POOL).flatten(1)


def feature_space(recipe: Recipe) -> tuple[str, Features]:
    """Return the name and function of the space in which samples are compared; it needs no download."""
    if recipe.vqvae.encoding == "event":
        return f"pooled counts {_POOL}x{_POOL}", pooled_counts
    if recipe.data.name in ("fashion-mini", "fashion-mnist") and recipe.vqvae.image_size == 28:
        return "fd_fashion", FashionFeatures()
    return f"pooled pixels {2 * _POOL}x{2 * _POOL}", pooled_pixels


def batch_first(images: Tensor) -> Tensor:
    """Return decoded images with the batch as first axis, also of recordings ``(T, B, C, H, W)``."""
    return images.transpose(0, 1) if images.ndim == 5 else images


def measure_run(folder: RunFolder, recipe: Recipe, compute: Compute) -> Measures:
    """Measure a run, or read what was measured before with the same models.

    Raises:
        RunFolderError: A file of training is missing.
        ArtifactError: One is damaged, or they do not belong together.
    """
    loaded, path = load_vqvae(folder.need(folder.vqvae)), folder.path / "measures.json"
    known = _read(path)
    if known.get("vqvae") == loaded.sha256 and known.get("prior") == load_prior(folder.need(folder.prior)).sha256:
        return Measures(**known["measures"])
    started = time.monotonic()
    indices, prior = drawn_indices(folder, recipe, compute, recipe.sample.n)
    model, size = loaded.model.to(compute.device), recipe.eval.batch_size

    def decode(i: Tensor) -> Tensor:
        return batch_first(model.decode_indices(i))

    samples = in_batches(decode, indices, size, compute)
    seconds = time.monotonic() - started
    codes = codes_of(folder, "test", loaded.sha256)
    x, x_hat = tensors(open_split(recipe, "test"))[0], in_batches(decode, codes.indices.long(), size, compute)
    usage, tokens = code_usage(codes.indices, codes.n_embed), codes.indices[0].numel()
    bits = [value for _, _, metric, value in read_metrics(folder.metrics) if metric == "val/bits"]
    steps = folder.steps()
    measures = Measures(
        **_distances(recipe, samples, x_hat, x),
        l1=(x_hat - x).abs().mean().item(),
        mse=(x_hat - x).square().mean().item(),
        used=usage.used_fraction,
        perplexity=usage.perplexity,
        tokens=tokens,
        capacity=tokens * math.log2(codes.n_embed),
        bits_per_code=bits[-1] if bits else math.nan,
        bits_per_image=tokens * (bits[-1] if bits else math.nan),
        samples_per_second=len(samples) / seconds,
        train_seconds=sum(float(steps[step]["seconds"]) for step in ("stage1", "stage2") if step in steps),
    )
    write_json(path, {"vqvae": loaded.sha256, "prior": prior, "measures": dataclasses.asdict(measures)})
    return measures


def drawn_indices(folder: RunFolder, recipe: Recipe, compute: Compute, n: int) -> tuple[Int[Tensor, "n h w"], str]:
    """Return index maps of a run's own draw, or draw them, and the hash of the prior."""
    prior = load_prior(folder.need(folder.prior))
    if folder.samples.is_file():
        samples = read_samples(folder.samples)
        if samples.prior_sha256 == prior.sha256 and len(samples.indices) >= n:
            return samples.indices[:n], prior.sha256
    classes, chosen = prior.model.n_classes, recipe.sample
    drawn = sample_grids(
        prior.model.to(compute.device),
        n,
        labels=torch.arange(n) % classes if classes else None,
        temperature=chosen.temperature,
        top_k=chosen.top_k,
        top_p=chosen.top_p,
        seed=stage_seed(recipe.seed, "sample"),
        micro_batch=chosen.micro_batch,
    )
    return drawn.cpu(), prior.sha256


@dataclass(frozen=True, slots=True)
class Yardstick:
    """Fréchet distances to the same n real images in one feature space.

    Attributes:
        space: Name of the space.
        features: Maps images to features.
        real: Features of the n real images that everything is compared with.
        others: n other real images, for the noise floor.
    """

    space: str
    features: Features
    real: Float[Tensor, "n F"]
    others: Tensor

    def distance(self, images: Tensor) -> float:
        """Return the distance of n images, clamped and rounded as a file of 8 bits would."""
        return frechet_distance(self.real, self.features(_saved(images)))

    def spread(self, images: Tensor) -> float:
        """Return the standard deviation of the distance over resampled images."""
        fake, generator = self.features(_saved(images)), torch.Generator().manual_seed(0)
        rows = [torch.randint(len(fake), (len(fake),), generator=generator) for _ in range(_RESAMPLES)]
        return torch.tensor([frechet_distance(self.real, fake[row]) for row in rows]).std().item()

    def noise_floor(self) -> float:
        """Return the distance of real to real images."""
        return self.distance(self.others)


def yardstick(recipe: Recipe, x: Tensor, n: int) -> Yardstick:
    """Divide real images at random into n that are compared with and n others."""
    space, features = feature_space(recipe)
    first, second = split_rows(len(x), n)
    return Yardstick(space, features, features(_saved(x[first])), x[second])


def split_rows(total: int, n: int) -> tuple[Int[Tensor, " n"], Int[Tensor, " n"]]:
    """Return two disjoint random sets of n rows, the same in every study."""
    first, second, _ = torch.randperm(total, generator=torch.Generator().manual_seed(0)).tensor_split([n, 2 * n])
    return first, second


def _distances(recipe: Recipe, samples: Tensor, x_hat: Tensor, x: Tensor) -> dict[str, Any]:
    """Return distances of samples and of reconstructions, each of n against the same n real ones."""
    n = min(len(samples), len(x) // 2)
    ruler, samples = yardstick(recipe, x, n), samples[:n]
    return {
        "space": ruler.space,
        "n": n,
        "fd": ruler.distance(samples),
        "fd_spread": ruler.spread(samples),
        "fd_codec": ruler.distance(x_hat[split_rows(len(x), n)[1]]),
        "fd_noise_floor": ruler.noise_floor(),
        "fd_reversed": ruler.distance(ruler.others.flip(1)) if x.ndim == 5 else None,
    }


def _saved(x: Tensor) -> Tensor:
    """Clamp to [-1, 1] and round as a file of 8 bits would."""
    return as_saved(x.flatten(0, 1)).view_as(x) if x.ndim == 5 else as_saved(x)


def _read(path: Path) -> dict[str, Any]:
    try:
        tree: dict[str, Any] = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return tree
