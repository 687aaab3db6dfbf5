"""The fourth step of a run: draw grids of codes from the prior and decode them to images."""

import dataclasses
import time
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from tcvq_data import ArtifactError, write_bytes
from tcvq_eval import class_grid, image_grid
from tcvq_prior import LoadedPrior, load_prior, sample_grids
from tcvq_runner.batching import in_batches
from tcvq_runner.config import Recipe
from tcvq_runner.progress import Reporter
from tcvq_runner.recipe import ConfigError
from tcvq_runner.run_dir import RunFolder
from tcvq_runner.samples import Samples, write_samples
from tcvq_runner.wiring import Compute, stage_seed
from tcvq_vqvae import load_vqvae

GRID_ROWS = 8  # samples per class on the sheet; rows and columns of a sheet without classes


def sample(
    folder: RunFolder,
    recipe: Recipe,
    compute: Compute,
    reporter: Reporter,
    *,
    classes: Sequence[str] = (),
    out: Path | None = None,
) -> None:
    """Draw grids from the prior, decode them, and write ``samples.safetensors`` and ``samples.png``.

    Args:
        folder: The run whose models draw.
        recipe: Its ``seed`` and ``sample`` decide the draw.
        compute: What to compute with.
        reporter: Shows the progress.
        classes: Names or numbers of classes to draw in turn; all by default.
        out: Folder for the files; the run folder by default.

    Raises:
        RunFolderError: A model is missing.
        ArtifactError: One is damaged, or the prior's codes came from another VQ-VAE.
        ConfigError: A class is unknown.
        OSError: A file cannot be written.
    """
    vqvae = load_vqvae(folder.need(folder.vqvae))
    prior = _prior_of(folder, vqvae.sha256)
    names = tuple(str(name) for name in _list(prior.meta.get("classes")))
    chosen, n = recipe.sample, recipe.sample.n
    labels = _labels(n, names[: prior.model.n_classes], classes)
    seed = stage_seed(recipe.seed, "sample")
    target = folder if out is None else RunFolder(out)
    target.path.mkdir(parents=True, exist_ok=True)
    with target.step("sample") as facts, reporter.task("sample", n, "image") as task:
        started = time.monotonic()
        indices = sample_grids(
            prior.model.to(compute.device),
            n,
            labels=labels,
            temperature=chosen.temperature,
            top_k=chosen.top_k,
            top_p=chosen.top_p,
            seed=seed,
            micro_batch=chosen.micro_batch,
            callback=task.update,
        ).cpu()
        images = in_batches(vqvae.model.to(compute.device).decode_indices, indices, recipe.eval.batch_size, compute)
        facts["samples_per_second"] = round(n / (time.monotonic() - started), 2)
        drawn = Samples(
            indices=indices,
            images=images,
            labels=torch.full((n,), -1) if labels is None else labels,
            classes=names,
            vqvae_sha256=vqvae.sha256,
            prior_sha256=prior.sha256,
            settings={"seed": recipe.seed, **dataclasses.asdict(chosen)},
        )
        facts["samples"] = write_samples(target.samples, drawn)
        write_bytes(target.samples_png, sample_sheet(drawn))


def sample_sheet(samples: Samples) -> bytes:
    """Return a PNG of the first samples: one labelled row per class that occurs, or a square without classes."""
    present = sorted(set(samples.labels.tolist()))
    if present == [-1]:
        return image_grid(samples.images[: GRID_ROWS**2], GRID_ROWS)
    position = torch.tensor([present.index(label) for label in samples.labels.tolist()])
    return class_grid(samples.images, position, [samples.classes[label] for label in present], per_class=GRID_ROWS)


def _prior_of(folder: RunFolder, vqvae_sha256: str) -> LoadedPrior:
    """Read the run's prior and check that its codes came from this VQ-VAE.

    Raises:
        RunFolderError: The prior is missing.
        ArtifactError: It is damaged, or its codes came from another VQ-VAE.
    """
    prior = load_prior(folder.need(folder.prior))
    if prior.vqvae_sha256 != vqvae_sha256:
        raise ArtifactError(
            f"{folder.prior} was trained on the codes of another VQ-VAE ({prior.vqvae_sha256[:12]}) than "
            f"{folder.vqvae} ({vqvae_sha256[:12]}); its samples would be noise: bring the two that belong together, "
            f"or train again with: tcvq encode {folder.path}, tcvq train stage2 {folder.path}"
        )
    return prior


def _labels(n: int, names: Sequence[str], wanted: Sequence[str]) -> Tensor | None:
    """Return n classes, the wanted ones in turn; None for a prior without classes.

    Raises:
        ConfigError: A wanted class does not exist.
    """
    if not names:
        if wanted:
            raise ConfigError(f"--class {wanted[0]}: this prior was trained without classes (prior.n_classes is 0)")
        return None
    numbers = {name.lower(): i for i, name in enumerate(names)} | {str(i): i for i in range(len(names))}
    for name in wanted:
        if name.lower() not in numbers:
            raise ConfigError(
                f"--class {name}: unknown class; the classes are {', '.join(names)}, or 0 to {len(names) - 1}"
            )
    cycle = torch.tensor([numbers[name.lower()] for name in wanted] or range(len(names)))
    return cycle[torch.arange(n) % len(cycle)]


def _list(value: object) -> list[object]:
    return value if isinstance(value, list) else []
