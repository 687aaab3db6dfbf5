"""One process per run folder."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

LOCK = ".lock"


class RunFolderError(ValueError):
    """A folder that is in use, not empty, not a run, or lacks what a step needs."""


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the folder's lock; the system drops it when the process ends, however it ends.

    Raises:
        RunFolderError: Another process holds it.
        OSError: The folder cannot be written.
    """
    lock = path / LOCK
    while True:
        fd = os.open(lock, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            owner = os.read(fd, 20).decode("ascii", "replace").strip()
            os.close(fd)
            raise RunFolderError(f"output folder in use by process {owner or '(starting)'}: {path}") from None
        # The owner before us may have removed the file between our open and our lock: then this lock guards nothing.
        with suppress(FileNotFoundError):
            if os.fstat(fd).st_ino == lock.stat().st_ino:
                break
        os.close(fd)
    try:
        os.ftruncate(fd, 0)
        os.write(fd, str(os.getpid()).encode())
        yield
    finally:
        lock.unlink(missing_ok=True)
        os.close(fd)
