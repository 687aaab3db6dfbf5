"""N-MNIST's ``.bin`` recordings, read and written without loops.

Five bytes per record: ``x``, ``y``, ``p << 7 | t[22:16]``, ``t[15:8]``, ``t[7:0]``, with t in microseconds and p = 1
for ON. A record with y = 240 is no event: it adds 8192 µs to all that follow, because 23 bits end after 8.4 s (Orchard
et al. 2015, doi:10.3389/fnins.2015.00437, and the authors' event-Python reader). N-Caltech101 uses the same format.
"""

from pathlib import Path

import numpy as np

from tcvq_data.events.stream import EventStream, recording, recording_bytes
from tcvq_data.files import write_bytes
from tcvq_data.interface import ArtifactError

_RECORD = 5
_OVERFLOW_ROW, _OVERFLOW_US = 240, 1 << 13
_MAX_US = (1 << 23) - 1


def read_nmnist(path: str | Path, *, height: int = 34, width: int = 34) -> EventStream:
    """Read one recording.

    Args:
        path: The ``.bin`` file.
        height: Rows of the sensor, at most 240.
        width: Columns of the sensor.

    Raises:
        EmptyRecordingError: The file holds no events.
        ArtifactError: The file is missing, truncated, or has events outside the sensor.
    """
    path = Path(path)
    data = recording_bytes(path)
    if len(data) % _RECORD:
        raise ArtifactError(
            f"{path}: truncated or no N-MNIST recording: {len(data)} bytes are not a multiple of {_RECORD}; "
            "fetch it again"
        )
    b = np.frombuffer(data, np.uint8).reshape(-1, _RECORD).T.astype(np.int64)
    overflow = b[1] == _OVERFLOW_ROW
    t = ((b[2] & 127) << 16 | b[3] << 8 | b[4]) + np.cumsum(overflow) * _OVERFLOW_US
    event = ~overflow
    return recording(path, b[0, event], b[1, event], t[event], b[2, event] >> 7, height=height, width=width)


def write_nmnist(path: str | Path, events: EventStream) -> None:
    """Write one recording atomically; `read_nmnist` returns the same events in the same order.

    Overflow records are written where times exceed 23 bits. No events make a file of 0 bytes.

    Args:
        path: The file to make or to replace.
        events: Times must not be negative, nor step back by seconds behind one that needed an overflow record.

    Raises:
        ValueError: The sensor or a time does not fit the format.
        OSError: As `tcvq_data.files.atomic_path`.
    """
    if events.height > _OVERFLOW_ROW or events.width > 256:
        raise ValueError(
            f"a {events.height}x{events.width} sensor does not fit N-MNIST's format (at most 240x256); write .npz"
        )
    needed = np.maximum(-(-(events.t - _MAX_US) // _OVERFLOW_US), 0)
    before = np.maximum.accumulate(needed) if len(events) else needed
    t = events.t - before * _OVERFLOW_US
    if len(events) and t.min() < 0:
        at = int(t.argmin())
        raise ValueError(f"event {at} at {events.t[at]} µs is negative or too far behind its predecessors; sort by t")
    columns = [events.x, events.y, events.p.astype(np.int64) << 7 | t >> 16, t >> 8 & 255, t & 255]
    records = np.stack(columns, axis=1).astype(np.uint8)
    n_overflow = np.diff(before, prepend=0)
    overflow = np.array([[0, _OVERFLOW_ROW, 0, 0, 0]], np.uint8)
    where = np.repeat(np.arange(len(events)), n_overflow)
    write_bytes(path, np.insert(records, where, overflow, axis=0).tobytes())
