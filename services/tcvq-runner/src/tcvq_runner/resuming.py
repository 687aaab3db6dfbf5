"""Which run a command continues, and whether it may: the same settings, or a refusal that shows the difference."""

from collections.abc import Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from tcvq_runner.checkpoints import Checkpoint, CheckpointStore
from tcvq_runner.config import Recipe
from tcvq_runner.lock import RunFolderError, locked
from tcvq_runner.progress import Reporter
from tcvq_runner.recipe import ConfigError, recipe_tree
from tcvq_runner.run_dir import RunFolder

# What may change in between: it decides how a result is reached, not which.
FREE = ("checkpoint", "track", "data.root", "data.workers", "stage1.grad_checkpoint", "stage2.grad_checkpoint")
_OF_STAGE = {
    "stage1": ("seed", "data", "vqvae", "loss", "stage1"),
    "stage2": ("seed", "data", "vqvae", "loss", "stage1", "prior", "stage2"),
}


def differences(old: Mapping[str, Any], new: Mapping[str, Any], sections: tuple[str, ...] = ()) -> list[str]:
    """Return what decides a result and differs, each as ``key old -> new``.

    A setting that one of them does not have, because an older version wrote it, has its default.

    Args:
        old: A recipe as JSON types.
        new: Another one.
        sections: Compare these only; all by default.
    """
    defaults = dict(_leaves(recipe_tree(Recipe())))
    a, b = defaults | dict(_leaves(old)), defaults | dict(_leaves(new))
    keys = [key for key in a | b if not _under(key, FREE) and (not sections or _under(key, sections))]
    return [f"{key} {a.get(key)} -> {b.get(key)}" for key in keys if a.get(key) != b.get(key)]


def require_same(folder: RunFolder, recipe: Recipe) -> None:
    """Refuse to continue a run with other settings than it was started with.

    Raises:
        ConfigError: Shows the settings that differ.
    """
    if changed := differences(recipe_tree(folder.recipe()), recipe_tree(recipe)):
        raise ConfigError(
            f"{folder.path} was started with other settings ({', '.join(changed)}); "
            f"continue it as it was with: tcvq run {folder.path}, or start anew with --fresh"
        )


def unfinished_run(recipe: Recipe, parent: Path = Path("runs")) -> RunFolder | None:
    """Return the newest run of this recipe that did not finish and that nobody works on, None if there is none.

    Raises:
        ConfigError: There are such runs, but all were started with other settings.
    """
    others = []
    for path in sorted((parent / recipe.name).glob("*/config.yaml"), reverse=True):
        folder = RunFolder(path.parent)
        try:
            if not folder.unfinished() or not folder.has_progress():
                continue
            with locked(folder.path):
                same = not differences(recipe_tree(folder.recipe()), recipe_tree(recipe))
        except (ValueError, OSError):  # in use, damaged, or of another version: nothing to continue
            continue
        if same:
            return folder
        others.append(folder)
    if others:
        require_same(others[0], recipe)
    return None


def start_of(store: CheckpointStore, stage: str, recipe: Recipe, reporter: Reporter) -> Checkpoint | None:
    """Return the checkpoint from which a stage goes on, and say so; None to begin at the beginning.

    Raises:
        ConfigError: The checkpoint belongs to other settings of this stage.
    """
    found, problems = store.newest()
    for problem in problems:
        reporter.note(f"{stage}: damaged checkpoint passed over: {problem}")
    if found is None:
        return None
    if changed := differences(found.recipe, recipe_tree(recipe), _OF_STAGE[stage]):
        raise ConfigError(
            f"{found.path} belongs to other settings ({', '.join(changed)}); "
            "restore them to continue, or start the stage anew with --fresh"
        )
    reporter.note(f"{stage}: goes on after step {found.step}")
    return found


def move_aside(path: Path) -> Path:
    """Rename a run folder, so that a fresh run can take its place, and return where it is now.

    Raises:
        RunFolderError: Another process works in it.
    """
    stamp = datetime.now().astimezone().strftime("%Y%m%d-%H%M%S")
    aside = path.with_name(f"{path.name}.before-{stamp}")
    with locked(path):
        if aside.exists():
            raise RunFolderError(f"{aside} exists already; choose another folder with --out")
        path.rename(aside)
        (aside / ".lock").unlink(missing_ok=True)
    return aside


def _under(key: str, prefixes: tuple[str, ...]) -> bool:
    return any(key == prefix or key.startswith(f"{prefix}.") for prefix in prefixes)


def _leaves(tree: Mapping[str, Any], at: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{at}{key}.")
        else:
            yield f"{at}{key}", value
