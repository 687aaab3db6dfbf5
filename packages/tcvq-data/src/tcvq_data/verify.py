"""Checking that the files of a dataset are all there, are the published ones, and can be read."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tcvq_data.catalog import CATALOG, missing_parts
from tcvq_data.events import EmptyRecordingError
from tcvq_data.frames import open_recordings
from tcvq_data.images.encoded import verify_images
from tcvq_data.interface import ArtifactError, DataOptions
from tcvq_data.layout import data_root, missing_data
from tcvq_data.registry import is_event_dataset, open_dataset

_SHOWN = 5


@dataclass(frozen=True, kw_only=True, slots=True)
class Verification:
    """What `verify` found.

    Attributes:
        checks: One line for each thing that was looked at.
        faults: One line for each that is wrong.
    """

    checks: tuple[str, ...]
    faults: tuple[str, ...]

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong."""
        return not self.faults

    def lines(self) -> Iterator[str]:
        """Yield all checks, and the first faults."""
        yield from (f"ok     {line}" for line in self.checks)
        yield from (f"wrong  {line}" for line in self.faults[:_SHOWN])
        if len(self.faults) > _SHOWN:
            yield f"wrong  … and {len(self.faults) - _SHOWN} more"


def verify(name: str, root: Path | None = None, *, deep: bool = False) -> Verification:
    """Check a dataset.

    Args:
        name: Any name that `tcvq_data.open_dataset` takes.
        root: Folder of all datasets.
        deep: Also decode every image, or read every recording.

    Raises:
        ValueError: The name is unknown.
        MissingDataError: Files are not there.
    """
    checks: list[str] = []
    faults: list[str] = []
    record = CATALOG.get(name)
    if record is not None:
        if missing := missing_parts(name, data_root(root)):
            raise missing_data(name, missing[0])
        for file in record.files:
            path = data_root(root) / file.into / file.name.removesuffix(".gz")
            if file.payload_sha256 and path.is_file():
                right = hashlib.sha256(path.read_bytes()).hexdigest() == file.payload_sha256
                (checks if right else faults).append(f"{path}: SHA-256 is {'' if right else 'not '}the published one")
    counts = {}
    for split in ("train", "test", *(["val"] if record is not None and "val" in record.sizes else [])):
        try:
            counts[split], bad = _read(name, split, DataOptions(root=root), deep=deep)
        except ArtifactError as error:
            faults.append(str(error))
            continue
        faults += bad
        checks.append(f"{name}, {split} split: {counts[split]} samples{', all read' if deep and not bad else ''}")
    for split, n in ({} if record is None else record.sizes).items():
        found = sum(counts.values()) if split == "all" else counts.get(split, n)
        if found != n:
            faults.append(f"{name}: {found} samples in {split}, {n} are published")
    return Verification(checks=tuple(checks), faults=tuple(faults))


def _read(name: str, split: str, options: DataOptions, *, deep: bool) -> tuple[int, list[str]]:
    """Return how many samples a split has, and what is wrong with them."""
    if not is_event_dataset(name):
        source = open_dataset(name, split, options)
        return len(source), verify_images(source) if deep else []
    recordings, faults = open_recordings(name, split, options), []
    for i in range(len(recordings.labels) if deep else 0):
        try:
            recordings.read(i)
        except EmptyRecordingError:
            continue  # some published recordings are; opening the dataset counts and reports them
        except ArtifactError as error:
            faults.append(str(error))
    return len(recordings.labels), faults
