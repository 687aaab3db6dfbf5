"""The event datasets: where their recordings lie, which split each belongs to, and its class."""

import logging
import re
from collections.abc import Callable
from pathlib import Path

from tcvq_data.events import EventStream, read_aedat2, read_aedat4, read_nmnist
from tcvq_data.frames.build import Progress
from tcvq_data.frames.cache import FrameCache, open_cache
from tcvq_data.frames.recordings import SPLITS, FileRecordings, Recordings, SimulatedRecordings
from tcvq_data.frames.source import EventFrames
from tcvq_data.interface import ArtifactError, DataOptions
from tcvq_data.layout import data_root, missing_data

DVS_CIFAR10_CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
DVS_CIFAR10_TEST = range(100)  # numbers of the recordings of each class; the others are for training

_NMNIST_FOLDERS = {  # the zip files hold a folder of the split's name, which may lie in one named after the zip file
    split: (name, name.lower(), f"{name}/{name}", f"{name.lower()}/{name}")
    for split, name in (("train", "Train"), ("test", "Test"))
}
_logger = logging.getLogger(__name__)


def open_nmnist(
    split: str, options: DataOptions, *, workers: int | None = None, progress: Progress | None = None
) -> EventFrames:
    """Open N-MNIST: ``<root>/NMNIST/{Train,Test}/{0..9}/*.bin``, 60,000 and 10,000 recordings of 34x34 pixels.

    Recordings are sorted by their number, which is the image's number in MNIST, so that classes are mixed.

    Args:
        split: ``"train"`` or ``"test"``.
        options: Frames have 64x64 cells unless ``size`` is given.
        workers: Processes that build the cache, see `open_cache`.
        progress: Called with the number of recordings done and of all, while the cache is built.

    Raises:
        ValueError: An option or the split is unknown.
        MissingDataError: The files are not there.
        ArtifactError: No recording can be used.
    """

    def recordings(part: str) -> FileRecordings:
        return _nmnist(part, options)

    return _open("nmnist", split, options, recordings=recordings, default_size=64, workers=workers, progress=progress)


def open_dvs_cifar10(
    split: str, options: DataOptions, *, workers: int | None = None, progress: Progress | None = None
) -> EventFrames:
    """Open DVS-CIFAR10: ``<root>/DVSCIFAR10/<class>/cifar10_<class>_<0..999>.aedat``, recordings of 128x128 pixels.

    It has no official splits: numbers 0 to 99 of each class are the test split, 100 to 999 the training split.
    Recordings are sorted by number, then class. Files ending in ``.aedat4`` need the package ``aedat``; because the two
    formats may be oriented differently, they must not be mixed.

    Args:
        split: ``"train"`` or ``"test"``.
        options: Frames have 64x64 cells unless ``size`` is given. ``stabilise`` belongs to N-MNIST alone.
        workers: As `open_nmnist`.
        progress: As `open_nmnist`.

    Raises:
        ValueError: An option or the split is unknown.
        MissingDataError: The files are not there.
        ArtifactError: The two formats are mixed, a name has no number, or no recording can be used.
        ModuleNotFoundError: The package ``aedat`` is needed and not installed.
    """
    if options.events.stabilise:
        raise ValueError("stabilise=True undoes the saccades of N-MNIST; dvs-cifar10 was moved along another path")

    def recordings(part: str) -> FileRecordings:
        return _dvs_cifar10(part, options)

    return _open(
        "dvs-cifar10", split, options, recordings=recordings, default_size=64, workers=workers, progress=progress
    )


def open_fashion_mini_events(
    split: str, options: DataOptions, *, workers: int | None = None, progress: Progress | None = None
) -> EventFrames:
    """Open simulated saccades over the embedded images, 10,000 and 2,000 recordings of 34x34 pixels; needs no files.

    Frames have 32x32 cells unless ``size`` is given, the next multiple of 16 below the sensor's size, so that training
    costs what it does for images of 28x28 pixels. That shrinks them a little, and counts come back at 32x32; give 48 or
    64 to get them back exactly, at the sensor's size.

    Args:
        split: ``"train"`` or ``"test"``.
        options: ``seed`` is the simulation's.
        workers: As `open_nmnist`.
        progress: As `open_nmnist`.

    Raises:
        ValueError: An option or the split is unknown.
    """

    def recordings(part: str) -> SimulatedRecordings:
        return SimulatedRecordings(split=part, seed=options.seed, limit=options.limit)

    return _open(
        "fashion-mini-events",
        split,
        options,
        recordings=recordings,
        default_size=32,
        workers=workers,
        progress=progress,
    )


