"""What a frame cache is made from: recordings in files or simulated, what identifies them, and how they are binned."""

import hashlib
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import UInt8, UInt16

from tcvq_data.embedded import FashionMini
from tcvq_data.events import (
    SIMULATED,
    SIMULATOR_VERSION,
    EventStream,
    SaccadeConfig,
    bin_events,
    denoise,
    simulate_saccades,
    stabilise,
)
from tcvq_data.interface import ArtifactError, EventOptions

SPLITS = ("train", "test")


@runtime_checkable
class Recordings(Protocol):
    """Recordings of one split in a fixed order; picklable, because other processes read them.

    Attributes:
        dataset: Name of the dataset.
        split: ``"train"`` or ``"test"``.
        classes: Names of the classes.
        labels: Class of each recording.
        height: Rows of the sensor.
        width: Columns of the sensor.
        note: What a reader of results must know of their origin; may be empty.
    """

    @property
    def dataset(self) -> str: ...  # noqa: D102
    @property
    def split(self) -> str: ...  # noqa: D102
    @property
    def classes(self) -> tuple[str, ...]: ...  # noqa: D102
    @property
    def labels(self) -> tuple[int, ...]: ...  # noqa: D102
    @property
    def height(self) -> int: ...  # noqa: D102
    @property
    def width(self) -> int: ...  # noqa: D102
    @property
    def note(self) -> str: ...  # noqa: D102

    def name(self, index: int) -> str:
        """Return what a report calls one recording."""
        ...

    def read(self, index: int) -> EventStream:
        """Return one recording; raises `ArtifactError` if it is empty or damaged."""
        ...

    def identity(self) -> dict[str, object]:
        """Return, as JSON types, all that determines the events of all recordings; it is taken anew at each call."""
        ...


@dataclass(frozen=True, kw_only=True, eq=False)
class FileRecordings:
    """One file per recording.

    Attributes:
        folder: What ``files`` are relative to.
        files: The recordings.
        read_file: A reader of `tcvq_data.events`.
    """

    dataset: str
    split: str
    classes: tuple[str, ...]
    labels: tuple[int, ...]
    height: int
    width: int
    folder: Path
    files: tuple[str, ...]
    read_file: Callable[[Path], EventStream]
    note: str = ""

    def name(self, index: int) -> str:
        """Return the path of one recording within the dataset."""
        return self.files[index]

    def read(self, index: int) -> EventStream:
        """Return one recording.

        Raises:
            ArtifactError: It is missing, empty, damaged, or of another sensor.
        """
        events = self.read_file(self.folder / self.files[index])
        if (events.height, events.width) != (self.height, self.width):
            found, wanted = f"{events.height}x{events.width}", f"{self.height}x{self.width}"
            raise ArtifactError(f"{self.files[index]}: from a {found} sensor; {self.dataset} has {wanted}")
        return events

    def identity(self) -> dict[str, object]:
        """Return number, total size and a digest of the files' names, sizes and times of change.

        Raises:
            ArtifactError: A file has vanished.
        """
        digest, total = hashlib.sha256(), 0
        for name in self.files:
            try:
                found = (self.folder / name).stat()
            except OSError as error:
                raise ArtifactError(
                    f"{self.folder / name}: vanished ({error.strerror}); open the dataset again"
                ) from None
            total += found.st_size
            digest.update(f"{name}\t{found.st_size}\t{found.st_mtime_ns}\n".encode())
        return {"files": len(self.files), "bytes": total, "files_sha256": digest.hexdigest()}


@dataclass(frozen=True, kw_only=True, eq=False)
class SimulatedRecordings:
    """Simulated saccades over the embedded images.

    Attributes:
        seed: Of the simulation; recording i depends on it, the split and i, and on nothing else.
        limit: Number of recordings, None for all.
        config: Parameters of the simulator.
    """

    split: str
    seed: int = 0
    limit: int | None = None
    config: SaccadeConfig = field(default_factory=SaccadeConfig)
    dataset: str = "fashion-mini-events"
    note: str = SIMULATED

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes."""
        return FashionMini.classes

    @property
    def labels(self) -> tuple[int, ...]:
        """Class of each recording."""
        return _images(self.split, self.limit)[1]

    @property
    def height(self) -> int:
        """Rows of the sensor."""
        return _images(self.split, self.limit)[0].shape[1] + self.config.margin

    @property
    def width(self) -> int:
        """Columns of the sensor."""
        return _images(self.split, self.limit)[0].shape[2] + self.config.margin

    def name(self, index: int) -> str:
        """Return the number of the image that was simulated."""
        return f"fashion-mini/{self.split}/{index}"

    def read(self, index: int) -> EventStream:
        """Return one recording."""
        images, _ = _images(self.split, self.limit)
        return simulate_saccades(images[index], seed=(self.seed, SPLITS.index(self.split), index), config=self.config)

    def identity(self) -> dict[str, object]:
        """Return images, simulator, its parameters and the seed."""
        images, _ = _images(self.split, self.limit)
        return {
            "images": len(images),
            "images_sha256": hashlib.sha256(images.tobytes()).hexdigest(),
            "simulator": SIMULATOR_VERSION,
            "parameters": asdict(self.config),
            "seed": self.seed,
        }


def count_frames(events: EventStream, options: EventOptions) -> UInt16[np.ndarray, "T 2 H W"]:
    """Return the counts of one recording: stabilise if asked to, denoise, bin."""
    if options.stabilise:
        events = stabilise(events)
    if options.denoise_us:
        events = denoise(events, filter_us=options.denoise_us)
    return bin_events(events, options.n_steps, rule=options.rule)


@cache
def _images(split: str, limit: int | None) -> tuple[UInt8[np.ndarray, "N H W"], tuple[int, ...]]:
    """Return the embedded grey values and their classes; callers must not write into them."""
    source = FashionMini(split, limit=limit)
    return ((source.images[:, 0] + 1) * 127.5).round().byte().numpy(), tuple(source.labels.tolist())
