"""The fourth step of a run: draw grids of codes from the prior and decode them to images."""

import dataclasses
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from tcvq_data import ArtifactError, write_bytes
from tcvq_eval import class_grid, event_strips, image_grid
from tcvq_prior import LoadedPrior, load_prior
from tcvq_runner.completion import Completion
from tcvq_runner.config import Recipe
from tcvq_runner.distributed import barrier, process_rank
from tcvq_runner.progress import Reporter
from tcvq_runner.recipe import ConfigError
from tcvq_runner.run_dir import RunFolder
from tcvq_runner.samples import Samples, from_bytes, to_bytes, write_samples
from tcvq_runner.sampling_job import PARTS, collect, draw_shards, kept_if_begun, n_finished, share_out
from tcvq_runner.sampling_plan import Inputs, Plan, adopt, make_plan
from tcvq_runner.stages import codes_of
from tcvq_runner.wiring import Compute, stage_seed
from tcvq_vqvae import SpikingVQVAE, load_vqvae

GRID_ROWS = 8  # samples per class on the sheet; rows and columns of a sheet without classes


@dataclass(frozen=True, kw_only=True, slots=True)
class Drawing:
    """A draw whose models are loaded and whose wishes are checked.

    Attributes:
        run: The run that draws.
        recipe: What decides the draw.
        plan: The same, as a later process compares it.
        inputs: Classes and given codes.
        vqvae: Decodes.
        prior: Draws.
        classes: Names of the classes.
        completion: What is completed, if anything.
    """

    run: RunFolder
    recipe: Recipe
    plan: Plan
    inputs: Inputs
    vqvae: SpikingVQVAE
    prior: LoadedPrior
    classes: tuple[str, ...]
    completion: Completion | None


def sample(folder: RunFolder, recipe: Recipe, compute: Compute, reporter: Reporter) -> None:
    """Draw a run's own images, and write ``samples.safetensors`` and ``samples.png``; goes on if it was interrupted.

    Args:
        folder: The run whose models draw.
        recipe: Its ``seed`` and ``sample`` decide the draw.
        compute: What to compute with.
        reporter: Shows the progress.

    Raises:
        RunFolderError: A model is missing, or the beginning of another draw is in the way.
        ArtifactError: One is damaged, or the prior's codes came from another VQ-VAE.
        OSError: A file cannot be written.
    """
    group = process_rank()
    draw(prepare(folder, recipe, compute), folder, compute, reporter, part=group if group[1] > 1 else None)


def prepare(
    folder: RunFolder,
    recipe: Recipe,
    compute: Compute,
    *,
    classes: Sequence[str] = (),
    completion: Completion | None = None,
) -> Drawing:
    """Load the models and check what is wanted.

    Args:
        folder: The run whose models draw.
        recipe: Its ``seed`` and ``sample`` decide the draw.
        compute: What to compute with.
        classes: Names or numbers of classes to draw in turn; all by default.
        completion: What is completed instead of drawn from nothing.

    Raises:
        RunFolderError: A model is missing.
        ArtifactError: One is damaged, or the prior's codes came from another VQ-VAE.
        ConfigError: A class is unknown, or guidance asked of a prior without "no class".
    """
    vqvae = load_vqvae(folder.need(folder.vqvae))
    prior = _prior_of(folder, vqvae.sha256)
    names = tuple(str(name) for name in _list(prior.meta.get("classes")))
    _check_guidance(recipe, prior)
    if completion is not None:
        codes = codes_of(folder, "test", vqvae.sha256)
        stacked = vqvae.model.config.n_steps if vqvae.model.config.codebook == "vanilla" else 1
        labels = completion.labels(codes) if prior.model.n_classes else torch.full((completion.n,), -1)
        inputs = Inputs(labels=labels, known=completion.known(codes, stacked))
        recipe = dataclasses.replace(recipe, sample=dataclasses.replace(recipe.sample, n=completion.n))
    else:
        known = torch.zeros(0, *prior.model.grid, dtype=torch.long)
        inputs = Inputs(labels=_labels(recipe.sample.n, names[: prior.model.n_classes], classes), known=known)
    return Drawing(
        run=folder,
        recipe=recipe,
        plan=make_plan(
            recipe.sample,
            seed=stage_seed(recipe.seed, "sample"),
            decode_batch=recipe.eval.batch_size,
            prior=prior.model.to(compute.device),
            compute=compute,
            inputs=inputs,
            vqvae_sha256=vqvae.sha256,
            prior_sha256=prior.sha256,
        ),
        inputs=inputs,
        vqvae=vqvae.model.to(compute.device),
        prior=prior,
        classes=names,
        completion=completion,
    )


