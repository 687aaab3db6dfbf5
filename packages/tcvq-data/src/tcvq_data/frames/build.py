"""Building of a frame cache: one builder at a time, resumable part by part, and visible only when it is complete."""

import hashlib
import io
import logging
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.lib import format as npy

from tcvq_data.files import write_bytes
from tcvq_data.frames.manifest import Manifest, array_names, cache_key, check_cache, write_manifest
from tcvq_data.frames.parts import DamagedPartError, Job, read_frames, read_head, write_part
from tcvq_data.frames.recordings import Recordings
from tcvq_data.frames.worker import build_in_processes
from tcvq_data.interface import ArtifactError, EventOptions

Progress = Callable[[int, int], object]

_PARTS_PER_WORKER = 16  # a process takes seconds to start
_logger = logging.getLogger(__name__)


def build_cache(
    folder: Path,
    key: dict[str, object],
    recordings: Recordings,
    options: EventOptions,
    *,
    workers: int | None = None,
    progress: Progress | None = None,
) -> Manifest:
    """Make the cache ``folder``, unless another process has made it meanwhile, and return its manifest.

    Parts that a builder finished before it was killed are taken over.

    Args:
        folder: Where it must appear; what is there and may not be read is deleted.
        key: What `cache_key` says of recordings and options.
        recordings: The recordings.
        options: How they become frames.
        workers: Number of processes; None takes the usable CPUs, but no process for less than it costs to start.
        progress: Called with the number of recordings done and of all.

    Raises:
        ArtifactError: No recording could be read, or they changed meanwhile.
        OSError: Writing failed.
    """
    with building(folder):
        try:
            return check_cache(folder, key=key, deep=True)
        except ArtifactError as error:
            if folder.exists():
                _logger.warning("frame cache is built again: %s", error)
                shutil.rmtree(folder)
        partial = partial_folder(folder)
        partial.mkdir(exist_ok=True)
        job = Job(recordings=recordings, options=options, folder=partial)
        manifest = _built(job, key, workers, progress)
        try:
            (partial / "done").rename(folder)
        except OSError:
            if not folder.exists():
                raise
            manifest = check_cache(folder, key=key)  # won by a process that the lock cannot see, on a network disk
        shutil.rmtree(partial)
    _logger.info("%s: %d recordings, %d skipped", folder, manifest.shape[0], len(manifest.skipped))
    return manifest


def partial_folder(folder: Path) -> Path:
    """Return where the parts of a cache lie while it is built."""
    return folder.with_name(f".partial-{folder.name}")


@contextmanager
def building(folder: Path, *, wait: bool = True) -> Iterator[None]:
    """Keep all others from building this cache; the lock ends with the process that holds it.

    Raises:
        BlockingIOError: ``wait`` is False and another process is building.
    """
    import fcntl

    folder.parent.mkdir(parents=True, exist_ok=True)
    path = folder.with_name(f".lock-{folder.name}")
    while True:
        with path.open("ab") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if not wait:
                    raise
                _logger.info("%s: another process is building it; waiting", folder)
                fcntl.flock(file, fcntl.LOCK_EX)
            if not _same_file(file.fileno(), path):
                continue  # the one before us has deleted it
            yield
            return


def _same_file(opened: int, path: Path) -> bool:
    """Return whether an open file is still the one at ``path``."""
    try:
        return os.path.samestat(os.fstat(opened), path.stat())
    except FileNotFoundError:
        return False


def _built(job: Job, key: dict[str, object], workers: int | None, progress: Progress | None) -> Manifest:
    """Build what is missing, put everything together in the folder ``done``, and return its manifest."""
    while True:
        _build_parts(job, workers, progress)
        if cache_key(job.recordings, job.options) != key:
            shutil.rmtree(job.folder)
            raise ArtifactError(f"{job.recordings.dataset}: recordings changed while they were read; run again")
        try:
            return _assemble(job, key)
        except DamagedPartError as error:
            _logger.warning("built again: %s", error)
            error.path.unlink()


def _build_parts(job: Job, workers: int | None, progress: Progress | None) -> None:
    """Build the parts that are missing."""
    missing, total = job.missing(), len(job.recordings.labels)
    if not missing:
        return
    if workers is None:
        workers = min(len(os.sched_getaffinity(0)), len(missing) // _PARTS_PER_WORKER)
    n_done = job.n_parts - len(missing)
    name = f"{job.recordings.dataset}/{job.recordings.split}"
    _logger.info(
        "%s: reading %d recordings, %d of %d parts are there, %d processes, into %s",
        *(name, total, n_done, job.n_parts, max(workers, 1), job.folder),
    )
    finished = build_in_processes(job, missing, workers) if workers > 1 else _build_here(job, missing)
    for done, _ in enumerate(finished, n_done + 1):
        if progress is not None:
            progress(done * total // job.n_parts, total)


def _build_here(job: Job, numbers: list[int]) -> Iterator[int]:
    """Build parts in this process."""
    for number in numbers:
        write_part(job, number)
        yield number


def _assemble(job: Job, key: dict[str, object]) -> Manifest:
    """Write frames, labels and, last of all, the manifest."""
    recordings, done = job.recordings, job.folder / "done"
    shutil.rmtree(done, ignore_errors=True)
    done.mkdir()
    heads = [read_head(job.path(number)) for number in range(job.n_parts)]
    skipped = [(recordings.name(i), why) for head in heads for i, why in head.skipped]
    kept = np.concatenate([head.kept for head in heads])
    if len(kept) == 0:
        name = f"{recordings.dataset}/{recordings.split}"
        shutil.rmtree(job.folder)
        raise ArtifactError(f"{name}: none of {len(skipped)} recordings can be used; the first: {skipped[0][1]}")
    max_count = max(head.max_count for head in heads)
    dtype: Literal["uint8", "uint16"] = "uint8" if max_count <= 255 else "uint16"
    shape = (len(kept), job.options.n_steps, 2, recordings.height, recordings.width)
    frames, labels = (done / name for name in array_names(recordings.split))
    manifest = Manifest(
        key=key,
        classes=recordings.classes,
        note=recordings.note,
        shape=shape,
        dtype=dtype,
        max_count=max_count,
        total_events=sum(head.total_events for head in heads),
        duration_us=sum(head.duration_us for head in heads) // len(kept),
        skipped=tuple(skipped),
        arrays={
            frames.name: _write_frames(frames, job, np.dtype(dtype), shape),
            labels.name: _write_labels(labels, np.array(recordings.labels, np.int64)[kept]),
        },
    )
    write_manifest(done, manifest)
    return manifest


def _write_frames(path: Path, job: Job, dtype: np.dtype, shape: tuple[int, ...]) -> dict[str, object]:
    """Write all frames as one ``.npy`` file, and return its size and hash."""
    digest = hashlib.sha256()
    with path.open("w+b") as file:
        npy.write_array_header_1_0(file, {"descr": npy.dtype_to_descr(dtype), "fortran_order": False, "shape": shape})
        file.seek(0)
        digest.update(file.read())
        for number in range(job.n_parts):
            data = read_frames(job.path(number)).astype(dtype, copy=False).tobytes()
            file.write(data)
            digest.update(data)
        file.flush()
        os.fsync(file.fileno())
    return {"bytes": path.stat().st_size, "sha256": digest.hexdigest()}


def _write_labels(path: Path, labels: np.ndarray) -> dict[str, object]:
    """Write the labels as an ``.npy`` file, and return its size and hash."""
    buffer = io.BytesIO()
    np.save(buffer, labels)
    data = buffer.getvalue()
    write_bytes(path, data)
    return {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
