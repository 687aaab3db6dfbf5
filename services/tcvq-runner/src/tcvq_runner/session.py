"""From what the user typed to an open run: recipe, folder, compute and progress."""

import os
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, redirect_stdout
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypedDict, Unpack

import click
import torch

from tcvq_runner.config import Recipe
from tcvq_runner.distributed import ChildrenEnded, join, leave, place_of, process_rank, receive_from_first, send_to_all
from tcvq_runner.failures import Interrupted
from tcvq_runner.launching import requeue, run_processes
from tcvq_runner.logbook import logged
from tcvq_runner.progress import Reporter, SilentReporter, open_reporter
from tcvq_runner.recipe import DEFAULT_RECIPE, ConfigError, builtin_recipes, load_recipe
from tcvq_runner.resuming import move_aside, require_same, unfinished_run
from tcvq_runner.run_dir import RunFolder, new_run, open_run
from tcvq_runner.tracking import check_trackers
from tcvq_runner.wiring import Compute, check_data, environment, open_compute


class ComputeOptions(TypedDict):
    """What the compute options of a command say."""

    device: str
    precision: str
    threads: int | None


class ScaleOptions(ComputeOptions, total=False):
    """What they and the options of scale say, where a command has these."""

    strategy: str
    devices: int
    num_nodes: int
    profile: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class Session:
    """Everything that a step needs.

    Attributes:
        folder: The locked run folder.
        recipe: What to run.
        compute: What to compute with.
        reporter: Shows the progress on stderr.
    """

    folder: RunFolder
    recipe: Recipe
    compute: Compute
    reporter: Reporter


def typed_recipe(items: Sequence[str]) -> Recipe:
    """Return the recipe that ``[RECIPE] [KEY=VALUE]...`` describe.

    Raises:
        ConfigError: There is no such recipe, or a setting is wrong.
    """
    return load_recipe(*typed_source(items))


def typed_source(items: Sequence[str]) -> tuple[str, Sequence[str]]:
    """Return the recipe's name or file, and the settings, of ``[RECIPE] [KEY=VALUE]...``."""
    return (items[0], items[1:]) if items and "=" not in items[0] else (DEFAULT_RECIPE, items)


def recipe_of(source: str) -> Recipe:
    """Return the recipe of a name, of a ``.yaml`` file, or of a run folder.

    Raises:
        ConfigError: There is no such recipe, or it is wrong.
        RunFolderError: The folder is no run.
    """
    if Path(source).is_dir() and source not in builtin_recipes():
        return RunFolder(Path(source)).recipe()
    return load_recipe(source)


@contextmanager
def run_session(
    items: Sequence[str], out: Path | None, *, fresh: bool = False, **options: Unpack[ScaleOptions]
) -> Iterator[Session]:
    """Yield a session that continues an interrupted run where there is one, and begins a new run elsewhere.

    Args:
        items: A recipe and settings, or a run folder.
        out: The folder of the run; by default the newest interrupted run of the recipe, else a new one.
        fresh: Begin a new run in any case; a run that lies in ``out`` is moved aside, never deleted.
        **options: What to compute with.

    Raises:
        ConfigError: The recipe is wrong, does not fit its data, or is not the one that the run was started with.
        RunFolderError: The folder is in use, or holds something else.
    """
    with _together(options) as compute, _shared(_continued(items, out, compute, options, fresh=fresh)) as session:
        yield session


@contextmanager
def old_session(path: Path, settings: Sequence[str] = (), **options: Unpack[ScaleOptions]) -> Iterator[Session]:
    """Yield a session in an existing run folder, its recipe changed by settings; the run keeps them if all goes well.

    Raises:
        ConfigError: A setting is wrong or comes too late.
        RunFolderError: There is no such run, or another process works in it.
    """
    with _together(options) as compute, _shared(_reopened(path, settings, compute)) as session:
        yield session


@contextmanager
def _begin(items: Sequence[str], out: Path | None, compute: Compute) -> Iterator[Session]:
    recipe, reporter = typed_recipe(items), open_reporter(sys.stderr)
    check_trackers(recipe.track)
    check_data(recipe, reporter)
    with (
        new_run(recipe, out, environment(compute)) as folder,
        _told_how_to_go_on(folder),
        logged(folder.path, reporter, sys.argv) as reporter,
    ):
        yield Session(folder=folder, recipe=recipe, compute=compute, reporter=reporter)


