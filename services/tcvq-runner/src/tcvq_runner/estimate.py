"""What a recipe will take on this machine, before it starts: the text of ``tcvq doctor --recipe``."""

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from tcvq_data import describe_datasets
from tcvq_runner.config import Recipe
from tcvq_runner.parameters import REFERENCE, parameter_counts
from tcvq_runner.progress import Reporter
from tcvq_runner.recipe import recipe_tree
from tcvq_runner.wiring import Compute, open_split

LIMIT = 240.0  # seconds that one measurement may take
_FACTOR = 4  # from one measured batch to the next
_WORTH = 90.0  # seconds that a larger batch may take; what is larger still is extrapolated from the last two


@dataclass(frozen=True, kw_only=True, slots=True)
class StageEstimate:
    """What training one stage takes.

    Attributes:
        stage: Its name.
        batch: Images at once.
        seconds: Of one step with them; None if not even the smallest batch could be measured.
        memory: Peak bytes; None likewise.
        how: ``measured``, how it was extrapolated, or why there is nothing.
        steps: Steps of the whole stage; None if the number of images is not known.
        steps_per_epoch: Steps of one epoch; None likewise.
    """

    stage: str
    batch: int
    seconds: float | None
    memory: float | None
    how: str
    steps: int | None
    steps_per_epoch: int | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Estimate:
    """What a recipe takes.

    Attributes:
        recipe: Its name.
        n_images: Training images; None if not known.
        data: "" if the data are here, else how to get them.
        parameters: Trainable values by part.
        disk: Bytes that the run folder will hold at most, by kind of file.
        disk_free: Bytes free where runs are made.
        memory_free: Bytes of memory that this machine can give.
        stages: The two stages.
    """

    recipe: str
    n_images: int | None
    data: str
    parameters: dict[str, int]
    disk: dict[str, int]
    disk_free: int
    memory_free: int
    stages: list[StageEstimate]

    def as_json(self) -> dict[str, Any]:
        """Return the estimate as JSON types."""
        return asdict(self)


def estimate(recipe: Recipe, compute: Compute, reporter: Reporter) -> Estimate:
    """Count, look and measure a few steps of each stage.

    Args:
        recipe: What would be run.
        compute: What it would be run with.
        reporter: Shows which measurement is under way.
    """
    n_images, missing = _images(recipe)
    parameters = parameter_counts(recipe)
    free = _memory_free(compute)
    with reporter.task("measure", 2, "stage") as task:
        stages = []
        for stage in ("stage1", "stage2"):
            stages.append(_stage(recipe, stage, n_images, compute, free))
            task.update(len(stages))
    return Estimate(
        recipe=recipe.name,
        n_images=n_images,
        data=missing,
        parameters=parameters,
        disk=_disk(recipe, parameters, n_images or 0),
        disk_free=shutil.disk_usage(Path.cwd()).free,
        memory_free=free,
        stages=stages,
    )


def _images(recipe: Recipe) -> tuple[int | None, str]:
    """Return the number of training images, and how to get the data if they are not here."""
    published = next((line for line in describe_datasets(_root(recipe)) if line.split()[0] == recipe.data.name), "")
    found = re.search(r"train ([\d,]+)", published)
    every = re.search(r"all ([\d,]+)", published)  # split by hash: one of ten goes to the test
    n = int(found[1].replace(",", "")) if found else int(every[1].replace(",", "")) * 9 // 10 if every else None
    is_here = bool(re.search(r"\s(yes|included)\s", published))
    if not is_here or n is None:
        try:
            n = len(open_split(recipe, "train"))
        except ValueError as error:
            return _limited(recipe, n), str(error)
    return _limited(recipe, n), ""


def _limited(recipe: Recipe, n: int | None) -> int | None:
    return n if n is None or recipe.data.limit is None else min(n, recipe.data.limit)


def _root(recipe: Recipe) -> Path | None:
    return None if recipe.data.root is None else Path(recipe.data.root).expanduser()


