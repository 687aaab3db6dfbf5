"""Tiny event datasets in their true formats on disk: N-MNIST and DVS-CIFAR10."""

from pathlib import Path

import numpy as np

from tcvq_data.events import EventStream, write_nmnist
from tcvq_data.frames.datasets import DVS_CIFAR10_CLASSES

_OVERFLOW, _OVERFLOW_US = bytes([0, 240, 0, 0, 0]), 8192


def write_nmnist_set(root: Path) -> Path:
    """Write ``root/NMNIST/{Train,Test}/{0..9}/*.bin`` with three files per class.

    Of the three, the second has an overflow record and the third is empty: 20 recordings per split can be used. Their
    numbers go round the classes. Events gather in a column that depends on the class.

    Returns:
        The folder NMNIST.
    """
    home = root / "NMNIST"
    for split, name in enumerate(("Train", "Test")):
        for label in range(10):
            folder = home / name / str(label)
            folder.mkdir(parents=True)
            for turn in range(3):
                path = folder / f"{10 * turn + label + 1:05d}.bin"
                events = _blob((split, label, turn), label, n_events=400, side=34, duration_us=315_000)
                if turn == 0:
                    write_nmnist(path, events)
                elif turn == 1:
                    _write_with_overflow(path, events)
                else:
                    path.touch()
    return home


def write_dvs_cifar10(root: Path) -> Path:
    """Write ``root/DVSCIFAR10/<class>/cifar10_<class>_<number>.aedat``, AEDAT 2.0 with header lines ending in CRLF.

    Every class has the numbers 0 and 1 (test) and 100, 101 and 102 (training).

    Returns:
        The folder DVSCIFAR10.
    """
    home = root / "DVSCIFAR10"
    for label, name in enumerate(DVS_CIFAR10_CLASSES):
        (home / name).mkdir(parents=True)
        for number in (0, 1, 100, 101, 102):
            events = _blob((2, label, number), label, n_events=400, side=128, duration_us=1_200_000)
            (home / name / f"cifar10_{name}_{number}.aedat").write_bytes(_aedat2(events))
    return home


def _blob(seed: tuple[int, ...], label: int, *, n_events: int, side: int, duration_us: int) -> EventStream:
    """Return events around a point that depends on the label, sorted by time."""
    rng = np.random.default_rng(seed)
    centre = np.array([[side * (label + 1) / 11], [side / 2]])
    x, y = np.clip(np.round(rng.normal(centre, side / 25, (2, n_events))), 0, side - 1).astype(np.int64)
    t = np.sort(rng.integers(0, duration_us, n_events))
    return EventStream.from_arrays(x, y, t, rng.random(n_events) < 0.5, height=side, width=side)


def _write_with_overflow(path: Path, events: EventStream) -> None:
    """Write a recording in whose middle a record with y = 240 puts all that follow 8192 µs later."""
    half = len(events) // 2
    write_nmnist(path, events.select(np.arange(half)))
    first = path.read_bytes()
    late = events.select(np.arange(half, len(events)))
    write_nmnist(
        path,
        EventStream(x=late.x, y=late.y, t=late.t - _OVERFLOW_US, p=late.p, height=late.height, width=late.width),
    )
    path.write_bytes(first + _OVERFLOW + path.read_bytes())


def _aedat2(events: EventStream) -> bytes:
    """Return an AEDAT 2.0 file, the inverse of `tcvq_data.events.read_aedat2`."""
    address = (127 - events.x.astype(np.int64)) << 8 | (127 - events.y.astype(np.int64)) << 1 | ~events.p
    header = b"#!AER-DAT2.0\r\n# This is a raw AE data file - do not edit\r\n# Timestamps tick is 1 us\r\n"
    return header + np.stack([address, events.t], axis=1).astype(">u4").tobytes()
