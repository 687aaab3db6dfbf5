"""Runs that differ in a few settings: trained once, found again by the hash of their recipe, continued if cut short."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tcvq_data import write_text
from tcvq_runner.config import Recipe
from tcvq_runner.pipeline import STEPS
from tcvq_runner.progress import Reporter
from tcvq_runner.recipe import flat_recipe, load_recipe
from tcvq_runner.run_dir import RunFolder, new_run, open_run
from tcvq_runner.studies.yardstick import check_space
from tcvq_runner.wiring import Compute, check_data, environment

_ARM = ("stage1", "encode", "stage2", "sample")


@dataclass(frozen=True, kw_only=True, slots=True)
class Variant:
    """One arm of a study.

    Attributes:
        name: What the table calls it.
        settings: What it changes in the recipe.
    """

    name: str
    settings: tuple[str, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Trained:
    """A finished run of one arm.

    Attributes:
        variant: Name of the arm.
        seed: Seed of the run.
        recipe: What was run.
        folder: Where it lies.
    """

    variant: str
    seed: int
    recipe: Recipe
    folder: RunFolder


def plan(source: str, settings: Sequence[str], variants: Sequence[Variant], seeds: int) -> list[tuple[str, Recipe]]:
    """Return the recipe of every arm and seed, all checked before the first one starts.

    Raises:
        ConfigError: A recipe or setting is wrong.
    """
    first = load_recipe(source, settings).seed
    return [
        (variant.name, load_recipe(source, [*settings, *variant.settings, f"seed={seed}"]))
        for seed in range(first, first + seeds)
        for variant in variants
    ]


def train_all(arms: Sequence[tuple[str, Recipe]], out: Path, compute: Compute, reporter: Reporter) -> list[Trained]:
    """Train what is not trained yet; each run lies in ``out/runs/<arm>-s<seed>-<hash of its recipe>``.

    Raises:
        ConfigError: A recipe does not fit its data.
        RunFolderError: Another process works in one of the folders.
        FloatingPointError: A loss became NaN.
    """
    for _, recipe in arms:
        check_data(recipe, reporter)
        check_space(recipe)
    done = []
    for name, recipe in arms:
        path = out / "runs" / f"{name}-s{recipe.seed}-{recipe_hash(recipe)}"
        exists = (path / "config.yaml").is_file()
        with open_run(path) if exists else new_run(recipe, path, environment(compute)) as folder:
            for step in _ARM:
                if folder.problem(step) is not None:
                    write_text(out / "running.txt", f"{path.name}: {step}\n")
                    STEPS[step](folder, recipe, compute, reporter)
        done.append(Trained(variant=name, seed=recipe.seed, recipe=recipe, folder=folder))
    (out / "running.txt").unlink(missing_ok=True)
    return done


def recipe_hash(recipe: Recipe) -> str:
    """Return eight digits that differ where any setting does; one at its default counts as one that is not there."""
    defaults = flat_recipe(Recipe())
    chosen = {key: value for key, value in flat_recipe(recipe).items() if (key, value) not in defaults.items()}
    return hashlib.sha256(json.dumps(chosen, sort_keys=True).encode()).hexdigest()[:8]
