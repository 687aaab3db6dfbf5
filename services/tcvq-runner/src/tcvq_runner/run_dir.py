"""Run folders: where the files of a run lie, who may write there now, and which steps are done."""

import json
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from tcvq_data import ArtifactError, read_codes, sha256_file, write_json, write_text
from tcvq_runner.config import Recipe
from tcvq_runner.distributed import process_rank
from tcvq_runner.lock import LOCK, RunFolderError, locked
from tcvq_runner.recipe import ConfigError, differing_keys, dump_recipe, load_recipe

SCHEMA = "tcvq.run/1"
ORDER = ("stage1", "encode", "stage2", "sample", "eval")
_AFTER_STAGE1 = {"prior", "stage2", "sample", "eval"}  # sections that may change once stage 1 is trained


@dataclass(frozen=True, slots=True)
class RunFolder:
    """The folder of one run.

    Attributes:
        path: The folder.
    """

    path: Path

    @property
    def config(self) -> Path:
        """The resolved recipe."""
        return self.path / "config.yaml"

    @property
    def env(self) -> Path:
        """Versions, machine and command line."""
        return self.path / "env.json"

    @property
    def status(self) -> Path:
        """Which steps are done, how long they took, and the hashes of what they made."""
        return self.path / "run.json"

    @property
    def vqvae(self) -> Path:
        """The trained VQ-VAE."""
        return self.path / "vqvae.safetensors"

    def codes(self, split: str) -> Path:
        """Return the path of the codes of ``train`` or ``test``, a folder."""
        return self.path / f"codes_{split}"

    @property
    def prior(self) -> Path:
        """The trained prior."""
        return self.path / "prior.safetensors"

    @property
    def samples(self) -> Path:
        """The drawn indices and images."""
        return self.path / "samples.safetensors"

    @property
    def samples_png(self) -> Path:
        """A sheet of the first samples."""
        return self.path / "samples.png"

    @property
    def reconstructions_png(self) -> Path:
        """A sheet of test images above their reconstructions."""
        return self.path / "reconstructions.png"

    @property
    def metrics(self) -> Path:
        """Training curves of all stages."""
        return self.path / "metrics.csv"

    def checkpoints(self, stage: str) -> Path:
        """Return the folder of the checkpoints of a training stage."""
        return self.path / "checkpoints" / stage

    @property
    def report_json(self) -> Path:
        """Every measured number."""
        return self.path / "report.json"

    @property
    def report_html(self) -> Path:
        """The report for people."""
        return self.path / "report.html"

    def recipe(self, settings: tuple[str, ...] = ()) -> Recipe:
        """Return the recipe of the run, changed by settings.

        Raises:
            RunFolderError: The folder is not a run folder.
            ConfigError: Its ``config.yaml`` was damaged, or a setting is wrong.
        """
        if not self.config.is_file():
            raise RunFolderError(f"{self.path} is not a run folder (it has no config.yaml); start one with: tcvq run")
        return load_recipe(self.config, settings)

    def change(self, settings: tuple[str, ...]) -> Recipe:
        """Return the recipe of the run changed by settings, and store it as the run's recipe.

        Raises:
            RunFolderError: The folder is not a run folder.
            ConfigError: A setting is wrong, or changes what the trained VQ-VAE was made with.
        """
        before, after = self.recipe(), self.recipe(settings)
        fixed = [key for key in differing_keys(before, after) if key.partition(".")[0] not in _AFTER_STAGE1]
        if fixed:
            raise ConfigError(
                f"{fixed[0]} is fixed since stage 1 of {self.path} was trained; start a new run to change it"
            )
        return after

    def keep(self, recipe: Recipe) -> None:
        """Make ``recipe`` the run's own, once what it asks for has been made."""
        if recipe != self.recipe():
            write_text(self.config, dump_recipe(recipe))

    def need(self, path: Path) -> Path:
        """Return ``path``, a file or folder of this run, if it exists.

        Raises:
            RunFolderError: It does not; names the command that makes it.
        """
        if not path.exists():
            command = {
                self.vqvae: f"tcvq run {self.config}",
                self.prior: f"tcvq train stage2 {self.path}",
                self.samples: f"tcvq sample {self.path}",
            }.get(path, f"tcvq encode {self.path}")
            raise RunFolderError(
                f"{self.path} has no {path.name}, the step that makes it did not finish; try: {command}"
            )
        return path

    def steps(self) -> dict[str, Any]:
        """Return what ``step`` has stored: for each finished step its seconds and facts.

        Raises:
            RunFolderError: ``run.json`` is damaged.
        """
        if not self.status.exists():
            return {}
        try:
            tree = json.loads(self.status.read_text("utf-8"))
            if tree["schema"] != SCHEMA:
                raise RunFolderError(f"{self.status} has schema {tree['schema']!r}; this version reads {SCHEMA}")
            return dict(tree["steps"])
        except (KeyError, TypeError, UnicodeDecodeError, json.JSONDecodeError) as error:
            raise RunFolderError(f"{self.status} is damaged ({error}); delete it, only timings are lost") from error

    @contextmanager
    def step(self, name: str) -> Iterator[dict[str, Any]]:
        """Time a step, and store that it is done when the block ends well.

        Args:
            name: Name of the step.

        Yields:
            A dictionary for facts about the step, such as the SHA-256 of each file it made; JSON types.
        """
        facts: dict[str, Any] = {}
        started = time.monotonic()
        yield facts
        seconds = time.monotonic() - started + facts.pop("seconds_before", 0.0)
        entry = {"seconds": round(seconds, 2), **facts}
        if process_rank()[0] == 0:
            write_json(self.status, {"schema": SCHEMA, "steps": _with(self.steps(), name, entry)})

    def problem(self, name: str) -> str | None:
        """Return why a step has to be done: "" if it never ended well, None if all that it made is as it was then."""
        entry = self.steps().get(name)
        if entry is None:
            return ""
        made = {"stage1": ("vqvae",), "stage2": ("prior",), "sample": ("samples",)}.get(name, ())
        for fact in made:
            path: Path = getattr(self, fact)
            if not path.is_file():
                return f"{path} is missing"
            if sha256_file(path) != entry.get(fact):
                return f"{path} is not what {name} made"
        if name == "encode":
            return next(filter(None, (self._codes_problem(split, entry) for split in ("train", "test"))), None)
        if name == "eval" and not (self.report_json.is_file() and self.report_html.is_file()):
            return f"{self.report_html} or {self.report_json.name} is missing"
        return None

    def _codes_problem(self, split: str, entry: dict[str, Any]) -> str | None:
        try:
            found = read_codes(self.codes(split)).sha256
        except ArtifactError as error:
            return str(error)
        return None if found == entry.get(f"codes_{split}") else f"{self.codes(split)} is not what encode made"

    def unfinished(self) -> bool:
        """Return whether a step is left to do; looks at the record only."""
        return any(name not in self.steps() for name in ORDER)

    def has_progress(self) -> bool:
        """Return whether something would be lost by starting anew."""
        return bool(self.steps()) or any(self.path.glob("checkpoints/*/*"))

    def environment(self) -> dict[str, Any]:
        """Return the environment in which the run was started, nothing if it is unreadable."""
        try:
            tree = json.loads(self.env.read_text("utf-8"))
        except (OSError, ValueError):
            return {}
        return tree if isinstance(tree, dict) else {}

    def resumed(self, env: dict[str, Any]) -> None:
        """Add the environment in which the run is continued to that in which it was started."""
        tree = self.environment()
        write_json(self.env, tree | {"resumed": [*tree.get("resumed", []), env]})

    def sweep(self) -> None:
        """Delete what a killed process left half-written; needs the lock."""
        for path in self.path.glob(".tmp-*"):
            path.unlink(missing_ok=True)


