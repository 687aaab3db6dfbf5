"""The one in-memory form of an event recording, and the checks that every reader shares."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Int, Int16, Int64, Integer, Shaped

from tcvq_data.interface import ArtifactError

EVENT_DTYPE = np.dtype([("x", np.int16), ("y", np.int16), ("t", np.int64), ("p", np.bool_)])


class EmptyRecordingError(ArtifactError):
    """A recording is well formed or of no bytes, but holds no events; whoever reads many may count and skip it."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class EventStream:
    """Events of one recording in the order of its file; E is their number and may be 0.

    Attributes:
        x: Column, in [0, width).
        y: Row, in [0, height).
        t: Time in microseconds, from an origin that depends on the camera.
        p: Polarity; True = ON, the pixel became brighter.
        height: Rows of the sensor.
        width: Columns of the sensor.
    """

    x: Int16[np.ndarray, " E"]
    y: Int16[np.ndarray, " E"]
    t: Int64[np.ndarray, " E"]
    p: Bool[np.ndarray, " E"]
    height: int
    width: int

    def __post_init__(self) -> None:
        """Check lengths, types and coordinates.

        Raises:
            ValueError: An array has another length or type than promised, or an event lies outside the sensor.
        """
        for name in ("x", "y", "t", "p"):
            array = getattr(self, name)
            if array.shape != (len(self.t),) or array.dtype != EVENT_DTYPE[name]:
                wanted = f"({len(self.t)},) {EVENT_DTYPE[name]}"
                raise ValueError(f"events.{name} is {array.shape} {array.dtype}, not {wanted}; see from_arrays")
        _check_inside("x", self.x, self.width)
        _check_inside("y", self.y, self.height)

    @classmethod
    def from_arrays(
        cls,
        x: Integer[np.ndarray, " E"],
        y: Integer[np.ndarray, " E"],
        t: Integer[np.ndarray, " E"],
        p: Shaped[np.ndarray, " E"],
        *,
        height: int,
        width: int,
    ) -> "EventStream":
        """Build a stream from arrays of any integer type; ``p`` may be boolean, or 0 and 1.

        Raises:
            ValueError: Lengths differ, an event lies outside the sensor, a time does not fit into int64, or a polarity
                is neither 0 nor 1.
        """
        _check_inside("x", x, width)  # before the cast, which would wrap
        _check_inside("y", y, height)
        if len(t) and int(t.max()) > np.iinfo(np.int64).max:
            raise ValueError(f"events.t holds {t.max()}, beyond int64; are these microseconds?")
        if p.dtype != np.bool_ and len(p) and not np.isin(p, (0, 1)).all():
            raise ValueError(f"events.p holds {p[~np.isin(p, (0, 1))][0]}; polarities are 0 (OFF) and 1 (ON)")
        return cls(
            x=x.astype(np.int16),
            y=y.astype(np.int16),
            t=t.astype(np.int64),
            p=p.astype(np.bool_),
            height=height,
            width=width,
        )

    @classmethod
    def from_structured(cls, events: Shaped[np.ndarray, " E"], *, height: int, width: int) -> "EventStream":
        """Build a stream from a structured array with fields x, y, t (µs), p, the form that tonic's datasets return.

        Raises:
            ValueError: A field is missing, or as `from_arrays`.
        """
        missing = {"x", "y", "t", "p"} - set(events.dtype.names or ())
        if missing:
            raise ValueError(f"event array lacks the fields {', '.join(sorted(missing))}; it has {events.dtype.names}")
        return cls.from_arrays(*(events[name] for name in ("x", "y", "t", "p")), height=height, width=width)

    def structured(self) -> Shaped[np.ndarray, " E"]:
        """Return the events as a structured array of `EVENT_DTYPE`, the form that tonic's functions take."""
        array = np.empty(len(self), EVENT_DTYPE)
        for name in EVENT_DTYPE.names or ():
            array[name] = getattr(self, name)
        return array

    def select(self, index: Bool[np.ndarray, " E"] | Int[np.ndarray, " M"]) -> "EventStream":
        """Return the events where a mask is True, or those with the given numbers in the given order."""
        return EventStream(
            x=self.x[index],
            y=self.y[index],
            t=self.t[index],
            p=self.p[index],
            height=self.height,
            width=self.width,
        )

    def __len__(self) -> int:
        """Number of events."""
        return len(self.t)


def recording_bytes(path: Path) -> bytes:
    """Return the bytes of a recording.

    Raises:
        EmptyRecordingError: The file has no bytes.
        ArtifactError: The file is missing or cannot be read.
    """
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise ArtifactError(f"{path}: no such recording; check the path, or download the dataset") from None
    except OSError as error:
        raise ArtifactError(f"{path}: cannot be read: {error.strerror}") from None
    if not data:
        raise EmptyRecordingError(f"{path}: a file of 0 bytes holds no events; fetch it again, or leave it out")
    return data


def recording(
    path: Path,
    x: Integer[np.ndarray, " E"],
    y: Integer[np.ndarray, " E"],
    t: Integer[np.ndarray, " E"],
    p: Shaped[np.ndarray, " E"],
    *,
    height: int,
    width: int,
) -> EventStream:
    """Build the stream that a reader returns; never an empty one.

    Raises:
        EmptyRecordingError: There are no events.
        ArtifactError: The events cannot come from a recording of this sensor.
    """
    if len(t) == 0:
        raise EmptyRecordingError(f"{path}: holds no events; record or fetch it again, or leave it out")
    try:
        return EventStream.from_arrays(x, y, t, p, height=height, width=width)
    except ValueError as error:
        raise ArtifactError(f"{path}: not a recording of this kind, or damaged: {error}") from None


def _check_inside(name: str, values: Integer[np.ndarray, " E"], size: int) -> None:
    """Raise `ValueError` unless ``size`` is a sensor's and all values lie in [0, size)."""
    if not 0 < size <= 1 << 15:
        raise ValueError(f"sensor size {size} along {name} must be in [1, 32768]")
    if len(values) and (values.min() < 0 or values.max() >= size):
        bad = values[(values < 0) | (values >= size)][0]
        raise ValueError(f"an event has {name}={bad}, outside the sensor's [0, {size})")
