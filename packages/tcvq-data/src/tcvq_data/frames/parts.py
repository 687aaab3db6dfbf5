"""Building in parts: a fixed number of recordings each, every part a file that appears whole, so that work survives."""

import io
import json
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Int64, UInt8, UInt16

from tcvq_data.events import EmptyRecordingError, EventStream
from tcvq_data.files import atomic_path
from tcvq_data.frames.recordings import Recordings, count_frames
from tcvq_data.interface import ArtifactError, EventOptions

PART = 32  # recordings per part


@dataclass(frozen=True, kw_only=True)
class Job:
    """What to build, and the folder that takes the parts; picklable.

    Attributes:
        recordings: The recordings.
        options: How they become frames.
        folder: Of the parts.
    """

    recordings: Recordings
    options: EventOptions
    folder: Path

    @property
    def n_parts(self) -> int:
        """Number of parts."""
        return -(-len(self.recordings.labels) // PART)

    def path(self, number: int) -> Path:
        """Return the file of one part."""
        return self.folder / f"part-{number:06d}.npz"

    def missing(self) -> list[int]:
        """Return the numbers of the parts that are not there."""
        return [number for number in range(self.n_parts) if not self.path(number).exists()]


class DamagedPartError(ArtifactError):
    """A part cannot be read; `path` names it."""

    def __init__(self, path: Path, reason: object) -> None:
        super().__init__(f"{path}: damaged ({reason})")
        self.path = path


@dataclass(frozen=True, kw_only=True)
class PartHead:
    """A part without its frames.

    Attributes:
        kept: Numbers of the recordings that have frames.
        skipped: Number and reason of the others.
        max_count: Largest count, 0 if there are no frames.
        total_events: Sum of all counts.
        duration_us: Sum of the times from first to last event.
    """

    kept: Int64[np.ndarray, " n"]
    skipped: list[tuple[int, str]]
    max_count: int
    total_events: int
    duration_us: int


def write_part(job: Job, number: int) -> None:
    """Read, denoise and bin the recordings of one part, and write them; the same part always gets the same content.

    Raises:
        OSError: Writing failed.
    """
    recordings, n_steps = job.recordings, job.options.n_steps
    frames, kept, skipped, duration = [], [], [], 0
    for i in range(number * PART, min((number + 1) * PART, len(recordings.labels))):
        try:
            events = recordings.read(i)
            counts = _counts(recordings.name(i), events, job.options)
        except ArtifactError as error:
            skipped.append((i, str(error)))
            continue
        frames.append(counts)
        kept.append(i)
        duration += int(events.t.max() - events.t.min()) + 1
    stacked = np.array(frames, np.uint16).reshape(-1, n_steps, 2, recordings.height, recordings.width)
    max_count = int(stacked.max(initial=0))
    head = {
        "skipped": skipped,
        "max_count": max_count,
        "total_events": int(stacked.sum(dtype=np.int64)),
        "duration_us": duration,
    }
    small = stacked.astype(np.uint8) if max_count <= 255 else stacked
    text = np.frombuffer(json.dumps(head).encode(), np.uint8)
    with atomic_path(job.path(number)) as temporary:
        np.savez(temporary, frames=small, kept=np.array(kept, np.int64), head=text)


def _counts(name: str, events: EventStream, options: EventOptions) -> UInt16[np.ndarray, "T 2 H W"]:
    """Return the frames of one recording, or raise `ArtifactError` if there is nothing in them or too much."""
    if len(events) == 0:
        raise EmptyRecordingError(f"{name}: holds no events")
    try:
        counts = count_frames(events, options)
    except ValueError as error:
        raise ArtifactError(f"{name}: {error}") from None
    if not counts.any():
        raise EmptyRecordingError(f"{name}: none of its {len(events)} events is left after denoising and binning")
    return counts


def read_head(path: Path) -> PartHead:
    """Return what a part says of itself.

    Raises:
        DamagedPartError: It cannot be read.
    """
    arrays = _load(path, ("kept", "head"))
    tree = json.loads(arrays["head"].tobytes())
    return PartHead(kept=arrays["kept"], **(tree | {"skipped": [(int(i), str(why)) for i, why in tree["skipped"]]}))


def read_frames(path: Path) -> UInt8[np.ndarray, "n T 2 H W"] | UInt16[np.ndarray, "n T 2 H W"]:
    """Return the frames of a part; the checksum that every member of a zip file has is verified.

    Raises:
        DamagedPartError: It cannot be read.
    """
    return _load(path, ("frames",))["frames"]


def _load(path: Path, names: tuple[str, ...]) -> dict[str, np.ndarray]:
    """Return some arrays of a part."""
    try:
        with zipfile.ZipFile(path) as archive:  # reads members whole, so that their checksums are verified
            return {name: np.load(io.BytesIO(archive.read(f"{name}.npy")), allow_pickle=False) for name in names}
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile, zlib.error) as error:
        raise DamagedPartError(path, error) from None
