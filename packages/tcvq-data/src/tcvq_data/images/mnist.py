"""MNIST and Fashion-MNIST from the idx files that they are published in."""

from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from tcvq_data.embedded import FashionMini
from tcvq_data.idx import gunzip, parse_idx
from tcvq_data.images.arrays import ArraySource
from tcvq_data.images.encoded import check_split
from tcvq_data.interface import ArtifactError, DataOptions
from tcvq_data.layout import data_root, missing_data

_PREFIX = {"train": "train", "test": "t10k"}
_SIDE, _PADDED = 28, 32


def open_mnist(split: str, options: DataOptions) -> ArraySource:
    """Open the digits, 28×28 grey, padded to 32 unless the options name a size.

    The files are ``<root>/MNIST/raw/{train,t10k}-{images-idx3,labels-idx1}-ubyte``, as they are or with ``.gz``.

    Raises:
        ValueError: The split is neither train nor test, or the size is below 28.
        MissingDataError: One of the two files of the split is missing.
        ArtifactError: One of them is damaged, or they do not belong together.
    """
    return _open("mnist", "MNIST", tuple("0123456789"), split, options)


def open_fashion_mnist(split: str, options: DataOptions) -> ArraySource:
    """Open the clothes, in the format of `open_mnist` below ``<root>/FashionMNIST/raw``; raises as that does."""
    return _open("fashion-mnist", "FashionMNIST", FashionMini.classes, split, options)


def _open(name: str, folder: str, classes: tuple[str, ...], split: str, options: DataOptions) -> ArraySource:
    """Read images and labels of one split."""
    check_split(name, split, tuple(_PREFIX))
    raw = data_root(options.root) / folder / "raw"
    images = _read(raw / f"{_PREFIX[split]}-images-idx3-ubyte", name, ndim=3)
    labels = _read(raw / f"{_PREFIX[split]}-labels-idx1-ubyte", name, ndim=1)
    if 0 < len(images) != len(labels):
        raise ArtifactError(f"{name}: {raw} holds {len(images)} images, but labels of shape {labels.shape}")
    if images.shape[1:] != (_SIDE, _SIDE):
        raise ArtifactError(f"{name}: images in {raw} are {images.shape[1:]}, not ({_SIDE}, {_SIDE}); fetch them again")
    size = DataOptions(size=options.size or _PADDED, channels=options.channels, limit=options.limit)
    return ArraySource(images, labels, classes=classes, options=size, name=f"{name}/{split}")


def _read(path: Path, name: str, *, ndim: int) -> UInt8[np.ndarray, "..."]:
    """Return the array in an idx file, which may be compressed whatever it is called."""
    packed = path.with_name(f"{path.name}.gz")
    file = path if path.is_file() else packed
    if not file.is_file():
        raise missing_data(name, path)
    again = f"fetch it again with: tcvq data download {name}"
    try:
        data = file.read_bytes()
    except OSError as error:
        raise ArtifactError(f"{file}: cannot be read: {error.strerror}") from None
    if data.lstrip()[:1] in (b"", b"<"):
        what = "a web page: a server answered with HTML" if data else "0 bytes"
        raise ArtifactError(f"{file}: not an idx file but {what}; {again}")
    if file == packed or data[:2] == b"\x1f\x8b":
        data = gunzip(data, name=str(file))
    array = parse_idx(data, name=str(file))
    if array.ndim != ndim:
        raise ArtifactError(f"{file}: has magic number 0x80{array.ndim}, not 0x80{ndim}; images and labels swapped?")
    return array
