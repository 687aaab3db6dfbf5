"""CIFAR-10 from the pickles that it is published in, read without running what a pickle can say."""

import io
import pickle
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8

from tcvq_data.images.arrays import ArraySource
from tcvq_data.images.encoded import check_split
from tcvq_data.interface import ArtifactError, DataOptions
from tcvq_data.layout import data_root, missing_data

FOLDER = "cifar-10-batches-py"
CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
_BATCHES = {"train": tuple(f"data_batch_{k}" for k in range(1, 6)), "test": ("test_batch",)}


def open_cifar10(split: str, options: DataOptions) -> ArraySource:
    """Open CIFAR-10, 32×32 colour, from ``<root>/cifar-10-batches-py``; ``channels=1`` takes the luma of ITU-R 601.

    Raises:
        ValueError: The split is neither train nor test, or the size is below 32.
        MissingDataError: A batch of the split is missing.
        ArtifactError: A batch is damaged, or holds anything but numbers, texts, lists, dictionaries and byte arrays.
    """
    check_split("cifar10", split, tuple(_BATCHES))
    folder = data_root(options.root) / FOLDER
    batches = [_batch(folder / name) for name in _BATCHES[split]]
    images = np.concatenate([pixels for pixels, _ in batches])
    labels = np.array([label for _, part in batches for label in part])
    return ArraySource(images, labels, classes=CLASSES, options=options, name=f"cifar10/{split}")


def _batch(path: Path) -> tuple[UInt8[np.ndarray, "N 3 32 32"], list[int]]:
    """Return pixels and labels of one file."""
    if not path.is_file():
        raise missing_data("cifar10", path)
    content = load_plain_pickle(path)
    pixels: Any = content.get(b"data")
    labels: Any = content.get(b"labels")
    again = "fetch it again with: tcvq data download cifar10"
    of_bytes = isinstance(pixels, np.ndarray) and isinstance(labels, list) and len(labels) > 0
    if not of_bytes or pixels.shape != (len(labels), 3 * 32 * 32):
        raise ArtifactError(f"{path}: a file without rows of 3072 bytes and as many labels; {again}")
    if not all(type(label) is int for label in labels):
        raise ArtifactError(f"{path}: its labels are not all whole numbers; {again}")
    if min(labels) < 0 or max(labels) >= len(CLASSES):
        raise ArtifactError(f"{path}: labels span {min(labels)} to {max(labels)}, with {len(CLASSES)} classes; {again}")
    return pixels.reshape(-1, 3, 32, 32), labels


def load_plain_pickle(path: Path) -> dict[bytes, Any]:
    """Return the dictionary in a pickle of numbers, texts, lists, dictionaries and byte arrays; empty if in none.

    Texts of Python 2 come back as bytes, keys too. No class or function that the pickle names is ever looked up:
    the three that stand for a numpy array are replaced by ones of this module, all others are refused.

    Raises:
        ArtifactError: The pickle names anything else, or is damaged.
    """
    try:
        content = _PlainUnpickler(io.BytesIO(path.read_bytes()), encoding="bytes").load()
        pairs = content.items() if isinstance(content, dict) else ()
        return {_as_bytes(key): _as_array(value) for key, value in pairs}
    except _RefusedError as error:
        raise ArtifactError(f"{path}: refused, it asks for {error}, which no CIFAR file needs; do not use it") from None
    except Exception as error:  # a damaged pickle raises whatever its opcodes lead to
        text = f"{type(error).__name__}: {error}".splitlines()[0]
        raise ArtifactError(f"{path}: damaged, or not a CIFAR-10 file ({text}); fetch it again") from None


class _RefusedError(Exception):
    """A pickle names something that is not needed to hold data."""


class _Type:
    """Stands for numpy's element type; only bytes are data here."""

    def __init__(self, code: object, *flags: object) -> None:
        if code not in (b"u1", "u1"):
            raise _RefusedError(f"an array of {code!r}")

    def __setstate__(self, state: object) -> None:
        """Ignore byte order and the like, which bytes do not have."""


class _Array:
    """Stands for a numpy array until `_as_array` makes one of its state."""

    state: tuple[Any, ...] = ()

    def __init__(self, *args: object) -> None:
        pass

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.state = state


class _PlainUnpickler(pickle.Unpickler):
    """An unpickler that looks nothing up."""

    def find_class(self, module: str, name: str) -> Any:
        """Return the stand-in for a part of a numpy array."""
        if module in ("numpy.core.multiarray", "numpy._core.multiarray") and name == "_reconstruct":
            return _Array
        if (module, name) == ("numpy", "dtype"):
            return _Type
        if (module, name) == ("numpy", "ndarray"):
            return None  # only ever handed to _reconstruct
        if (module, name) == ("_codecs", "encode"):
            return _latin1
        raise _RefusedError(f"{module}.{name}")


def _latin1(text: str, encoding: str | bytes) -> bytes:
    """Return the bytes that Python 3 writes as text into pickles of protocol 2."""
    return text.encode("latin1")


def _as_bytes(key: object) -> bytes:
    return key.encode() if isinstance(key, str) else key if isinstance(key, bytes) else repr(key).encode()


def _as_array(value: object) -> object:
    """Return the array that a stand-in describes; everything else as it is."""
    if not isinstance(value, _Array):
        return value
    _, shape, dtype, fortran, raw = value.state
    if not isinstance(dtype, _Type) or not isinstance(raw, bytes):
        raise ValueError("an array without bytes")
    return np.frombuffer(raw, np.uint8).reshape(shape, order="F" if fortran else "C")
