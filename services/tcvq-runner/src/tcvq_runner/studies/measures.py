"""What a study measures of every run: the codec on held-out data, the prior in bits, the samples in a feature space."""

import dataclasses
import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from tcvq_data import write_json
from tcvq_eval import code_usage, token_distances
from tcvq_prior import load_prior, sample_grids
from tcvq_runner.batching import in_batches
from tcvq_runner.config import Recipe
from tcvq_runner.curves import read_metrics
from tcvq_runner.progress import Reporter
from tcvq_runner.run_dir import RunFolder
from tcvq_runner.samples import read_samples
from tcvq_runner.stages import codes_of
from tcvq_runner.studies.yardstick import Pair, Yardstick, yardstick
from tcvq_runner.wiring import Compute, stage_seed
from tcvq_vqvae import load_vqvae

_VERSION = 3  # of `measures.json`: raised when what is measured changes


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
        kid: Kernel distance of generated samples, unbiased at any n.
        kid_codec: The same of reconstructions.
        kid_noise_floor: Of real against real data.
        l1: Mean absolute error of reconstructions.
        mse: Mean squared error of reconstructions.
        used: Share of codes used on held-out data.
        perplexity: exp(entropy) of their use.
        tokens: Codes per image.
        token_js: Divergence of the sampled from the real codes' histogram, in bits.
        token_js_floor: The same of real against real codes.
        bigram_js: Divergence of pairs of neighbouring codes.
        bigram_js_floor: The same of real against real codes.
        capacity: Bits that the codes of an image can hold, tokens · log2 K.
        bits_per_code: Of the prior on held-out codes.
        bits_per_image: The same times tokens.
        samples_per_second: Drawing and decoding, by the run's own draw; NaN without one.
        train_seconds: Stage 1 and stage 2.
        time: What reversing, shuffling and freezing real recordings costs in the space, in noise floors.
        samples: The suite for recordings of the samples, each value beside real against real; empty for images.
        codec: The same of reconstructions.
    """

    space: str
    n: int
    fd: float
    fd_spread: float
    fd_codec: float
    fd_noise_floor: float
    kid: float
    kid_codec: float
    kid_noise_floor: float
    l1: float
    mse: float
    used: float
    perplexity: float
    tokens: int
    token_js: float
    token_js_floor: float
    bigram_js: float
    bigram_js_floor: float
    capacity: float
    bits_per_code: float
    bits_per_image: float
    samples_per_second: float
    train_seconds: float
    time: dict[str, float] = field(default_factory=dict)
    samples: dict[str, Pair] = field(default_factory=dict)
    codec: dict[str, Pair] = field(default_factory=dict)


def batch_first(images: Tensor) -> Tensor:
    """Return decoded images with the batch as first axis, also of recordings ``(T, B, C, H, W)``."""
    return images.transpose(0, 1) if images.ndim == 5 else images


def measure_run(folder: RunFolder, recipe: Recipe, compute: Compute, reporter: Reporter) -> Measures:
    """Measure a run, or read what was measured before with the same models.

    Raises:
        RunFolderError: A file of training is missing.
        ArtifactError: One is damaged, or they do not belong together.
        OSError: A file cannot be written.
    """
    loaded, path = load_vqvae(folder.need(folder.vqvae)), folder.path / "measures.json"
    key = {"version": _VERSION, "vqvae": loaded.sha256, "prior": load_prior(folder.need(folder.prior)).sha256}
    known = _read(path)
    if {name: known.get(name) for name in key} == key:
        return Measures(**_nans(known["measures"]))
    indices, asked = drawn_indices(folder, recipe, compute, recipe.sample.n)
    model, size = loaded.model.to(compute.device), recipe.eval.batch_size

    def decode(i: Tensor) -> Tensor:
        return batch_first(model.decode_indices(i))

    samples = in_batches(decode, indices, size, compute)
    codes, ruler = codes_of(folder, "test", loaded.sha256), yardstick(recipe, len(indices), reporter)
    x_hat = in_batches(decode, codes.indices.long(), size, compute)
    usage, tokens = code_usage(codes.indices, codes.n_embed), codes.indices[0].numel()
    drawn = token_distances(codes.indices, indices, codes.n_embed)
    bits = [value for _, _, metric, value in read_metrics(folder.metrics) if metric == "val/bits"]
    steps = folder.steps()
    measures = Measures(
        **_distances(ruler, samples, asked, x_hat),
        l1=(x_hat - ruler.x).abs().mean().item(),
        mse=(x_hat - ruler.x).square().mean().item(),
        used=usage.used_fraction,
        perplexity=usage.perplexity,
        tokens=tokens,
        token_js=drawn.histogram,
        token_js_floor=drawn.histogram_floor,
        bigram_js=drawn.bigram,
        bigram_js_floor=drawn.bigram_floor,
        capacity=tokens * math.log2(codes.n_embed),
        bits_per_code=bits[-1] if bits else math.nan,
        bits_per_image=tokens * (bits[-1] if bits else math.nan),
        samples_per_second=float(steps.get("sample", {}).get("samples_per_second", math.nan)),
        train_seconds=sum(float(steps[step]["seconds"]) for step in ("stage1", "stage2") if step in steps),
    )
    write_json(path, {**key, "measures": _nulls(dataclasses.asdict(measures))})
    return measures


def drawn_indices(
    folder: RunFolder, recipe: Recipe, compute: Compute, n: int
) -> tuple[Int[Tensor, "n h w"], Int[Tensor, " n"]]:
    """Return index maps of a run's own draw, or draw them, and the classes that were asked for, -1 without classes."""
    prior = load_prior(folder.need(folder.prior))
    if folder.samples.is_file():
        samples = read_samples(folder.samples)
        if samples.prior_sha256 == prior.sha256 and len(samples.indices) >= n:
            return samples.indices[:n], samples.labels[:n]
    classes, chosen = prior.model.n_classes, recipe.sample
    labels = torch.arange(n) % classes if classes else None
    drawn = sample_grids(
        prior.model.to(compute.device),
        n,
        labels=labels,
        temperature=chosen.temperature,
        top_k=chosen.top_k,
        top_p=chosen.top_p,
        seed=stage_seed(recipe.seed, "sample"),
        micro_batch=chosen.micro_batch,
    )
    return drawn.cpu(), torch.full((n,), -1) if labels is None else labels


