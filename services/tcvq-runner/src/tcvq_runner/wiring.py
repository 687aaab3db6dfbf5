"""From the strings and numbers of a recipe and of the command line to objects."""

import hashlib
import importlib.metadata
import os
import platform
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch

from tcvq_data import ArtifactError, DataOptions, EventOptions, ImageSource, is_event_dataset, open_dataset
from tcvq_eval import FashionFeatures
from tcvq_runner.config import Recipe
from tcvq_runner.distributed import place_of, process_rank
from tcvq_runner.progress import Reporter, announced
from tcvq_runner.recipe import ConfigError

if TYPE_CHECKING:
    from tcvq_data import ImageDataModule

Precision = Literal["32-true", "bf16-mixed", "64-true"]
DISTRIBUTIONS = ("tcvq-neurons", "tcvq-codebook", "tcvq-data", "tcvq-vqvae", "tcvq-prior", "tcvq-eval", "tcvq-runner")


@dataclass(frozen=True, kw_only=True, slots=True)
class Compute:
    """What a run computes with.

    Attributes:
        device: Where tensors live.
        precision: Of training, in Lightning's terms; encoding, sampling and evaluation always use float32, so that
            the same files always give the same codes and images.
        threads: CPU threads per operation.
        strategy: How several processes train one model: ``ddp`` or ``fsdp``.
        profile: Whether a few steps of each training are profiled.
    """

    device: torch.device
    precision: Precision
    threads: int
    strategy: Literal["ddp", "fsdp"] = "ddp"
    profile: bool = False


