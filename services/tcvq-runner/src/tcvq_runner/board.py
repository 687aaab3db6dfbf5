"""Event files for TensorBoard, written at once and never in the way: a full disk ends the file, not the training.

tensorboardX's own writer hands everything to a thread, which waits for ever when the disk refuses it.
"""

import os
import socket
import struct
import time
from collections.abc import Mapping
from pathlib import Path

from tensorboardX.crc32c import crc32c
from tensorboardX.proto.event_pb2 import Event
from tensorboardX.summary import scalar, text


class Board:
    """One event file; nothing is buffered."""

    def __init__(self, folder: Path, suffix: str) -> None:
        """Begin a file.

        Args:
            folder: TensorBoard's folder of the run.
            suffix: Ends the file's name.
        """
        self._fd: int | None = None
        try:
            folder.mkdir(exist_ok=True)
            name = f"events.out.tfevents.{time.time_ns() // 10**6}.{socket.gethostname()}.{suffix}"
            self._fd = os.open(folder / name, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        except OSError:
            return
        self._write(Event(wall_time=time.time(), file_version="brain.Event:2"))

    def log_text(self, name: str, content: str) -> None:
        """Add a text, in Markdown."""
        self._write(Event(wall_time=time.time(), step=0, summary=text(name, content)))

    def log_metrics(self, metrics: Mapping[str, float], step: int) -> None:
        """Add values measured at a step."""
        now = time.time()
        self._write(*(Event(wall_time=now, step=step, summary=scalar(name, value)) for name, value in metrics.items()))

    def finalize(self, status: str) -> None:
        """End the file."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None

    def _write(self, *events: Event) -> None:
        if self._fd is None:
            return
        data = b"".join(_record(event.SerializeToString()) for event in events)
        try:
            os.write(self._fd, data)
        except OSError:
            self.finalize("failed")


def _record(data: bytes) -> bytes:
    """Frame one record as TFRecord does: length, its checksum, data, their checksum."""
    length = struct.pack("<Q", len(data))
    return length + _masked(length) + data + _masked(data)


def _masked(data: bytes) -> bytes:
    crc = crc32c(data)
    return struct.pack("<I", (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF)
