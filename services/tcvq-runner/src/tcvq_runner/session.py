"""From what the user typed to an open run: recipe, folder, compute and progress."""

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict, Unpack

from tcvq_runner.config import Recipe
from tcvq_runner.progress import Reporter, open_reporter
from tcvq_runner.recipe import DEFAULT_RECIPE, builtin_recipes, load_recipe
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
