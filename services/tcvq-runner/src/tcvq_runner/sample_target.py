"""Where a draw goes: the run, a folder of its own, or the folder of the same draw that was interrupted."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tcvq_runner.lock import LOCK, RunFolderError, locked
from tcvq_runner.run_dir import RunFolder, timestamped
from tcvq_runner.sampling_job import PARTS
from tcvq_runner.sampling_plan import Plan, read_plan

_FOLLOWING = {"micro_batch", "threads"}  # what a draw that goes on takes over


@contextmanager
def sample_folder(
    run: RunFolder, out: Path | None, plan: Plan, *, fresh: bool, shared: bool = False
) -> Iterator[RunFolder]:
    """Yield the folder for a draw.

    Args:
        run: The run that draws; its own folder takes a draw without wishes.
        out: The folder that was asked for.
        plan: The draw.
        fresh: The draw has wishes of its own, so that it must not replace the run's.
        shared: Several commands work there, so that it is not locked.

    Raises:
        RunFolderError: ``out`` is in use, or holds something else than the beginning of a draw.
        OSError: It cannot be created.
    """
    if out is None and fresh:
        out = _begun(run.path, plan) or timestamped(run.path, "samples-")
    if out is None or out.resolve() == run.path.resolve():
        yield run
        return
    if out.exists() and not out.is_dir():
        raise RunFolderError(f"{out} exists and is not a folder; choose another with --out")
    out.mkdir(parents=True, exist_ok=True)
    try:
        if shared:
            _check_empty(out)
            yield RunFolder(out)
        else:
            with locked(out):
                _check_empty(out)
                yield RunFolder(out)
    finally:
        with suppress(OSError):  # a draw that failed before its first file leaves no folder; a filled one stays
            out.rmdir()


def _check_empty(path: Path) -> None:
    if any(entry.name not in (LOCK, PARTS) for entry in path.iterdir()):
        raise RunFolderError(f"{path} is not empty; choose another folder with --out, or delete it first")


def _begun(run: Path, plan: Plan) -> Path | None:
    """Return the folder of the same draw if it was interrupted."""
    for path in sorted(run.glob(f"samples-*/{PARTS}/manifest.json")):
        with suppress(RunFolderError):
            found = read_plan(path.parent)
            if all(getattr(found, key) == getattr(plan, key) for key in Plan.__slots__ if key not in _FOLLOWING):
                return path.parent.parent
    return None
