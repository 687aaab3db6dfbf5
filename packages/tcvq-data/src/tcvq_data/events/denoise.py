"""Removal of isolated events, bit-identical with tonic's ``Denoise`` and without its loop over events."""

import numpy as np
from jaxtyping import Bool

from tcvq_data.events.stream import EventStream


def denoise(events: EventStream, *, filter_us: int = 10_000) -> EventStream:
    """Keep the events that one of their four neighbours supports.

    Event i at (x, y) is kept if, for a neighbour q in {(x±1, y), (x, y±1)} inside the part of the sensor that fired
    (columns up to the largest x, rows up to the largest y),

        t_i < t_q + filter_us,    t_q = time of the last event at q before i in the file, or 0 if there is none.

    The 0 is tonic's: it keeps nearly all events of the first ``filter_us``.

    Method: sort the events by (pixel, number). The last event at pixel q before i is then the one before the place
    where (q, i) would be inserted.

    Args:
        events: A recording in the order of its file; may be empty.
        filter_us: Time constant in microseconds.

    Returns:
        The kept events in their order.

    Raises:
        ValueError: ``filter_us`` is not positive.
    """
    if filter_us <= 0:
        raise ValueError(f"filter_us={filter_us} must be positive; tonic and the paper use 10000")
    return events.select(_supported(events, filter_us)) if len(events) else events


def _supported(events: EventStream, filter_us: int) -> Bool[np.ndarray, " E"]:
    """Return which events have a neighbour that fired lately."""
    n, width, height = len(events), int(events.x.max()) + 1, int(events.y.max()) + 1
    pixel = events.x.astype(np.int64) * height + events.y
    small = np.uint16 if width * height <= 1 << 16 else np.int64  # numpy sorts 16 bits by radix
    order = np.argsort(pixel.astype(small), kind="stable")
    x, y, t, pixel = events.x[order], events.y[order], events.t[order], pixel[order]
    key = pixel * n + order
    kept = np.zeros(n, np.bool_)
    for step, inside in ((-height, x > 0), (height, x < width - 1), (-1, y > 0), (1, y < height - 1)):
        before = np.searchsorted(key, key + step * n) - 1  # -1 wraps to the last pixel, which no event asks about
        t_q = np.where(pixel[before] == pixel + step, t[before], 0)
        kept |= inside & (t < t_q + filter_us)
    supported = np.empty(n, np.bool_)
    supported[order] = kept
    return supported