def _with(steps: dict[str, Any], name: str, entry: dict[str, Any]) -> dict[str, Any]:
    """Return the record with a step done: those after it count as done only if it made the same as before."""

    def hashes(facts: dict[str, Any]) -> dict[str, Any]:
        return {key: value for key, value in facts.items() if isinstance(value, str)}

    same = hashes(steps.get(name, {})) == hashes(entry)
    later = ORDER[ORDER.index(name) + 1 :] if name in ORDER else ()
    return {key: value for key, value in steps.items() if same or key not in later} | {name: entry}


@contextmanager
def new_run(recipe: Recipe, out: Path | None, env: dict[str, Any]) -> Iterator[RunFolder]:
    """Create, lock and yield an empty run folder that holds the resolved recipe and the environment.

    Args:
        recipe: What will be run.
        out: The folder; by default ``runs/<recipe>/<time>``.
        env: Content of ``env.json``.

    Raises:
        RunFolderError: The folder is in use or not empty.
        OSError: It cannot be created.
    """
    path = timestamped(Path("runs") / recipe.name) if out is None else out
    with _empty_folder(path):
        folder = RunFolder(path)
        write_text(folder.config, dump_recipe(recipe))
        write_json(folder.env, env)
        yield folder


@contextmanager
def open_run(path: Path) -> Iterator[RunFolder]:
    """Lock and yield an existing run folder.

    Raises:
        RunFolderError: There is no such run, or another process works in it.
    """
    if not (path / "config.yaml").is_file():
        what = "is not a run folder (it has no config.yaml)" if path.exists() else "does not exist"
        raise RunFolderError(f"{path} {what}; start a run with: tcvq run")
    with locked(path):
        yield RunFolder(path)


@contextmanager
def _empty_folder(path: Path) -> Iterator[Path]:
    """Create and lock an empty folder; refuse one that holds anything."""
    if path.exists() and not path.is_dir():
        raise RunFolderError(f"{path} exists and is not a folder; choose another with --out")
    path.mkdir(parents=True, exist_ok=True)
    with locked(path):
        if any(entry.name != LOCK for entry in path.iterdir()):
            raise RunFolderError(f"{path} is not empty; choose another folder with --out, or delete it first")
        yield path


def timestamped(parent: Path, prefix: str = "") -> Path:
    """Return a path named by the time that does not exist yet."""
    path = parent / datetime.now().astimezone().strftime(f"{prefix}%Y%m%d-%H%M%S")
    return path.with_name(f"{path.name}-{secrets.token_hex(3)}") if path.exists() else path
