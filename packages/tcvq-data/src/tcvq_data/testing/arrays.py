"""Tiny datasets of small images in their true formats on disk: idx, CIFAR's pickles, npz and parquet."""

import pickle
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8

from tcvq_data.testing.conformance import idx_bytes
from tcvq_data.testing.folders import encode_picture

N_TRAIN, N_TEST = 20, 10
"""Images in the splits of the datasets that this module writes."""


def random_images(n: int, *shape: int, seed: int = 0) -> UInt8[np.ndarray, "n ..."]:
    """Return ``n`` images of noise of one shape, always the same; one by one they hold all values."""
    return np.random.default_rng(seed).integers(0, 256, (n, *shape), dtype=np.uint8)


def write_mnist(root: Path, folder: str = "MNIST") -> Path:
    """Write the four idx files of MNIST (or ``folder="FashionMNIST"``) below ``<root>/<folder>/raw``.

    Returns:
        The folder ``raw``.
    """
    raw = root / folder / "raw"
    raw.mkdir(parents=True, exist_ok=True)
    for seed, (prefix, n) in enumerate((("train", N_TRAIN), ("t10k", N_TEST))):
        (raw / f"{prefix}-images-idx3-ubyte").write_bytes(idx_bytes(random_images(n, 28, 28, seed=seed)))
        (raw / f"{prefix}-labels-idx1-ubyte").write_bytes(idx_bytes((np.arange(n) * 3 % 10).astype(np.uint8)))
    return raw


def write_cifar10(root: Path) -> Path:
    """Write ``<root>/cifar-10-batches-py`` with five training batches, the test batch and ``batches.meta``.

    Returns:
        The folder ``cifar-10-batches-py``.
    """
    folder = root / "cifar-10-batches-py"
    folder.mkdir(parents=True, exist_ok=True)
    names = [*(f"data_batch_{k}" for k in range(1, 6)), "test_batch"]
    for k, name in enumerate(names):
        n = N_TEST if name == "test_batch" else N_TRAIN // 5
        batch = {
            "batch_label": f"batch {k + 1} of 6",
            "labels": [(i * 7 + k) % 10 for i in range(n)],
            "data": random_images(n, 3072, seed=k),
            "filenames": [f"picture_{k}_{i}.png" for i in range(n)],
        }
        (folder / name).write_bytes(python2_pickle(batch))
    words = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
    meta = {"num_cases_per_batch": N_TRAIN // 5, "label_names": words, "num_vis": 3072}
    (folder / "batches.meta").write_bytes(python2_pickle(meta))
    return folder


def write_npz_images(path: Path, *, n: int = 40) -> Path:
    """Write a user's ``.npz`` with ``n`` colour images of 32×32 pixels in the classes a, b and c, not divided.

    Returns:
        ``path``.
    """
    classes = np.array(["a", "b", "c"])
    np.savez(path, images=random_images(n, 32, 32, 3), labels=np.arange(n) % 3, classes=classes)
    return path


def write_parquet_images(folder: Path, *, n_train: int = N_TRAIN, n_test: int = N_TEST) -> Path:
    """Write two shards of training images as the Hugging Face hub has them, embedded, and one of test images.

    Needs ``datasets``.

    Returns:
        ``folder``.
    """
    import datasets

    folder.mkdir(parents=True, exist_ok=True)
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["circle", "square"])})
    files = {
        "train-00000-of-00002": range(n_train // 2),
        "train-00001-of-00002": range(n_train // 2, n_train),
        "test-00000-of-00001": range(n_train, n_train + n_test),
    }
    for name, numbers in files.items():
        images = [{"bytes": encode_picture(i, "PNG"), "path": None} for i in numbers]
        rows = {"image": images, "label": [i % 2 for i in numbers]}
        datasets.Dataset.from_dict(rows, features=features).to_parquet(str(folder / f"{name}.parquet"))
    return folder


def python2_pickle(value: object) -> bytes:
    """Return a pickle of protocol 2 as Python 2 and its numpy wrote it: texts as bytes, flags as 0 and 1.

    Args:
        value: Of dictionaries, lists, tuples, texts, bytes, whole numbers, None and arrays of uint8.
    """
    return pickle.PROTO + b"\x02" + _opcodes(value) + pickle.STOP


def _opcodes(value: Any) -> bytes:
    """Return what puts a value on the stack of an unpickler."""
    if isinstance(value, np.ndarray):
        empty = _call("numpy.core.multiarray", "_reconstruct", pickle.GLOBAL + b"numpy\nndarray\n", (0,), "b")
        kind = _call("numpy", "dtype", "u1", 0, 1) + _opcodes((3, "|", None, None, None, -1, -1, 0)) + pickle.BUILD
        state = _opcodes(1) + _opcodes(value.shape) + kind + _opcodes(0) + _opcodes(value.tobytes())
        return empty + pickle.MARK + state + pickle.TUPLE + pickle.BUILD
    if isinstance(value, dict):
        return pickle.MARK + b"".join(_opcodes(x) for pair in value.items() for x in pair) + pickle.DICT
    if isinstance(value, list | tuple):
        end = pickle.LIST if isinstance(value, list) else pickle.TUPLE
        return pickle.MARK + b"".join(map(_opcodes, value)) + end
    if isinstance(value, str | bytes):
        raw = value.encode("latin1") if isinstance(value, str) else value
        return pickle.BINSTRING + len(raw).to_bytes(4, "little") + raw
    return pickle.NONE if value is None else pickle.BININT + int(value).to_bytes(4, "little", signed=True)


def _call(module: str, function: str, *arguments: object) -> bytes:
    """Return what calls a function; the first argument may be opcodes."""
    first = arguments[0] if isinstance(arguments[0], bytes) else _opcodes(arguments[0])
    rest = b"".join(map(_opcodes, arguments[1:]))
    return (
        pickle.GLOBAL + f"{module}\n{function}\n".encode() + pickle.MARK + first + rest + pickle.TUPLE + pickle.REDUCE
    )