def _distances(ruler: Yardstick, samples: Tensor, asked: Tensor, x_hat: Tensor) -> dict[str, Any]:
    """Return distances of samples and of reconstructions, each of n against the same n real ones."""
    samples, codec = samples[: ruler.n], x_hat[ruler.second]
    return {
        "space": ruler.space,
        "n": ruler.n,
        "fd": ruler.distance(samples),
        "fd_spread": ruler.spread(samples),
        "fd_codec": ruler.distance(codec),
        "fd_noise_floor": ruler.floor,
        "kid": ruler.kernel(samples),
        "kid_codec": ruler.kernel(codec),
        "kid_noise_floor": ruler.kernel_floor,
        "time": ruler.time(),
        "samples": ruler.suite(samples, asked),
        "codec": ruler.suite(codec, ruler.labels[ruler.second], ruler.first),
    }


def _nulls(value: Any) -> Any:
    """Return numbers with null for NaN, which JSON does not have."""
    if isinstance(value, dict):
        return {name: _nulls(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_nulls(each) for each in value]
    return None if isinstance(value, float) and math.isnan(value) else value


def _nans(value: Any) -> Any:
    """Return numbers with NaN for null."""
    if isinstance(value, dict):
        return {name: _nans(each) for name, each in value.items()}
    if isinstance(value, list):
        return [_nans(each) for each in value]
    return math.nan if value is None else value


def _read(path: Path) -> dict[str, Any]:
    try:
        tree: dict[str, Any] = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return tree
