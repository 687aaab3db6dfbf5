"""What describes a recording, and the numbers of one real N-MNIST recording to hold it against."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Int64

from tcvq_data.events.denoise import denoise
from tcvq_data.events.saccades import saccade_numbers, stabilise
from tcvq_data.events.stream import EventStream


class EventStatistics(NamedTuple):
    """Summary of one recording.

    Attributes:
        n_events: Number of events.
        on_share: Share of ON events.
        first_us: Time of the first event in microseconds.
        last_us: Time of the last event in microseconds.
        per_saccade: Events in each of the three saccades.
        active_pixels: Pixels with at least one event.
        max_per_pixel: Events of the busiest pixel.
        denoised_share: Share of events that `denoise` keeps.
        variation: Coefficient of variation of the events per pixel, standard deviation / mean.
        variation_stabilised: The same after `stabilise`; larger if the motion is that of N-MNIST.
    """

    n_events: int
    on_share: float
    first_us: int
    last_us: int
    per_saccade: tuple[int, int, int]
    active_pixels: int
    max_per_pixel: int
    denoised_share: float
    variation: float
    variation_stabilised: float


NMNIST_RECORDING = EventStatistics(  # measured on one training recording, a "4"
    n_events=4325,
    on_share=0.496,
    first_us=654,
    last_us=311_000,
    per_saccade=(1391, 1343, 1591),
    active_pixels=452,
    max_per_pixel=32,
    denoised_share=0.93,
    variation=1.69,
    variation_stabilised=2.13,
)


def event_statistics(events: EventStream) -> EventStatistics:
    """Describe one recording.

    Raises:
        ValueError: The recording is empty.
    """
    if len(events) == 0:
        raise ValueError("an empty recording has no statistics; leave it out")
    image = _per_pixel(events)
    first, second, third = np.bincount(saccade_numbers(events), minlength=3).tolist()
    return EventStatistics(
        n_events=len(events),
        on_share=float(events.p.mean()),
        first_us=int(events.t.min()),
        last_us=int(events.t.max()),
        per_saccade=(first, second, third),
        active_pixels=int((image > 0).sum()),
        max_per_pixel=int(image.max()),
        denoised_share=len(denoise(events)) / len(events),
        variation=_variation(image),
        variation_stabilised=_variation(_per_pixel(stabilise(events))),
    )


def _per_pixel(events: EventStream) -> Int64[np.ndarray, " N"]:
    """Return the number of events of every pixel of the sensor, flat."""
    return np.bincount(events.y.astype(np.int64) * events.width + events.x, minlength=events.height * events.width)


def _variation(image: Int64[np.ndarray, " N"]) -> float:
    """Return standard deviation / mean, 0 where there is nothing."""
    return float(image.std() / image.mean()) if image.any() else 0.0
