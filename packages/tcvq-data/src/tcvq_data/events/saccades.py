"""The camera path of N-MNIST, and its removal from a recording."""

import numpy as np
from jaxtyping import Int64

from tcvq_data.events.stream import EventStream

# Orchard et al. 2015: three saccades of about 105 ms along a triangle. The numbers are those of the authors'
# stabilising script, in pixels (x, y): the image wanders from the first corner over all others.
LEG_US = 105_000
CORNERS = np.array([(0.0, 0.0), (3.5, 7.0), (7.0, 0.0), (0.0, 0.0)])
_CENTRE = np.array([4.0, 2.0])  # puts the digit back into the middle


def saccade_numbers(events: EventStream) -> Int64[np.ndarray, " E"]:
    """Return for each event the number of its saccade, 0, 1 or 2; what follows the last belongs to it."""
    return np.searchsorted(LEG_US * np.arange(1, len(CORNERS) - 1), events.t)


def stabilise(events: EventStream) -> EventStream:
    """Move each event back by the mean motion of the image, equal to tonic's ``NMNIST(stabilize=True)``.

    With leg n = 0, 1, 2 from corner a to corner b, (x, y) ← (x, y) + (4, 2) - a - (b - a)·(t - n·105 ms)/105 ms,
    rounded half to even. Events that leave the sensor are dropped.

    Args:
        events: A recording of N-MNIST, or a simulated one, which starts at 0 µs.
    """
    leg = saccade_numbers(events)
    inside = np.ones(len(events), np.bool_)
    moved = []
    for axis, (position, size) in enumerate(((events.x, events.width), (events.y, events.height))):
        start, reach = CORNERS[:-1, axis], np.diff(CORNERS[:, axis])
        at = _CENTRE[axis] + position - start[leg] - reach[leg] * (events.t - LEG_US * leg) / LEG_US
        inside &= (at >= 0) & (at <= size - 1)
        moved.append(np.round(at).astype(np.int64))
    x, y = (position[inside] for position in moved)
    return EventStream.from_arrays(x, y, events.t[inside], events.p[inside], height=events.height, width=events.width)
