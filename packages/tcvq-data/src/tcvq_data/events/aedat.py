"""AEDAT recordings of address-event cameras: version 2.0 by ourselves, version 4 through the ``aedat`` package.

AEDAT 2.0 is a text header of lines that begin with ``#``, then records of a big-endian u4 address and a big-endian u4
time in microseconds. In the address of a 128x128 camera, bit 0 is the polarity, bits 1-7 and 8-14 are the coordinates.
"""

from pathlib import Path

import numpy as np

from tcvq_data.events.stream import EventStream, recording, recording_bytes
from tcvq_data.interface import ArtifactError

_MAGIC = b"#!AER-DAT2.0"
_SIDE = 128


def read_aedat2(path: str | Path) -> EventStream:
    """Read one AEDAT 2.0 recording of a 128x128 camera, such as those of the original DVS-CIFAR10.

    The orientation is the one that spikingjelly and the dataset's own scripts use: x = 127 - bits 8-14,
    y = 127 - bits 1-7, and ON where bit 0 is clear. Whether AEDAT4 copies of a dataset are oriented alike is not
    known: compare a recording of each before mixing them.

    Raises:
        EmptyRecordingError: The file holds no events.
        ArtifactError: The file is missing, truncated, or no AEDAT 2.0.
    """
    path = Path(path)
    data = recording_bytes(path)
    if not data.startswith(_MAGIC):
        raise ArtifactError(f"{path}: not AEDAT 2.0: it begins with {data[:12]!r}, not {_MAGIC!r}; fetch it again")
    start = 0
    while data[start : start + 1] == b"#":
        start = data.find(b"\n", start) + 1
        if start == 0:
            raise ArtifactError(f"{path}: truncated AEDAT 2.0 header: its last line has no end; fetch it again")
    if (len(data) - start) % 8:
        raise ArtifactError(f"{path}: truncated: {len(data) - start} bytes after the header are not a multiple of 8")
    address, t = np.frombuffer(data, ">u4", offset=start).reshape(-1, 2).T.astype(np.int64)
    x, y = (_SIDE - 1 - (address >> shift & _SIDE - 1) for shift in (8, 1))
    return recording(path, x, y, t, 1 - (address & 1), height=_SIDE, width=_SIDE)


def read_aedat4(path: str | Path) -> EventStream:
    """Read the first event stream of one AEDAT4 recording; coordinates are kept as they are.

    Raises:
        ModuleNotFoundError: The package ``aedat`` is not installed.
        EmptyRecordingError: The file holds no events.
        ArtifactError: The file is missing, damaged, no AEDAT4, or has no event stream.
    """
    try:
        import aedat
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(f"{path}: AEDAT4 needs the package aedat: pip install 'tcvq-data[aedat4]'") from error
    path = Path(path)
    recording_bytes(path)
    try:
        decoder = aedat.Decoder(str(path))
        streams = {number: info for number, info in decoder.id_to_stream().items() if info["type"] == "events"}
        first = min(streams, default=None)
        packets = [packet["events"] for packet in decoder if packet["stream_id"] == first and "events" in packet]
    except (RuntimeError, ValueError, OSError) as error:
        raise ArtifactError(f"{path}: damaged, or not AEDAT4 ({error}); fetch it again") from None
    if first is None:
        raise ArtifactError(f"{path}: an AEDAT4 file without an event stream; check which file you gave")
    events = np.concatenate(packets) if packets else np.empty(0, [(n, "<u8") for n in ("x", "y", "t", "on")])
    height, width = streams[first]["height"], streams[first]["width"]
    return recording(path, events["x"], events["y"], events["t"], events["on"], height=height, width=width)
