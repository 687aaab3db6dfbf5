"""Checkpoints on disk: folders that appear whole, are verified before they are read, and of which the newest are kept.

A checkpoint of step 40 of stage 1 is the folder ``checkpoints/stage1/00000040`` with ``state.pt`` (everything that all
ranks share), ``rank-<r>.pt`` (the random generators of one rank) and ``manifest.json``, which names the hash of each.
It is written beside its final place, flushed to disk and renamed. Reading one never runs code from it.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from tcvq_data import sha256_file, write_json
from tcvq_runner.config import CheckpointConfig

SCHEMA = "tcvq.checkpoint/1"
STATE = "state.pt"
_MANIFEST = "manifest.json"
_PARTIAL = ".partial-"


class CheckpointError(ValueError):
    """A checkpoint that is incomplete, damaged, or not one of ours."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Checkpoint:
    """A complete checkpoint.

    Attributes:
        path: Its folder.
        step: After how many steps it was taken.
        score: What validation said there; lower is better, None without validation.
        recipe: The recipe that was trained, as JSON types.
    """

    path: Path
    step: int
    score: float | None
    recipe: dict[str, Any]

    @property
    def state(self) -> Path:
        """The state that all ranks share."""
        return self.path / STATE

    def rank(self, rank: int) -> Path:
        """Return the file of one rank; ranks that were not there then take the first one's."""
        path = self.path / rank_file(rank)
        return path if path.exists() else self.path / rank_file(0)


class CheckpointStore:
    """The checkpoints of one stage."""

    def __init__(self, path: Path, config: CheckpointConfig, recipe: dict[str, Any]) -> None:
        """Describe the store; its folder appears with the first checkpoint.

        Args:
            path: The folder.
            config: How many are kept.
            recipe: What is trained, stored with every checkpoint.
        """
        self.path, self.config, self._recipe = path, config, recipe

    def partial(self, step: int) -> Path:
        """Return the folder to write the files of a checkpoint into."""
        return self.path / f"{_PARTIAL}{step:08d}"

    def begin(self, step: int) -> None:
        """Make that folder, empty."""
        shutil.rmtree(self.partial(step), ignore_errors=True)
        self.partial(step).mkdir(parents=True)

    def commit(self, partial: Path, step: int, score: float | None) -> None:
        """Seal the files in the folder, make it the newest checkpoint, and delete what need not be kept."""
        files = sorted(entry for entry in partial.iterdir() if entry.suffix == ".pt")
        tree: dict[str, Any] = {
            "schema": SCHEMA,
            "step": step,
            "score": score,
            "files": {file.name: sha256_file(file) for file in files},
            "recipe": self._recipe,
        }
        write_json(partial / _MANIFEST, tree | {"sha256": _seal(tree)})
        flush_folder(partial)
        final = self.path / f"{step:08d}"
        shutil.rmtree(final, ignore_errors=True)  # of a run that went back behind it
        partial.rename(final)
        flush_folder(self.path)
        self._prune()

    def newest(self) -> tuple[Checkpoint | None, list[str]]:
        """Return the newest checkpoint that is whole, and what is wrong with newer ones."""
        problems: list[str] = []
        for path in self._folders():
            try:
                return verified(path), problems
            except CheckpointError as error:
                problems.append(str(error))
        return None, problems

    def finish(self) -> None:
        """Delete what a finished stage does not need: everything but the best."""
        best = self._best() if self.config.keep_best else None
        for path in self._folders():
            if path != best:
                shutil.rmtree(path)
        self._sweep()
        if self.path.is_dir() and not any(self.path.iterdir()):
            self.path.rmdir()
            if not any(self.path.parent.iterdir()):
                self.path.parent.rmdir()

    def clear(self) -> None:
        """Delete all checkpoints."""
        shutil.rmtree(self.path, ignore_errors=True)

    def _folders(self) -> list[Path]:
        """Return the checkpoints, the newest first."""
        if not self.path.is_dir():
            return []
        return sorted((entry for entry in self.path.iterdir() if entry.name.isdigit()), reverse=True)

    def _best(self) -> Path | None:
        scored = [(score, path) for path in self._folders() if (score := _score(path)) is not None]
        return min(scored)[1] if scored else None

    def _prune(self) -> None:
        folders = self._folders()
        best = self._best() if self.config.keep_best else None
        for path in folders[self.config.keep_last :]:
            if path != best:
                shutil.rmtree(path)
        self._sweep()

    def _sweep(self) -> None:
        """Delete what a killed process left half-written."""
        for path in self.path.glob(f"{_PARTIAL}*"):
            shutil.rmtree(path, ignore_errors=True)


def rank_file(rank: int) -> str:
    """Return the name of the file with the state of one rank."""
    return f"rank-{rank:05d}.pt"


def write_state(path: Path, state: Mapping[str, Any]) -> None:
    """Write tensors, numbers and texts in nested containers, and flush them to disk.

    Raises:
        OSError: Writing failed.
    """
    with _full_disks_named(path), path.open("wb") as file:
        torch.save(state, file)
        file.flush()
        os.fsync(file.fileno())


def read_state(path: Path) -> dict[str, Any]:
    """Return what `write_state` wrote, on the CPU; a file that would run code is refused.

    Raises:
        CheckpointError: The file cannot be read.
    """
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds for files that are not its own
        reason = str(error).partition("\n")[0]
        raise CheckpointError(
            f"{path}: cannot be read ({reason}); delete {path.parent}, the one before is used"
        ) from error
    return state


def verified(path: Path) -> Checkpoint:
    """Return the checkpoint in a folder after comparing every hash.

    Raises:
        CheckpointError: It is incomplete, damaged, or of another schema.
    """
    tree = _manifest(path)
    for name, sha256 in tree["files"].items():
        file = path / name
        if not file.is_file():
            raise CheckpointError(f"{path} has no {name}")
        if sha256_file(file) != sha256:
            raise CheckpointError(f"{file} does not match its checksum")
    return Checkpoint(path=path, step=tree["step"], score=tree["score"], recipe=tree["recipe"])


def flush_folder(path: Path) -> None:
    """Flush the names in a folder to disk, so that a rename survives a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _manifest(path: Path) -> dict[str, Any]:
    try:
        tree = json.loads((path / _MANIFEST).read_text("utf-8"))
        seal = tree.pop("sha256")
    except (OSError, ValueError, KeyError, AttributeError, RecursionError) as error:
        raise CheckpointError(f"{path} has no readable {_MANIFEST}") from error
    if seal != _seal(tree):
        raise CheckpointError(f"{path / _MANIFEST} does not match its checksum")
    if tree["schema"] != SCHEMA:
        raise CheckpointError(f"{path} has schema {tree['schema']}; this version reads {SCHEMA}")
    return tree


def _score(path: Path) -> float | None:
    try:
        score: float | None = _manifest(path)["score"]
    except CheckpointError:
        return None
    return score


def _seal(tree: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(tree, sort_keys=True).encode()).hexdigest()


@contextmanager
def _full_disks_named(path: Path) -> Iterator[None]:
    """Turn what torch makes of a failed write back into the error of the system."""
    try:
        yield
    except OSError as error:
        error.filename = error.filename or str(path)
        raise
    except RuntimeError as error:
        cause = error.__context__
        if isinstance(cause, OSError):
            cause.filename = cause.filename or str(path)
            raise cause from error
        raise
