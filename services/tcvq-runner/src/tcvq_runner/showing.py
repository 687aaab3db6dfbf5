"""Pictures and numbers of a dataset, so that its user sees what a network will see."""

import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np

from tcvq_data import (
    NMNIST_RECORDING,
    DataOptions,
    EmptyRecordingError,
    EventFrames,
    ImageSource,
    event_statistics,
    is_event_dataset,
    open_dataset,
    open_recordings,
    read_batch,
    write_bytes,
)
from tcvq_eval import class_grid, event_gif, event_strips, image_grid
from tcvq_runner.progress import Reporter, announced

COLUMNS = 8
N_STRIPS, N_STEPS_SHOWN = 8, 12


def show_dataset(name: str, split: str, options: DataOptions, *, n: int, out: Path, reporter: Reporter) -> list[str]:
    """Write a contact sheet of a dataset, or strips and a GIF of its recordings, and describe it.

    Args:
        name: Name of the dataset.
        split: ``train``, ``test`` or ``val``.
        options: How it is read; ``limit`` should not exceed ``n`` where only the first samples are wanted.
        n: Samples to show, at most.
        out: Folder to write into; made if need be.
        reporter: Shows the building of a cache of recordings.

    Returns:
        Lines to print: what was found, and the files.

    Raises:
        ValueError: Name, split or an option is unknown.
        MissingDataError: The data are not there.
        ArtifactError: They are damaged.
        OSError: A file cannot be written.
    """
    events = is_event_dataset(name)
    with announced(reporter, "recording") as progress:
        source = open_dataset(name, split, options, progress=partial(progress, "cache"))
    out.mkdir(parents=True, exist_ok=True)
    stem = out / f"{_slug(name)}-{split}"
    lines = list(_facts(name, split, source))
    files = _recordings(stem, source, n) if events else _images(stem, source, n)
    if events:
        lines += _statistics(name, split, options, min(n, len(source)))
    return [*lines, *(f"wrote {path}" for path in files)]


def _slug(name: str) -> str:
    """Return a file name for a dataset: its name, or the last part of the path of data of one's own."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name.rstrip("/").rpartition("/")[2].rpartition(":")[2]) or "dataset"


def _facts(name: str, split: str, source: ImageSource) -> Iterator[str]:
    """Yield what the source says of itself."""
    shape = "x".join(str(size) for size in source[0].image.shape)
    note = f", {source.note}" if isinstance(source, EventFrames) and source.note else ""
    yield f"{name}, {split} split: {len(source)} samples of {shape}{note}"
    if source.classes:
        counts = np.bincount(source.labels[source.labels >= 0].numpy(), minlength=len(source.classes))
        each = ", ".join(f"{label} {count}" for label, count in zip(source.classes[:10], counts, strict=False))
        yield f"{len(source.classes)} classes: {each}{', …' if len(source.classes) > 10 else ''}"
    if skipped := getattr(source, "skipped", 0):
        yield f"{skipped} files left out, see the warnings"


def _images(stem: Path, source: ImageSource, n: int) -> list[Path]:
    """Draw a contact sheet, one row per class where there are few."""
    images, labels = read_batch(source, list(range(min(n, len(source)))))
    scale = max(1, 96 // images.shape[-1])
    present = sorted(set(labels.tolist()))
    if source.classes and present[0] >= 0 and len(present) <= 12:
        place = labels.clone()
        for row, label in enumerate(present):
            place[labels == label] = row
        sheet = class_grid(images, place, [source.classes[i] for i in present], per_class=COLUMNS, scale=scale)
    else:
        sheet = image_grid(images, COLUMNS, scale=scale)
    path = stem.with_name(f"{stem.name}.png")
    write_bytes(path, sheet)
    return [path]


def _recordings(stem: Path, source: ImageSource, n: int) -> list[Path]:
    """Draw strips of the first recordings, one row each, and play them side by side."""
    assert isinstance(source, EventFrames)
    counts = source.counts(list(range(min(n, len(source), N_STRIPS))))
    names = [source.classes[i] if i >= 0 else "" for i in source.labels[: len(counts)].tolist()]
    strips, gif = stem.with_name(f"{stem.name}.png"), stem.with_name(f"{stem.name}.gif")
    write_bytes(strips, event_strips(counts[:, :N_STEPS_SHOWN], row_labels=names))
    write_bytes(gif, event_gif(counts))
    return [strips, gif]


def _statistics(name: str, split: str, options: DataOptions, n: int) -> Iterator[str]:
    """Yield a table: the recordings' statistics beside those of a real recording of N-MNIST."""
    recordings, found = open_recordings(name, split, options), []
    for i in range(min(n, len(recordings.labels))):
        try:
            found.append(event_statistics(recordings.read(i)))
        except EmptyRecordingError:
            continue
    yield f"{'statistics':<22}{f'mean of {len(found)}':>12}{'lowest':>10}{'highest':>10}{'N-MNIST, one 4':>17}"
    for field in NMNIST_RECORDING._fields:
        values = np.array([getattr(each, field) for each in found], float).reshape(len(found), -1)
        real = np.atleast_1d(getattr(NMNIST_RECORDING, field))
        for k in range(values.shape[1]):
            label = f"{field}{f' {k + 1}' if values.shape[1] > 1 else ''}".replace("_", " ")
            mean, low, high, one = (
                f"{x:.4g}" for x in (values[:, k].mean(), values[:, k].min(), values[:, k].max(), real[k])
            )
            yield f"{label:<22}{mean:>12}{low:>10}{high:>10}{one:>17}"
