"""Files that appear whole or not at all: atomic writing and hashing."""

import hashlib
import json
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from errno import EEXIST, ENOENT
from pathlib import Path


@contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside ``path`` and rename it to ``path`` when the block ends well.

    The temporary file keeps the suffix of ``path``, is flushed to disk before the rename, and is removed if the block
    raises anything, Ctrl-C included; ``path`` itself is then as it was before.

    Args:
        path: The file to make or to replace. Its folder must exist.

    Yields:
        The path that the block has to write.

    Raises:
        FileNotFoundError: The folder of ``path`` does not exist.
        FileExistsError: ``path`` is something else than a regular file, such as a folder or a device.
        OSError: Writing failed, such as a full disk; the message names ``path``.
    """
    path = Path(path)
    if not path.parent.is_dir():
        raise FileNotFoundError(ENOENT, f"cannot write {path.name}, its folder does not exist", str(path.parent))
    if path.exists() and not path.is_file():
        raise FileExistsError(EEXIST, "cannot write a file here, the path is a folder or a device", str(path))
    temporary = path.with_name(f".tmp-{secrets.token_hex(6)}-{path.name}")
    try:
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        if error.filename is None or Path(error.filename) == temporary:
            error.filename, error.filename2 = str(path), None
        raise
    finally:
        temporary.unlink(missing_ok=True)


def write_bytes(path: str | Path, data: bytes) -> None:
    """Write ``data`` to ``path`` atomically; raises as `atomic_path` does."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(data)


def write_text(path: str | Path, text: str) -> None:
    """Write ``text`` to ``path`` as UTF-8, atomically; raises as `atomic_path` does."""
    write_bytes(path, text.encode("utf-8"))


def write_json(path: str | Path, obj: object) -> None:
    """Write ``obj`` as indented JSON, atomically, keeping the order of its keys.

    Raises:
        TypeError: ``obj`` holds something that is not a JSON type.
        ValueError: ``obj`` holds NaN or infinity, which JSON cannot express; store None instead.
        OSError: As `atomic_path`.
    """
    write_text(path, json.dumps(obj, indent=2, allow_nan=False, ensure_ascii=False) + "\n")


def sha256_file(path: str | Path) -> str:
    """Return the SHA-256 of a file's bytes as 64 hexadecimal digits.

    Raises:
        OSError: The file cannot be read.
    """
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
