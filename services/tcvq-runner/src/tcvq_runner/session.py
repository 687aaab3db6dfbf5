"""From what the user typed to an open run: recipe, folder, compute and progress."""

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict, Unpack

from tcvq_runner.config import Recipe
from tcvq_runner.failures import Interrupted
from tcvq_runner.progress import Reporter, open_reporter
from tcvq_runner.recipe import DEFAULT_RECIPE, ConfigError, builtin_recipes, load_recipe
from tcvq_runner.resuming import move_aside, require_same, unfinished_run
from tcvq_runner.run_dir import RunFolder, new_run, open_run
from tcvq_runner.wiring import Compute, check_data, environment, open_compute


class ComputeOptions(TypedDict):
    """What the compute options of a command say."""

    device: str
    precision: str
    threads: int | None


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
def new_session(items: Sequence[str], out: Path | None, **options: Unpack[ComputeOptions]) -> Iterator[Session]:
    """Yield a session in a new run folder; the recipe is checked against its data before the folder is made.

    Raises:
        ConfigError: The recipe is wrong or does not fit its data.
        RunFolderError: The folder is in use or not empty.
    """
    recipe, compute, reporter = typed_recipe(items), open_compute(**options), open_reporter(sys.stderr)
    check_data(recipe, reporter)
    with new_run(recipe, out, environment(compute)) as folder:
        yield Session(folder=folder, recipe=recipe, compute=compute, reporter=reporter)


@contextmanager
def run_session(
    items: Sequence[str], out: Path | None, *, fresh: bool = False, **options: Unpack[ComputeOptions]
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
    reporter = open_reporter(sys.stderr)
    recipe, found = _wanted_run(items, out, fresh=fresh)
    if found is None:
        if fresh and out is not None and (out / "config.yaml").is_file():
            reporter.note(f"the run in {out} now lies in {move_aside(out)}")
        with new_session(items, out, **options) as session, _told_how_to_go_on(session.folder):
            yield session
        return
    compute = _same_compute(found, **options)
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
        yield Session(folder=folder, recipe=recipe, compute=compute, reporter=reporter)


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


def _same_compute(folder: RunFolder, **options: Unpack[ComputeOptions]) -> Compute:
    """Return what to compute with, in the precision in which the run was started.

    Raises:
        ConfigError: The user asks for another precision.
    """
    before = str(folder.environment().get("precision", ""))
    if options["precision"] == "auto" and before:
        options["precision"] = before.partition("-")[0]
    compute = open_compute(**options)
    if before and compute.precision != before:
        raise ConfigError(
            f"{folder.path} was started with other settings (precision {before} -> {compute.precision}); "
            f"leave --precision out to continue it, or start anew with --fresh"
        )
    return compute


@contextmanager
def _told_how_to_go_on(folder: RunFolder) -> Iterator[None]:
    try:
        yield
    except Interrupted as error:
        error.advice = f"; continue with: tcvq run {folder.path}"
        raise


@contextmanager
def old_session(path: Path, settings: Sequence[str] = (), **options: Unpack[ComputeOptions]) -> Iterator[Session]:
    """Yield a session in an existing run folder, its recipe changed by settings; the run keeps them if all goes well.

    Raises:
        ConfigError: A setting is wrong or comes too late.
        RunFolderError: There is no such run, or another process works in it.
    """
    compute, reporter = open_compute(**options), open_reporter(sys.stderr)
    with open_run(path) as folder:
        recipe = folder.change(tuple(settings))
        check_data(recipe, reporter)
        yield Session(folder=folder, recipe=recipe, compute=compute, reporter=reporter)
        folder.keep(recipe)
