"""Which frame caches there are, and how to get rid of them."""

import shutil
import time
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from tcvq_data.frames.build import building, partial_folder
from tcvq_data.frames.manifest import MANIFEST, Manifest, cache_home, check_cache
from tcvq_data.interface import ArtifactError


class CacheEntry(NamedTuple):
    """One cache on disk.

    Attributes:
        path: Its folder.
        dataset: Name of the dataset.
        n_bytes: Size of its files.
        built: When its manifest was written, or the folder changed, in seconds since 1970.
        manifest: What it holds, None if it cannot be read.
        fault: Why not; empty if it can.
    """

    path: Path
    dataset: str
    n_bytes: int
    built: float
    manifest: Manifest | None
    fault: str


def list_caches(root: Path | None = None) -> list[CacheEntry]:
    """Return all frame caches under a data root, sorted by path; unfinished ones too."""
    return [_entry(path) for path in sorted(cache_home(root).glob("*/*")) if path.is_dir()]


def prune_caches(
    root: Path | None = None,
    *,
    dataset: str | None = None,
    older_than_days: int | float | None = None,
    dry_run: bool = False,
) -> list[CacheEntry]:
    """Delete frame caches that cannot be read: unfinished, damaged or of another version; and old ones if asked to.

    What a living process is building stays.

    Args:
        root: Folder of all datasets.
        dataset: Only those of this dataset.
        older_than_days: Also complete caches built so many days ago or earlier; 0 deletes all.
        dry_run: Delete nothing.

    Returns:
        What was deleted, or would be.
    """
    gone = []
    for entry in list_caches(root):
        old = older_than_days is not None and entry.built <= time.time() - older_than_days * 86400
        if (entry.manifest is not None and not old) or dataset not in (None, entry.dataset):
            continue
        folder = entry.path.with_name(entry.path.name.removeprefix(".partial-"))
        with suppress(BlockingIOError), building(folder, wait=False):
            gone.append(entry)
            if not dry_run:
                shutil.rmtree(entry.path, ignore_errors=True)
                if not folder.exists() and not partial_folder(folder).exists():
                    folder.with_name(f".lock-{folder.name}").unlink(missing_ok=True)
    return gone


def _entry(path: Path) -> CacheEntry:
    """Describe one folder."""
    manifest, fault, built = None, "", path.stat().st_mtime
    try:
        if path.name.startswith(".partial-"):
            raise ArtifactError(f"{path}: unfinished; opening the dataset goes on with it")
        manifest = check_cache(path)
        built = (path / MANIFEST).stat().st_mtime
    except ArtifactError as error:
        fault = str(error)
    n_bytes = sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
    return CacheEntry(path, path.parent.name, n_bytes, built, manifest, fault)
