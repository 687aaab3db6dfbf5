"""Recordings as named arrays x, y, t, p: our ``.npz`` files, and HDF5 files of other cameras.

The ``.npz`` layout is the one spikingjelly integrates to frames (``t x y p``), with ``sensor = [height, width]`` added.
"""

import io
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import cast

import numpy as np

from tcvq_data.events.stream import EventStream, recording, recording_bytes
from tcvq_data.files import atomic_path
from tcvq_data.interface import ArtifactError

_FIELDS = ("x", "y", "t", "p")


def write_npz(path: str | Path, events: EventStream) -> None:
    """Write one recording atomically and compressed; `read_npz` returns the same events in the same order.

    Args:
        path: The file to make or to replace; must end in ``.npz``.
        events: The recording.

    Raises:
        ValueError: ``path`` does not end in ``.npz``.
        OSError: As `tcvq_data.files.atomic_path`.
    """
    if Path(path).suffix != ".npz":
        raise ValueError(f"{path}: the name of this format must end in .npz")
    with atomic_path(path) as temporary:
        np.savez_compressed(
            temporary, x=events.x, y=events.y, t=events.t, p=events.p, sensor=np.array([events.height, events.width])
        )


def read_npz(path: str | Path, *, size: tuple[int, int] | None = None) -> EventStream:
    """Read one recording from an ``.npz`` file; reading never runs code.

    Args:
        path: A file of `write_npz`, or any with one-dimensional integer arrays x, y, t (µs) and p.
        size: Height and width of the sensor; None takes them from the file's ``sensor``.

    Raises:
        EmptyRecordingError: The file holds no events.
        ArtifactError: The file is missing, damaged, lacks an array, or has events outside the sensor.
    """
    path = Path(path)
    data = recording_bytes(path)
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as loaded:
            arrays = dict(loaded)
    except (ValueError, OSError, EOFError, TypeError, zipfile.BadZipFile, zlib.error) as error:
        raise ArtifactError(f"{path}: damaged, or not an .npz file ({error}); make or copy it again") from None
    if size is None:
        sensor = arrays.get("sensor", np.empty(0))
        if sensor.shape != (2,) or sensor.dtype.kind not in "iu":
            raise ArtifactError(f"{path}: does not say its sensor's size; give size=(height, width)")
        size = (int(sensor[0]), int(sensor[1]))
    return _from_arrays(path, arrays, size)


def read_hdf5(path: str | Path, *, size: tuple[int, int], group: str = "events") -> EventStream:
    """Read one recording from an HDF5 file with datasets x, y, t (µs) and p in one group, as DSEC and others have.

    Args:
        path: The file.
        size: Height and width of the sensor, which such files do not hold.
        group: Where the four datasets are.

    Raises:
        ModuleNotFoundError: The package ``h5py`` is not installed.
        EmptyRecordingError: The file holds no events.
        ArtifactError: The file is missing, damaged, lacks a dataset, or has events outside the sensor.
    """
    try:
        import h5py
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(f"{path}: HDF5 needs the package h5py: pip install 'tcvq-data[hdf5]'") from error
    path = Path(path)
    recording_bytes(path)
    try:
        with h5py.File(path, "r") as file:
            found = cast(Mapping[str, object], file.get(group, {}))
            arrays = {name: np.asarray(found[name]) for name in _FIELDS if name in found}
    except OSError as error:
        raise ArtifactError(f"{path}: damaged, or not an HDF5 file ({error}); fetch it again") from None
    return _from_arrays(path, arrays, size)


def _from_arrays(path: Path, arrays: Mapping[str, np.ndarray], size: tuple[int, int]) -> EventStream:
    """Check names, axes and types, which `recording` takes for granted."""
    missing = [name for name in _FIELDS if name not in arrays]
    if missing:
        raise ArtifactError(
            f"{path}: lacks {', '.join(missing)} of x, y, t, p; it has {', '.join(arrays) or 'nothing'}"
        )
    shapes = {name: arrays[name].shape for name in _FIELDS}
    if len(set(shapes.values())) > 1 or len(shapes["t"]) != 1:
        raise ArtifactError(f"{path}: x, y, t, p must be of one length, one axis each; they are {shapes}")
    for name in _FIELDS:
        if arrays[name].dtype.kind not in ("biu" if name == "p" else "iu"):
            raise ArtifactError(f"{path}: {name} is {arrays[name].dtype}, not integer; times are whole microseconds")
    return recording(path, *(arrays[name] for name in _FIELDS), height=size[0], width=size[1])