def open_recordings(name: str, split: str, options: DataOptions) -> Recordings:
    """Return the recordings of an event dataset as they are, before filter and frames.

    Raises:
        ValueError: The name or the split is unknown.
        MissingDataError: The files are not there.
    """
    if split not in SPLITS:
        raise ValueError(f"split {split!r} of {name} is unknown; it has {', '.join(SPLITS)}")
    if name == "fashion-mini-events":
        return SimulatedRecordings(split=split, seed=options.seed, limit=options.limit)
    of_files = {"nmnist": _nmnist, "dvs-cifar10": _dvs_cifar10}
    if name not in of_files:
        raise ValueError(f"{name!r} is no event dataset; these are: {', '.join(of_files)}, fashion-mini-events")
    return of_files[name](split, options)


def _nmnist(split: str, options: DataOptions) -> FileRecordings:
    """Find the recordings of N-MNIST."""
    home = data_root(options.root) / "NMNIST"
    folders = [home / name for name in _NMNIST_FOLDERS[split]]
    folder = next((found for found in folders if (found / "0").is_dir()), folders[0])
    found = []
    for label in range(10):
        inside = folder / str(label)
        if not inside.is_dir():
            raise missing_data("nmnist", inside)
        found += [(_number(path, r"(\d+)"), label, path) for path in inside.glob("*.bin")]
    return _recordings(
        found, options, dataset="nmnist", split=split, classes=tuple("0123456789"), folder=folder, side=34,
        read_file=read_nmnist,
    )  # fmt: skip


def _dvs_cifar10(split: str, options: DataOptions) -> FileRecordings:
    """Find the recordings of DVS-CIFAR10."""
    folder = data_root(options.root) / "DVSCIFAR10"
    found = []
    for label, name in enumerate(DVS_CIFAR10_CLASSES):
        if not (folder / name).is_dir():
            raise missing_data("dvs-cifar10", folder / name)
        paths = [path for path in (folder / name).iterdir() if path.suffix in (".aedat", ".aedat4")]
        found += [(_number(path, rf"(?:cifar10_)?{name}_(\d+)"), label, path) for path in paths]
    endings = sorted({path.suffix for _, _, path in found})
    if len(endings) > 1:
        raise ArtifactError(f"{folder}: mixes .aedat and .aedat4 files, which may be oriented differently; keep one")
    chosen = [item for item in found if (item[0] in DVS_CIFAR10_TEST) == (split == "test")]
    return _recordings(
        chosen, options, dataset="dvs-cifar10", split=split, classes=DVS_CIFAR10_CLASSES, folder=folder, side=128,
        read_file=read_aedat4 if endings == [".aedat4"] else read_aedat2,
    )  # fmt: skip


def _number(path: Path, pattern: str) -> int:
    """Return the number in the name of a recording."""
    match = re.fullmatch(pattern, path.stem)
    if match is None:
        raise ArtifactError(f"{path}: its name has no number of the form {pattern}; not of this dataset? move it away")
    return int(match[1])


def _recordings(
    found: list[tuple[int, int, Path]],
    options: DataOptions,
    *,
    dataset: str,
    split: str,
    classes: tuple[str, ...],
    folder: Path,
    side: int,
    read_file: Callable[[Path], EventStream],
) -> FileRecordings:
    """Sort recordings by number, then class, and take the first ones."""
    if not found:
        raise missing_data(dataset, folder / classes[0] / f"recordings of the {split} split")
    taken = sorted(found)[: options.limit]
    return FileRecordings(
        dataset=dataset,
        split=split,
        classes=classes,
        labels=tuple(label for _, label, _ in taken),
        height=side,
        width=side,
        folder=folder,
        files=tuple(path.relative_to(folder).as_posix() for _, _, path in taken),
        read_file=read_file,
    )


def _open(
    name: str,
    split: str,
    options: DataOptions,
    *,
    recordings: Callable[[str], Recordings],
    default_size: int,
    workers: int | None,
    progress: Progress | None,
) -> EventFrames:
    """Open the cache of a split, and that of the training split if its peak is needed."""
    if split not in SPLITS:
        raise ValueError(f"split {split!r} of {name} is unknown; it has {', '.join(SPLITS)}")
    if options.channels is not None:
        raise ValueError(f"channels={options.channels} of {name}: events always have two, OFF and ON; leave it None")

    def opened(part: str) -> FrameCache:
        return open_cache(recordings(part), options.events, root=options.root, workers=workers, progress=progress)

    cache, peak = opened(split), None
    if options.events.scale == "fixed":
        peak = (cache if split == "train" else opened("train")).manifest.max_count
    if cache.manifest.skipped:
        n_skipped, (which, why) = len(cache.manifest.skipped), cache.manifest.skipped[0]
        _logger.warning(
            "%s/%s: %d of %d recordings were left out; the first is %s (%s); %s/meta.json lists them",
            *(name, split, n_skipped, n_skipped + len(cache), which, why, cache.folder),
        )
    size = options.size or default_size
    return EventFrames(cache, size=(size, size), options=options.events, peak=peak)