@contextmanager
def _continued(
    items: Sequence[str], out: Path | None, compute: Compute, options: ScaleOptions, *, fresh: bool
) -> Iterator[Session]:
    reporter = open_reporter(sys.stderr)
    recipe, found = _wanted_run(items, out, fresh=fresh)
    if found is None:
        if fresh and out is not None and (out / "config.yaml").is_file():
            reporter.note(f"the run in {out} now lies in {move_aside(out)}")
        with _begin(items, out, compute) as session:
            yield session
        return
    compute = _as_before(found, compute, asked=options.get("precision", "auto"))
    check_trackers(recipe.track)
    with open_run(found.path) as folder, _told_how_to_go_on(folder):
        require_same(folder, recipe)
        folder.sweep()
        check_data(recipe, reporter)
        if folder.unfinished():
            done = ", ".join(folder.steps()) or "no step"
            reporter.note(f"continues {folder.path} ({done} done); --fresh starts anew")
            folder.resumed(environment(compute))
        else:
            reporter.note(f"{folder.path} is finished; only what is missing or damaged is made again (--fresh: all)")
        folder.keep(recipe)
        with logged(folder.path, reporter, sys.argv) as both:
            yield Session(folder=folder, recipe=recipe, compute=compute, reporter=both)


@contextmanager
def _reopened(path: Path, settings: Sequence[str], compute: Compute) -> Iterator[Session]:
    reporter = open_reporter(sys.stderr)
    with open_run(path) as folder:
        recipe = folder.change(tuple(settings))
        check_trackers(recipe.track)
        check_data(recipe, reporter)
        with logged(folder.path, reporter, sys.argv) as both:
            yield Session(folder=folder, recipe=recipe, compute=compute, reporter=both)
        folder.keep(recipe)


def _wanted_run(items: Sequence[str], out: Path | None, *, fresh: bool) -> tuple[Recipe, RunFolder | None]:
    """Return the recipe that the user means, and the run to continue if there is one."""
    named = Path(items[0]) if items and "=" not in items[0] and items[0] not in builtin_recipes() else None
    if named is not None and named.is_dir():
        if out is not None or fresh:
            raise ConfigError(f"{named} is a run to continue; --out and --fresh go with a recipe instead")
        folder = RunFolder(named)
        return folder.recipe(tuple(items[1:])), folder
    recipe = typed_recipe(items)
    if fresh:
        return recipe, None
    if out is not None:
        return recipe, RunFolder(out) if (out / "config.yaml").is_file() else None
    return recipe, unfinished_run(recipe)


def _as_before(folder: RunFolder, compute: Compute, *, asked: str) -> Compute:
    """Return what to compute with, in the precision in which the run was started.

    Raises:
        ConfigError: The user asks for another precision.
    """
    before = folder.environment().get("precision")
    if before is None or before == compute.precision:
        return compute
    if asked == "auto":
        return replace(compute, precision=before)
    raise ConfigError(
        f"{folder.path} was started with other settings (precision {before} -> {compute.precision}); "
        f"leave --precision out to continue it, or start anew with --fresh"
    )


@contextmanager
def _told_how_to_go_on(folder: RunFolder) -> Iterator[None]:
    try:
        yield
    except Interrupted as error:
        error.advice = f"; continue with: tcvq run {folder.path}"
        if error.signum == signal.SIGUSR1 and process_rank()[0] == 0 and (job := requeue(os.environ)):
            error.advice = f"; SLURM job {job} is in the queue again and will continue {folder.path}"
        raise


@contextmanager
def _together(options: ScaleOptions) -> Iterator[Compute]:
    """Start the other processes or meet them, and yield what this one computes with.

    Raises:
        ChildrenEnded: Processes were started and have done everything.
    """
    place = place_of(os.environ)
    n, num_nodes = options.get("devices", 1), options.get("num_nodes", 1)
    if place is None and n * num_nodes > 1:
        arguments = click.get_current_context().find_root().obj
        raise ChildrenEnded(run_processes(n, arguments, num_nodes=num_nodes))
    if place is not None:
        join(place)
    try:
        compute = {key: value for key, value in options.items() if key not in ("devices", "num_nodes")}
        yield open_compute(**compute)  # type: ignore[arg-type]  # the keys are those of `ScaleOptions`
    finally:
        leave()


@contextmanager
def _shared(opening: AbstractContextManager[Session]) -> Iterator[Session]:
    """Open a session on the first process, and yield the same one on all; the others keep silent."""
    if process_rank()[0] > 0:
        path, recipe, compute = receive_from_first()
        if compute.device.type == "cuda":
            compute = replace(compute, device=torch.device("cuda", torch.cuda.current_device()))
        with Path(os.devnull).open("w") as nowhere, redirect_stdout(nowhere):
            yield Session(folder=RunFolder(path), recipe=recipe, compute=compute, reporter=SilentReporter())
        return
    told = False
    try:
        with opening as session:
            told = True
            send_to_all((session.folder.path, session.recipe, session.compute))
            yield session
    finally:
        if not told:
            send_to_all(None)


@contextmanager
def shared_session(path: Path, **options: Unpack[ComputeOptions]) -> Iterator[Session]:
    """Yield a session that only reads an existing run folder, which is not locked: several commands may.

    Raises:
        RunFolderError: There is no such run.
    """
    compute, reporter = open_compute(**options), open_reporter(sys.stderr)
    folder = RunFolder(path)
    yield Session(folder=folder, recipe=folder.recipe(), compute=compute, reporter=reporter)