def open_compute(
    device: str = "auto",
    precision: str = "auto",
    threads: int | None = None,
    strategy: str = "auto",
    profile: bool = False,
) -> Compute:
    """Choose device, precision and number of threads, and set the latter for the process.

    Args:
        device: ``auto``, ``cpu`` or ``cuda``.
        precision: ``auto``, ``32``, ``bf16`` or ``64``; auto takes bf16 where the hardware computes in it.
        threads: At least 1; None keeps torch's choice, and shares the CPUs among the processes on this machine.
        strategy: ``auto``, ``ddp`` or ``fsdp``.
        profile: Profile a few steps of each training.

    Raises:
        ConfigError: There is no such device here.
    """
    if device == "cuda" and not torch.cuda.is_available():
        raise ConfigError("--device cuda: torch sees no CUDA device here; use --device cpu, or ask `tcvq doctor`")
    chosen = torch.device("cuda" if device == "cuda" or (device == "auto" and torch.cuda.is_available()) else "cpu")
    bf16 = precision == "bf16" or (precision == "auto" and has_bf16(chosen))
    place = place_of(os.environ)
    if place is not None and threads is None:
        threads = max(1, torch.get_num_threads() // place.local_size)
    if place is not None and chosen.type == "cuda":
        chosen = torch.device("cuda", place.local_rank)
    if threads is not None:
        torch.set_num_threads(threads)
    if strategy == "fsdp" and chosen.type != "cuda":
        raise ConfigError("--strategy fsdp needs CUDA devices; use --strategy ddp")
    return Compute(
        device=chosen,
        precision="64-true" if precision == "64" else "bf16-mixed" if bf16 else "32-true",
        threads=torch.get_num_threads(),
        strategy="fsdp" if strategy == "fsdp" else "ddp",
        profile=profile,
    )


def has_bf16(device: torch.device) -> bool:
    """Return whether the device multiplies bfloat16 matrices in hardware, so that bf16 is faster than float32."""
    if device.type == "cuda":
        return torch.cuda.is_available() and torch.cuda.is_bf16_supported(including_emulation=False)
    probes: list[Callable[[], bool] | None] = [
        getattr(torch.cpu, name, None)  # private names of torch: their absence means "do not know", hence float32
        for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    ]
    return any(probe is not None and probe() for probe in probes)


def stage_seed(seed: int, stage: str) -> int:
    """Return the seed of one stage: distinct for each, so that a stage alone repeats what it does in a whole run."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{stage}".encode()).digest()[:4], "big")


def check_data(recipe: Recipe, reporter: Reporter | None = None) -> None:
    """Check that a recipe's models and batches fit its images, before anything starts.

    Args:
        recipe: The recipe.
        reporter: Shows the building of caches, which happens here.

    Raises:
        ConfigError: Dataset, image size, channels or number of classes do not fit together.
    """
    if reporter is not None:
        with announced(reporter, "recording") as progress:
            for split in ("train", "test"):
                open_split(recipe, split, partial(progress, f"{split} cache"))
    source = open_split(recipe, "train")
    shape, vqvae = tuple(source[0].image.shape), recipe.vqvae
    wanted = (vqvae.in_channels, vqvae.image_size, vqvae.image_size)
    if shape[-3:] != wanted:
        raise ConfigError(
            f"data.name={recipe.data.name} has images {shape[-3:]} (channels, height, width) but vqvae.in_channels and "
            f"vqvae.image_size say {wanted}; set vqvae.in_channels={shape[-3]} vqvae.image_size={shape[-1]}"
        )
    events = len(shape) == 4
    if events != (vqvae.encoding == "event"):
        kind, encoding = ("recordings", "event") if events else ("still images", "direct")
        raise ConfigError(
            f"data.name={recipe.data.name} has {kind} but vqvae.encoding is {vqvae.encoding}; set "
            f"vqvae.encoding={encoding}"
        )
    if recipe.prior.n_classes not in (0, len(source.classes)):
        raise ConfigError(
            f"prior.n_classes is {recipe.prior.n_classes} but data.name={recipe.data.name} has "
            f"{len(source.classes)} classes; use {len(source.classes)}, or 0 for a prior without classes"
        )
    share_of_batch(recipe, "stage1")
    share_of_batch(recipe, "stage2")
    n_images = len(source)
    for section, batch_size in (("stage1", recipe.stage1.batch_size), ("stage2", recipe.stage2.batch_size)):
        if batch_size > n_images:
            raise ConfigError(f"{section}.batch_size is {batch_size} but there are {n_images} images (data.limit)")


def share_of_batch(recipe: Recipe, stage: Literal["stage1", "stage2"]) -> int:
    """Return how many samples one process takes at a time, so that all together take the recipe's batch.

    Raises:
        ConfigError: The batch does not divide over so many processes and accumulated batches.
    """
    config, n_processes = getattr(recipe, stage), process_rank()[1]
    parts = n_processes * config.accumulate
    if config.batch_size % parts:
        raise ConfigError(
            f"{stage}.batch_size is {config.batch_size}, which cannot be shared by {n_processes} processes x "
            f"{stage}.accumulate={config.accumulate}; use a multiple of {parts}"
        )
    return int(config.batch_size // parts)


def image_data(recipe: Recipe) -> "ImageDataModule":
    """Return the images of a recipe in the batches of stage 1.

    Raises:
        ConfigError: As ``check_data``.
    """
    from tcvq_data import ImageDataModule  # Lightning takes seconds to import; other steps do without

    check_data(recipe)
    data = recipe.data
    return ImageDataModule(
        data.name,
        share_of_batch(recipe, "stage1"),
        seed=stage_seed(recipe.seed, "stage1"),
        options=data_options(recipe),
        hflip=data.hflip,
        workers=data.workers,
    )


def open_split(recipe: Recipe, split: str, progress: Callable[[int, int], None] | None = None) -> ImageSource:
    """Return one split of the recipe's dataset, in its fixed order.

    Args:
        recipe: The recipe.
        split: ``train`` or ``test``.
        progress: Called with the number of recordings done and of all while a cache is built.

    Raises:
        ConfigError: There is no such dataset.
        ArtifactError: Its files are missing or damaged.
    """
    try:
        return open_dataset(recipe.data.name, split, data_options(recipe), progress=progress)
    except ArtifactError:
        raise
    except ValueError as error:
        raise ConfigError(f"data.name: {error}") from error


def data_options(recipe: Recipe) -> DataOptions:
    """Return how the recipe's dataset is read: as ``data`` says, in the form that ``vqvae`` takes."""
    data, vqvae = recipe.data, recipe.vqvae
    return DataOptions(
        root=None if data.root is None else Path(data.root).expanduser(),
        limit=data.limit,
        size=vqvae.image_size,
        channels=vqvae.in_channels if vqvae.in_channels in (1, 3) and not is_event_dataset(data.name) else None,
        seed=data.seed,
        events=EventOptions(
            n_steps=vqvae.n_steps,
            rule=data.bin_rule,
            denoise_us=data.denoise_us,
            stabilise=data.stabilise,
            resize=data.resize,
            scale=data.scale,
        ),
    )


def feature_extractor(recipe: Recipe) -> FashionFeatures | None:
    """Return the network in whose features samples of this dataset are compared, None if there is none."""
    garments = recipe.data.name in ("fashion-mini", "fashion-mnist")
    return FashionFeatures() if garments and recipe.vqvae.image_size == 28 else None


def environment(compute: Compute) -> dict[str, Any]:
    """Return what a later reader needs to repeat a run: versions, machine, command line, git revision."""
    names = (*DISTRIBUTIONS, "torch", "lightning", "numpy")
    return {
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": sys.argv,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "versions": {name: importlib.metadata.version(name) for name in names},
        "device": str(compute.device),
        "precision": compute.precision,
        "threads": compute.threads,
        "processes": process_rank()[1],
        "git": _git("rev-parse", "HEAD"),
        "git_dirty": bool(_git("status", "--porcelain", "--untracked-files=no")),
    }


def _git(*arguments: str) -> str | None:
    """Return what git says about the checkout this file lies in, None outside of one."""
    command = ["git", "-C", str(Path(__file__).parent), *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
