"""Between events and counts per time step: every event goes into one cell, and counts go back to events."""

from typing import Any, Literal, get_args

import numpy as np
from jaxtyping import Int64, Integer, UInt16

from tcvq_data.events.stream import EventStream

BinRule = Literal["time", "count", "tonic"]

_MOST = np.iinfo(np.uint16).max


def bin_events(
    events: EventStream, n_steps: int, *, rule: BinRule = "time", span: tuple[int, int] | None = None
) -> UInt16[np.ndarray, "T 2 H W"]:
    """Count events per step, polarity and pixel.

    With T = ``n_steps``, and E events of which the i-th has the time t_i, the step of an event is

    - ``time``: ⌊(t_i - start)·T / (stop - start)⌋: equal times; no event is lost,
    - ``count``: ⌊i·T / E⌋: equal numbers of events, in the order of the file; no event is lost,
    - ``tonic``: ⌊(t_i - t_0) / w⌋ with w = ⌊(t_last - t_0) / T⌋; steps beyond T are dropped. It equals tonic's
      ``ToFrame(n_time_bins=T)`` on sorted recordings, loses the last event or more, and all if w = 0.

    Args:
        events: A recording. An empty one makes zeros.
        n_steps: Number of steps T.
        rule: How to divide.
        span: Start and stop of rule ``time`` in microseconds; None takes the first time and the last + 1.

    Returns:
        Counts; channel 0 is OFF, channel 1 is ON.

    Raises:
        ValueError: ``n_steps`` is not positive, the rule is unknown, an event lies outside ``span``, or a cell has
            more than 65535 events.
    """
    if n_steps < 1:
        raise ValueError(f"n_steps={n_steps} must be positive")
    if rule not in get_args(BinRule):
        raise ValueError(f"rule {rule!r} is unknown; rules: {', '.join(get_args(BinRule))}")
    if span is not None and rule != "time":
        raise ValueError(f"span={span} belongs to rule 'time', not to {rule!r}")
    shape = (n_steps, 2, events.height, events.width)
    if len(events) == 0:
        return np.zeros(shape, np.uint16)
    order, at = _steps(events.t, n_steps, rule, span)
    size = 2 * events.height * events.width
    pixel = _pixels(events, order)
    cell = np.repeat(np.arange(n_steps) * size, np.diff(at))
    cell += pixel
    counts = np.bincount(cell, minlength=n_steps * size)
    if len(cell) > _MOST and counts.max() > _MOST:
        raise ValueError(f"a cell has {counts.max()} events, more than {_MOST}; a stuck pixel? else use more steps")
    return counts.astype(np.uint16).reshape(shape)


def unbin_frames(
    frames: Integer[np.ndarray, "T 2 H W"], *, seed: int | tuple[int, ...], span: tuple[int, int] = (0, 315_000)
) -> EventStream:
    """Turn counts into events: ``bin_events(unbin_frames(c, span=s), len(c), span=s)`` is ``c``.

    Model of the times, which counts do not hold: each event falls uniformly at random, and independently of all others,
    on the microseconds of its step; so a pixel is a Poisson process of constant rate, given its counts.

    Args:
        frames: Counts per step, polarity (OFF, ON) and pixel.
        seed: Any whole numbers that are not negative; the same give the same events.
        span: Start and stop of the recording in microseconds; the default is that of N-MNIST's three saccades.

    Returns:
        Events sorted by time.

    Raises:
        ValueError: A count is negative, there are no steps, or more than the span has microseconds.
    """
    if frames.size and frames.min() < 0:
        raise ValueError(f"frames hold {frames.min()}; counts cannot be negative, see unscale_counts")
    start, stop = span
    n_steps, _, height, width = frames.shape
    if not 0 < n_steps <= stop - start:
        raise ValueError(f"span={span} is {stop - start} µs, which cannot be divided into {n_steps} steps")
    cell = np.repeat(np.arange(frames.size), frames.ravel())
    step, p, y, x = np.unravel_index(cell, frames.shape)
    edges = start - np.arange(n_steps + 1) * -(stop - start) // n_steps  # k·D/T rounded up
    t = np.random.default_rng(seed).integers(edges[step], edges[step + 1])
    events = EventStream.from_arrays(x, y, t, p, height=height, width=width)
    return events.select(np.argsort(t, kind="stable"))


def _pixels(events: EventStream, order: slice | Int64[np.ndarray, " M"]) -> Integer[np.ndarray, " M"]:
    """Return (p·H + y)·W + x of some events, in 16 bits if they suffice: that is three times as fast."""
    small: type[np.unsignedinteger[Any]] = np.uint16 if 2 * events.height * events.width <= 1 << 16 else np.uint32
    pixel: np.ndarray = events.p[order].astype(small)
    for size, coordinate in ((events.height, events.y), (events.width, events.x)):
        pixel *= small(size)
        pixel += coordinate[order].astype(small)
    return pixel


def _steps(
    t: Int64[np.ndarray, " E"], n_steps: int, rule: BinRule, span: tuple[int, int] | None
) -> tuple[slice | Int64[np.ndarray, " M"], Int64[np.ndarray, " K"]]:
    """Return an order of the events, and the places in it where each step begins and the last one ends."""
    if rule == "count":
        return slice(None), -(-np.arange(n_steps + 1) * len(t) // n_steps)  # k·E/T rounded up
    if rule == "tonic":
        window = int(t[-1] - t[0]) // n_steps
        return _divide(t, int(t[0]) + window * np.arange(n_steps + 1))
    first, last = int(t.min()), int(t.max())
    start, stop = span or (first, last + 1)
    if not (start <= first and last < stop):
        raise ValueError(f"events at {first}..{last} µs leave span={span}; select them, or widen the span")
    return _divide(t, start - np.arange(n_steps + 1) * -(stop - start) // n_steps)  # k·D/T rounded up


def _divide(
    t: Int64[np.ndarray, " E"], edges: Int64[np.ndarray, " K"]
) -> tuple[slice | Int64[np.ndarray, " M"], Int64[np.ndarray, " K"]]:
    """Divide events at times: step k holds those with edges[k] <= t < edges[k + 1].

    In recordings that are sorted, as they are, only the edges are searched for: a division per event would cost more
    than all the rest.
    """
    if (t[1:] >= t[:-1]).all():
        at = np.searchsorted(t, edges)
        return slice(at[0], at[-1]), at
    order = np.argsort(t, kind="stable")
    at = np.searchsorted(t[order], edges)
    return order[at[0] : at[-1]], at
