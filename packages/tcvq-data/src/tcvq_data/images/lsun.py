"""LSUN's churches: encoded images in an LMDB file, read from any number of processes."""

import hashlib
import logging
import os
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Shaped

from tcvq_data.files import atomic_path
from tcvq_data.images.encoded import EncodedImages, check_split, hash_split
from tcvq_data.interface import ArtifactError, DataOptions
from tcvq_data.layout import data_root, missing_data

_OPEN: dict[str, Any] = {}  # environments of process _OPEN["pid"] by real path: lmdb refuses to open one twice


class LmdbImages(EncodedImages):
    """Samples that are values of an LMDB file; each process opens it at its first access."""

    def __init__(self, path: Path, keys: Shaped[np.ndarray, " N"], options: DataOptions, *, size: int) -> None:
        """Take the values of some keys, up to the limit of the options."""
        self.path, self.keys = path, keys[: options.limit]
        super().__init__(len(self.keys), options, size=size)

    def encoded(self, index: int) -> tuple[bytes, str]:
        """Return the bytes of one image, and file and key."""
        key = bytes(self.keys[index])
        with lmdb_env(self.path).begin() as transaction:
            value = transaction.get(key)
        return bytes(value or b""), f"{self.path} key {key.decode('latin-1')}"


def lmdb_env(path: Path) -> Any:
    """Return this process's environment of an LMDB folder, opened once; what a fork inherited is dropped.

    Raises:
        ArtifactError: The file is not LMDB, or ends early.
    """
    import lmdb

    real = os.path.realpath(path)
    if _OPEN.get("pid") != os.getpid():
        _OPEN.clear()
        _OPEN["pid"] = os.getpid()
    if real not in _OPEN:
        try:
            env = lmdb.open(real, readonly=True, lock=False, readahead=False, meminit=False)
        except lmdb.Error as error:
            raise _damaged(path, str(error)) from None
        needed = (env.info()["last_pgno"] + 1) * env.stat()["psize"]
        present = (path / "data.mdb").stat().st_size
        if present < needed:  # reading beyond the end of a mapped file would kill the process
            env.close()
            raise _damaged(path, f"it has {present} bytes of {needed}")
        _OPEN[real] = env
    return _OPEN[real]


def lmdb_keys(path: Path, cache: Path) -> Shaped[np.ndarray, " N"]:
    """Return all keys of an LMDB folder, sorted.

    They are listed once, without their values, and kept in ``cache`` as .npy under a name that follows from size and
    time of ``data.mdb``; a damaged or outdated list is made anew. Where nothing can be written they are listed each
    time.

    Args:
        path: The folder.
        cache: Folder of the list; made if missing.

    Raises:
        ArtifactError: The file is damaged or holds no key.
    """
    status = (path / "data.mdb").stat()
    about = hashlib.sha256(f"{status.st_size} {status.st_mtime_ns}".encode()).hexdigest()[:12]
    target = cache / f"{path.name}-keys-{about}.npy"
    try:
        keys = np.load(target, allow_pickle=False)
        if isinstance(keys, np.ndarray) and keys.ndim == 1 and keys.dtype.kind == "S" and len(keys):
            return keys
    except (OSError, ValueError, EOFError):
        pass
    keys = _list_keys(path)
    try:
        cache.mkdir(parents=True, exist_ok=True)
        with atomic_path(target) as temporary:
            np.save(temporary, keys, allow_pickle=False)
        for stale in cache.glob(f"{path.name}-keys-*.npy"):
            if stale != target:
                stale.unlink(missing_ok=True)
    except OSError as error:
        logging.getLogger(__name__).warning("the keys of %s are listed at each start: %s", path, error)
    return keys


def open_lsun_church(split: str, options: DataOptions) -> LmdbImages:
    """Open ``<root>/church_outdoor_train_lmdb``, LSUN's 126,227 outdoor churches, 256×256 and without labels.

    Its validation file has 300 images, too few for a score; `hash_split` divides the keys of the training file.

    Raises:
        ValueError: The split is unknown.
        MissingDataError: The file is missing.
        ArtifactError: The file is damaged.
    """
    name, root = "lsun-church", data_root(options.root)
    check_split(name, split, ("train", "test"))
    path = root / "church_outdoor_train_lmdb"
    if not (path / "data.mdb").is_file():
        raise missing_data(name, path / "data.mdb" if path.is_dir() else path)
    keys = lmdb_keys(path, root / ".cache")
    chosen = hash_split([key.decode("latin-1") for key in keys.tolist()], split, name=name, seed=options.seed)
    return LmdbImages(path, keys[chosen], options, size=256)


def _list_keys(path: Path) -> Shaped[np.ndarray, " N"]:
    """List the keys of the file as it is now, not as it was when this process opened it."""
    import lmdb

    stale = _OPEN.pop(os.path.realpath(path), None) if _OPEN.get("pid") == os.getpid() else None
    if stale is not None:
        stale.close()
    try:
        with lmdb_env(path).begin() as transaction:
            keys = sorted(transaction.cursor().iternext(keys=True, values=False))
    except lmdb.Error as error:
        raise _damaged(path, str(error)) from None
    if not keys:
        raise _damaged(path, "it holds no image")
    return np.array(keys, dtype=np.bytes_)


def _damaged(path: Path, why: str) -> ArtifactError:
    """Return the error for a file that cannot be read."""
    return ArtifactError(f"lsun-church: {path / 'data.mdb'} is damaged ({why}); fetch and unpack it again")