def draw(
    drawing: Drawing,
    target: RunFolder,
    compute: Compute,
    reporter: Reporter,
    *,
    workers: int = 1,
    part: tuple[int, int] | None = None,
    explicit_threads: bool = False,
) -> Samples | None:
    """Draw what is missing, and put all together.

    Args:
        drawing: What to draw.
        target: Folder for the files.
        compute: What to compute with.
        reporter: Shows the progress.
        workers: Processes on this machine.
        part: Number of this part, and how many there are: only its shards are drawn.
        explicit_threads: The number of threads was asked for.

    Returns:
        The samples; None if other parts are not finished.

    Raises:
        RunFolderError: The folder holds the beginning of another draw.
        OSError: A file cannot be written.
    """
    parts = target.path / PARTS
    with kept_if_begun(parts):
        plan = adopt(parts, drawing.plan, drawing.inputs, explicit=explicit_threads)
        before, started, had = torch.get_num_threads(), time.monotonic(), n_finished(parts, plan)
        torch.set_num_threads(plan.threads)
        try:
            with reporter.task("sample", plan.n, "image") as task:
                _fill(drawing, plan, parts, compute, task.update, workers=workers, part=part)
        finally:
            torch.set_num_threads(before)
        if part is not None and part == process_rank():  # a group of processes, of which the first goes on
            barrier()
        found = collect(parts, plan) if part is None or part != process_rank() or part[0] == 0 else None
    if found is None:
        return None
    with target.step("sample") as facts:
        facts["seconds_before"] = time.monotonic() - started  # of the draw itself
        if had < plan.n:
            facts["samples_per_second"] = round((plan.n - had) / (time.monotonic() - started), 2)
        drawn = _samples(drawing, plan, *found)
        facts["samples"] = write_samples(target.samples, drawn)
        write_bytes(target.samples_png, sample_sheet(drawn))
    shutil.rmtree(parts, ignore_errors=True)
    return drawn


def _fill(
    drawing: Drawing,
    plan: Plan,
    parts: Path,
    compute: Compute,
    update: Callable[[int], None],
    *,
    workers: int,
    part: tuple[int, int] | None,
) -> None:
    """Draw the shards that are missing, here or in other processes."""
    if workers > 1:
        share_out(parts, plan, drawing.run.vqvae, drawing.run.prior, workers=workers, update=update)
        return
    rank, world_size = part or (0, 1)
    done = 0

    def finished(n: int) -> None:
        nonlocal done
        done += n
        update(done)

    draw_shards(
        parts,
        plan,
        drawing.inputs,
        prior=drawing.prior.model,
        vqvae=drawing.vqvae,
        compute=compute,
        rank=rank,
        world_size=world_size,
        finished=finished,
    )


def sample_sheet(samples: Samples) -> bytes:
    """Return a PNG of the first samples: one labelled row per class that occurs, or a square without classes.

    Recordings are strips, one of each class, their steps from left to right.
    """
    present = sorted(set(samples.labels.tolist()))
    if samples.images.ndim == 5:
        return _strips(samples, present)
    if present == [-1]:
        return image_grid(samples.images[: GRID_ROWS**2], GRID_ROWS)
    position = torch.tensor([present.index(label) for label in samples.labels.tolist()])
    return class_grid(samples.images, position, [samples.classes[label] for label in present], per_class=GRID_ROWS)


def _strips(samples: Samples, present: list[int]) -> bytes:
    """Return strips of recordings; brightness is proportional to the number of events."""
    labels = samples.labels.tolist()
    rows = list(range(min(GRID_ROWS, len(labels)))) if present == [-1] else [labels.index(label) for label in present]
    names = [] if present == [-1] else [samples.classes[label] for label in present]
    return event_strips(to_bytes(samples.images[rows]).long(), row_labels=names)


def _samples(drawing: Drawing, plan: Plan, indices: Tensor, images: Tensor) -> Samples:
    settings = {"seed": drawing.recipe.seed, **dataclasses.asdict(drawing.recipe.sample)}
    settings["micro_batch"] = plan.micro_batch
    if drawing.completion is not None:
        settings["completion"] = dataclasses.asdict(drawing.completion)
    return Samples(
        indices=indices,
        images=from_bytes(images),
        labels=drawing.inputs.labels,
        classes=drawing.classes,
        vqvae_sha256=plan.vqvae_sha256,
        prior_sha256=plan.prior_sha256,
        settings=settings,
    )


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


def _check_guidance(recipe: Recipe, prior: LoadedPrior) -> None:
    if recipe.sample.guidance != 1 and prior.model.null_class is None:
        raise ConfigError(
            f"sample.guidance is {recipe.sample.guidance}, but this prior never saw grids without their class; "
            "train it again with: prior.null_class=true stage2.class_dropout=0.1"
        )


def _labels(n: int, names: Sequence[str], wanted: Sequence[str]) -> Tensor:
    """Return n classes, the wanted ones in turn; -1 for a prior without classes.

    Raises:
        ConfigError: A wanted class does not exist.
    """
    if not names:
        if wanted:
            raise ConfigError(f"--class {wanted[0]}: this prior was trained without classes (prior.n_classes is 0)")
        return torch.full((n,), -1)
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
