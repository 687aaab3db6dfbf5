"""Which runs there are, how far they are, and what they reached: the facts of ``tcvq runs list`` and ``show``."""

import csv
import fcntl
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tcvq_runner.lock import LOCK, RunFolderError
from tcvq_runner.run_dir import RunFolder

STEPS = ("stage1", "encode", "stage2", "sample", "eval")
_DEPTH = 3  # folders below the root: runs/RECIPE/TIME


@dataclass(frozen=True, kw_only=True, slots=True)
class RunFacts:
    """What can be said of a run without reading its models.

    Attributes:
        path: Its folder.
        recipe: Name of its recipe.
        state: ``running``, ``finished``, ``stopped`` (steps are missing), or ``damaged``.
        done: Steps that are done, in their order.
        now: The step that is under way or comes next, and how far it is; empty when finished.
        headline: The first number of its report, or the last one it measured; empty if there is none.
        seconds: Time of the steps that are done.
        started: When it was started, as ISO 8601; empty if not known.
    """

    path: Path
    recipe: str
    state: str
    done: tuple[str, ...]
    now: str
    headline: str
    seconds: float
    started: str

    def as_json(self) -> dict[str, Any]:
        """Return the facts as JSON types."""
        return {name: getattr(self, name) for name in ("recipe", "state", "now", "headline", "seconds", "started")} | {
            "path": str(self.path),
            "done": list(self.done),
        }


def find_runs(root: Path) -> list[RunFacts]:
    """Return the runs in a folder and below, the oldest first.

    Raises:
        RunFolderError: The folder does not exist.
    """
    if not root.is_dir():
        raise RunFolderError(f"{root} does not exist; runs are made by: tcvq run")
    return sorted((run_facts(path) for path in _folders(root, _DEPTH)), key=lambda facts: (facts.started, facts.path))


def run_facts(path: Path) -> RunFacts:
    """Return what can be said of the run in a folder; a damaged one is described, not refused."""
    folder = RunFolder(path)
    env = _json(folder.env)
    try:
        steps, damage = folder.steps(), ""
        recipe = folder.recipe().name
    except ValueError as error:
        steps, damage, recipe = {}, str(error), path.parent.name
    done = tuple(step for step in STEPS if step in steps)
    left = [step for step in STEPS if step not in steps]
    running = _is_locked(path)
    state = "damaged" if damage else "running" if running else "finished" if not left else "stopped"
    return RunFacts(
        path=path,
        recipe=recipe,
        state=state,
        done=done,
        now=damage or (_progress(folder, left[0]) if left else ""),
        headline=_headline(folder),
        seconds=round(sum(float(steps[step].get("seconds", 0)) for step in done), 2),
        started=str(env.get("time", "")),
    )


def _folders(root: Path, depth: int) -> Iterator[Path]:
    if (root / "config.yaml").is_file():
        yield root
    elif depth:
        for child in sorted(root.iterdir()):
            if child.is_dir() and not child.is_symlink():
                yield from _folders(child, depth - 1)


def _is_locked(path: Path) -> bool:
    """Return whether a process works in the folder; takes no lock and makes no file."""
    try:
        fd = os.open(path / LOCK, os.O_RDONLY)
    except OSError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(fd)
    return False


def _progress(folder: RunFolder, step: str) -> str:
    """Return the name of a step and the training step of its newest checkpoint."""
    saved = [path.name for path in (folder.path / "checkpoints" / step).glob("[0-9]*")]
    return f"{step}, saved at step {int(max(saved))}" if saved else step


def _headline(folder: RunFolder) -> str:
    """Return the first number of the report; without one, the last validation of the prior."""
    match _json(folder.report_json):
        case {"headlines": [{"label": str(label), "value": float() | int() as value}, *_]}:
            return f"{label} {value:.4g}"
    try:
        with folder.metrics.open(encoding="utf-8", newline="") as file:
            bits = [row[3] for row in csv.reader(file) if row[2:3] == ["val/bits"]]
    except (OSError, ValueError, IndexError, csv.Error):
        bits = []
    return f"val bits {bits[-1]}" if bits else ""


def _json(path: Path) -> dict[str, Any]:
    """Return the object in a JSON file, an empty one if there is none."""
    try:
        tree = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return tree if isinstance(tree, dict) else {}