def _stage(recipe: Recipe, stage: str, n_images: int | None, compute: Compute, free: int) -> StageEstimate:
    config = getattr(recipe, stage)
    batch = config.batch_size // config.accumulate
    per_epoch = max(1, n_images // config.batch_size) if n_images else None
    per_epoch_here = (per_epoch or 1) * (config.accumulate if stage == "stage2" else 1)
    steps = config.total_steps(per_epoch_here) if per_epoch or config.max_epochs is None else None
    seconds, memory, how = _measure(recipe, stage, batch, compute, free)
    if stage == "stage1" and recipe.loss.perceptual_weight and seconds is not None:
        how += ", without LPIPS"
    return StageEstimate(
        stage=stage,
        batch=batch,
        seconds=None if seconds is None else seconds * config.accumulate,
        memory=memory,
        how=how,
        steps=steps,
        steps_per_epoch=per_epoch,
    )


def _measure(
    recipe: Recipe, stage: str, batch: int, compute: Compute, free: int
) -> tuple[float | None, float | None, str]:
    """Return seconds per step, peak bytes, and how both were found."""
    found: dict[int, tuple[float, float]] = {}
    size: int | None = 1
    failed = ""
    while size is not None:
        values = _probe(recipe, stage, size, compute)
        if isinstance(values, str):
            if len(found) < 2:
                return None, None, values
            failed = f"; {values}"
            break
        found[size] = values
        size = _next_batch(found, batch, free)
    if batch in found:
        return *found[batch], "measured"
    smaller, larger = list(found)[-2:]
    return *_extrapolated(found, batch), f"extrapolated from batches of {smaller} and {larger}{failed}"


def _next_batch(found: dict[int, tuple[float, float]], batch: int, free: int) -> int | None:
    """Return the batch to measure after some: the whole one if it is worth it, else a larger one, None if none is."""
    last = max(found)
    if last == batch:
        return None
    if len(found) == 1:
        seconds, memory = found[last]
        quick = (n for n in (batch // last, _FACTOR) if _is_worth(n * seconds, n * memory, free))
        return min(batch, next(quick, 2) * last)
    larger = (batch, _FACTOR * last)
    return next((n for n in larger if n <= batch and _is_worth(*_extrapolated(found, n), free)), None)


def _is_worth(seconds: float, memory: float, free: int) -> bool:
    return (not free or memory < 0.7 * free) and 5 * seconds < _WORTH  # four steps, and the start; 0 is not known


def _extrapolated(found: dict[int, tuple[float, float]], batch: int) -> tuple[float, float]:
    """Return seconds and bytes of a batch, on the line through the last two that were measured."""
    (small, first), (larger, second) = list(found.items())[-2:]
    slopes = [max(0.0, b - a) / (larger - small) for a, b in zip(first, second, strict=True)]
    seconds, memory = (b + slope * (batch - larger) for b, slope in zip(second, slopes, strict=True))
    return seconds, memory


def _probe(recipe: Recipe, stage: str, batch: int, compute: Compute) -> tuple[float, float] | str:
    """Return seconds per step and peak bytes, or why there are none."""
    asked = {
        "recipe": recipe_tree(recipe),
        "stage": stage,
        "batch": batch,
        "device": compute.device.type,
        "precision": {"bf16-mixed": "bf16", "64-true": "64"}.get(compute.precision, "32"),
        "threads": compute.threads,
    }
    command = [sys.executable, "-W", "ignore", "-m", "tcvq_runner.probe"]
    try:
        done = subprocess.run(
            command, input=json.dumps(asked), capture_output=True, text=True, timeout=LIMIT, check=False
        )
    except subprocess.TimeoutExpired:
        return f"batch {batch}: four steps take more than {LIMIT:.0f} s here"
    if done.returncode:
        said = done.stderr.strip().splitlines()
        killed = "the system ended it: out of memory" if done.returncode < 0 else "it failed"
        return f"batch {batch}: {said[-1] if said and done.returncode > 0 else killed}"
    found = json.loads(done.stdout.splitlines()[-1])
    return float(found["seconds"]), float(found["bytes"])


def _memory_free(compute: Compute) -> int:
    """Return the bytes that the device can give now, at most those that the process's control group may have."""
    if compute.device.type == "cuda":
        return int(torch.cuda.mem_get_info()[0])
    text = Path("/proc/meminfo").read_text("utf-8") if Path("/proc/meminfo").is_file() else ""
    found = re.search(r"MemAvailable:\s+(\d+) kB", text)
    free = int(found[1]) * 1024 if found else 0
    group = Path("/sys/fs/cgroup/memory.max")
    limit = group.read_text("utf-8").strip() if group.is_file() else "max"
    return min(free, int(limit)) if limit.isdigit() and free else free


def _disk(recipe: Recipe, parameters: dict[str, int], n_images: int) -> dict[str, int]:
    """Return the bytes of what a run leaves or holds for a while: models, checkpoints, codes, samples, frames."""
    prior, config = parameters["prior"], recipe.vqvae
    codec = sum(parameters[part] for part in REFERENCE if part not in ("prior", "discriminator"))
    trained = max(codec + parameters["discriminator"], prior)
    kept = recipe.checkpoint.keep_last + recipe.checkpoint.keep_best + 1  # one more while the newest is written
    frame = config.in_channels * config.image_size**2
    events = config.encoding == "event"
    tokens = recipe.prior.n_tokens
    return {
        "models": 4 * (codec + prior),
        "checkpoints": 4 * 3 * trained * kept,  # weights and Adam's two averages
        "codes": (2 * tokens + 8) * n_images * 7 // 6,
        "samples": recipe.sample.n * (frame * (config.n_steps if events else 1) + 4 * tokens),
        "cache of frames": n_images * 7 // 6 * frame * config.n_steps if events else 0,
    }


def estimate_lines(found: Estimate) -> Iterator[tuple[str, str]]:
    """Yield (topic, finding) pairs for people."""
    images = "number not known" if found.n_images is None else f"{found.n_images:,} training images"
    yield "data", f"{images}; {'here' if not found.data else 'MISSING: ' + found.data}"
    yield "parameters", ", ".join(f"{part} {n / 1e6:.2f} M" for part, n in found.parameters.items())
    for stage in found.stages:
        yield stage.stage, _stage_line(stage)
        if stage.memory is not None and stage.memory > 0.9 * found.memory_free:
            yield "", _advice(stage)
    needed = sum(found.disk.values())
    parts = ", ".join(f"{name} {_bytes(n)}" for name, n in found.disk.items() if n)
    enough = "" if needed < found.disk_free else "; NOT ENOUGH"
    yield "disk", f"about {_bytes(needed)} ({parts}); {_bytes(found.disk_free)} free here{enough}"
    yield "memory", f"{_bytes(found.memory_free)} free"


def _stage_line(stage: StageEstimate) -> str:
    if stage.seconds is None or stage.memory is None:
        return f"not measured: {stage.how}"
    text = f"batch {stage.batch}: {stage.seconds:.3g} s per step, {_bytes(stage.memory)} of memory ({stage.how})"
    if stage.steps_per_epoch:
        text += f"; epoch of {stage.steps_per_epoch:,} steps {_duration(stage.steps_per_epoch * stage.seconds)}"
    if stage.steps:
        text += f"; all {stage.steps:,} steps {_duration(stage.steps * stage.seconds)}"
    return text


def _advice(stage: StageEstimate) -> str:
    name = stage.stage
    return f"does not fit: set {name}.accumulate higher, {name}.grad_checkpoint=true, or {name}.batch_size lower"


def _bytes(n: float) -> str:
    return f"{n / 2**30:.1f} GiB" if n >= 2**30 else f"{n / 2**20:.0f} MiB"


def _duration(seconds: float) -> str:
    for unit, size in (("days", 86400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 1.5 * size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.0f} seconds"
