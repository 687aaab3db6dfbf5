"""What identifies a frame cache, the manifest that is written last, and whether a folder may be read."""

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from tcvq_data.files import sha256_file, write_json
from tcvq_data.frames.recordings import Recordings
from tcvq_data.interface import ArtifactError, EventOptions
from tcvq_data.layout import data_root

CACHE_VERSION = 1  # raise it when the same recordings and options give other frames
MANIFEST = "meta.json"


@dataclass(frozen=True, kw_only=True, slots=True)
class Manifest:
    """Content of ``meta.json``.

    Attributes:
        key: All that determines the frames, spelled out; its hash names the folder.
        classes: Names of the classes.
        note: What a reader of results must know of the recordings' origin; may be empty.
        shape: ``(N, T, 2, H, W)`` of the frames; channel 0 is OFF, channel 1 is ON.
        dtype: ``uint8``, or ``uint16`` where a count exceeds 255.
        max_count: Largest count, at least 1.
        total_events: Sum of all counts.
        duration_us: Mean time from first to last event, in microseconds.
        skipped: Recordings left out, as pairs of name and reason.
        arrays: Size and SHA-256 of each file.
    """

    key: dict[str, object]
    classes: tuple[str, ...]
    note: str
    shape: tuple[int, ...]
    dtype: Literal["uint8", "uint16"]
    max_count: int
    total_events: int
    duration_us: int
    skipped: tuple[tuple[str, str], ...]
    arrays: dict[str, dict[str, object]]

    @property
    def dataset(self) -> str:
        """Name of the dataset."""
        return str(self.key["dataset"])

    @property
    def split(self) -> str:
        """Name of the split."""
        return str(self.key["split"])


def cache_key(recordings: Recordings, options: EventOptions) -> dict[str, object]:
    """Return all that determines the frames of some recordings, as JSON types."""
    return {
        "version": CACHE_VERSION,
        "dataset": recordings.dataset,
        "split": recordings.split,
        "recordings": recordings.identity(),
        "sensor": [recordings.height, recordings.width],
        "n_steps": options.n_steps,
        "rule": options.rule,
        "denoise_us": options.denoise_us,
        "stabilise": options.stabilise,
    }


def cache_home(root: Path | None) -> Path:
    """Return the folder of all frame caches under a data root."""
    return data_root(root) / ".cache" / "frames"


def cache_folder(root: Path | None, key: dict[str, object]) -> Path:
    """Return the folder of the cache with this key."""
    canonical = json.dumps(key, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return cache_home(root) / str(key["dataset"]) / hashlib.sha256(canonical.encode()).hexdigest()[:12]


def array_names(split: str) -> tuple[str, str]:
    """Return the names of the files of frames and of labels."""
    return f"{split}.npy", f"{split}_labels.npy"


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write ``meta.json`` atomically."""
    write_json(folder / MANIFEST, asdict(manifest))


def read_manifest(folder: Path) -> Manifest:
    """Return the content of ``meta.json``.

    Raises:
        ArtifactError: It is missing, damaged or of another version.
    """
    try:
        tree = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        if tree["key"]["version"] != CACHE_VERSION:
            raise ArtifactError(f"{folder}: version {tree['key']['version']}, not {CACHE_VERSION}")
        tree |= {name: tuple(tree[name]) for name in ("classes", "shape")}
        tree["skipped"] = tuple((str(name), str(reason)) for name, reason in tree["skipped"])
        manifest = Manifest(**tree)
        if len(manifest.shape) != 5 or set(manifest.arrays) != set(array_names(manifest.split)):
            raise ValueError(f"shape {manifest.shape}, files {sorted(manifest.arrays)}")
    except ArtifactError:
        raise
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ArtifactError(f"{folder}: {MANIFEST} is missing or damaged ({error})") from None
    return manifest


def check_cache(folder: Path, *, key: dict[str, object] | None = None, deep: bool = False) -> Manifest:
    """Return the manifest of a cache whose files are as they were written.

    Sizes, types and shapes are always checked. A file changed after the manifest was written is hashed, and with
    ``deep`` all are; hashing also finds what changes neither size nor time, such as a failing disk.

    Args:
        folder: The cache.
        key: What it must have been made from; None takes any.
        deep: Hash every file.

    Raises:
        ArtifactError: The cache must not be read; the message says why.
    """
    manifest = read_manifest(folder)
    if key is not None and manifest.key != key:
        raise ArtifactError(f"{folder}: made from other recordings or with other options")
    written, edited = (folder / MANIFEST).stat().st_mtime_ns, False
    n, frames = manifest.shape[0], array_names(manifest.split)[0]
    for name, entry in manifest.arrays.items():
        path = folder / name
        try:
            found = path.stat()
            array = np.load(path, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise ArtifactError(f"{path}: missing or damaged ({error})") from None
        if found.st_size != entry.get("bytes"):
            raise ArtifactError(f"{path}: has {found.st_size} bytes, not {entry.get('bytes')}")
        expected = (manifest.shape, manifest.dtype) if name == frames else ((n,), "int64")
        if (array.shape, array.dtype) != expected:
            raise ArtifactError(f"{path}: holds {array.dtype} {array.shape}, not {expected[1]} {expected[0]}")
        edited |= found.st_mtime_ns > written
        if (deep or found.st_mtime_ns > written) and sha256_file(path) != entry.get("sha256"):
            raise ArtifactError(f"{path}: wrong checksum, edited or damaged")
    if edited:
        _mark_checked(folder)
    return manifest


def _mark_checked(folder: Path) -> None:
    """Make the manifest the newest file, so that a copied cache is hashed once and not at every opening."""
    try:
        (folder / MANIFEST).touch()
    except OSError:  # a read-only disk costs the hashing each time, no more
        return
