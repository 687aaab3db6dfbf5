"""The saccade simulator: seeded, plausible, and measured with the same ruler as a real recording."""

from itertools import pairwise

import numpy as np
import pytest

from tcvq_data import FashionMini
from tcvq_data.events import NMNIST_RECORDING, EventStream, SaccadeConfig, event_statistics, simulate_saccades

IMAGES = ((FashionMini("train", limit=12).images[:, 0] + 1) * 127.5).round().byte().numpy()
BLANK = np.zeros((28, 28), np.uint8)


def fields(events):
    return [getattr(events, name).tolist() for name in "xytp"]


def test_a_recording_follows_from_image_and_seed_alone():
    first = simulate_saccades(IMAGES[0], seed=(3, 1, 4))
    simulate_saccades(IMAGES[1], seed=5)
    assert fields(simulate_saccades(IMAGES[0], seed=(3, 1, 4))) == fields(first)
    assert fields(simulate_saccades(IMAGES[0], seed=(3, 1, 5))) != fields(first)


def test_a_recording_fits_nmnist():
    events = simulate_saccades(IMAGES[0], seed=0)
    assert (events.height, events.width) == (34, 34)
    assert (np.diff(events.t) >= 0).all()
    assert events.t[0] >= 0
    assert 310_000 < events.t[-1] < 335_000


def test_a_blank_image_gives_the_noise_and_nothing_else():
    counts = [len(simulate_saccades(BLANK, seed=i)) for i in range(20)]
    expected = 34 * 34 * 0.315  # 1 Hz per pixel
    assert abs(np.mean(counts) - expected) < 4 * np.sqrt(expected / 20)
    silent = SaccadeConfig(noise_hz=0.0)
    assert len(simulate_saccades(BLANK, seed=0, config=silent)) == 0
    assert len(simulate_saccades(np.full((28, 28), 90, np.uint8), seed=0, config=silent)) > 0  # its edges move


def test_statistics_lie_around_those_of_a_real_recording():
    found = [event_statistics(simulate_saccades(image, seed=i)) for i, image in enumerate(IMAGES)]
    mean = {
        name: np.mean([getattr(each, name) for each in found]) for name in ("n_events", "on_share", "denoised_share")
    }
    assert 3000 < mean["n_events"] < 7800  # 5274 (2274 to 7794) over 120 images
    assert abs(mean["on_share"] - NMNIST_RECORDING.on_share) < 0.03
    assert abs(mean["denoised_share"] - NMNIST_RECORDING.denoised_share) < 0.05
    assert all(each.variation_stabilised > each.variation for each in found)
    assert all(sum(each.per_saccade) == each.n_events for each in found)


def test_brighter_edges_and_lower_thresholds_give_more_events():
    quiet = {"noise_hz": 0.0, "threshold_std": 0.0}
    numbers = [
        len(simulate_saccades(IMAGES[0], seed=0, config=SaccadeConfig(threshold=c, **quiet))) for c in (0.2, 0.3, 0.6)
    ]
    assert all(more > fewer for more, fewer in pairwise(numbers))
    assert len(simulate_saccades(IMAGES[0] // 4, seed=0, config=SaccadeConfig(**quiet))) < numbers[1]


def test_an_edge_that_comes_makes_events_of_the_other_polarity_than_one_that_goes():
    config = SaccadeConfig(noise_hz=0.0, threshold_std=0.0, latency_us=0.0)
    image = BLANK.copy()
    image[14, 14] = 255
    events = simulate_saccades(image, seed=0, config=config)
    share = events.p.mean()
    assert 0.4 < share < 0.6
    first_leg = events.select(events.t < 105_000)
    leading = first_leg.y > 16 + 3.5  # the image moves down and right in the first leg
    assert first_leg.p[leading].mean() > first_leg.p[~leading].mean()


@pytest.mark.parametrize(
    ("values", "match"),
    [
        ({"threshold": 0.0}, r"threshold=0.0 .* must be positive"),
        ({"noise_hz": -1.0}, r"noise_hz=-1.0 .* must not be negative"),
    ],
)
def test_impossible_cameras_are_refused(values, match):
    with pytest.raises(ValueError, match=match):
        SaccadeConfig(**values)


def test_statistics_by_hand():
    x, t = np.array([0, 0, 1, 2]), np.array([10, 20, 150_000, 290_000])
    events = EventStream.from_arrays(x, np.zeros(4, int), t, np.array([1, 1, 0, 0]), height=34, width=34)
    found = event_statistics(events)
    assert found[:7] == (4, 0.5, 10, 290_000, (2, 1, 1), 3, 2)
    with pytest.raises(ValueError, match="an empty recording has no statistics"):
        event_statistics(events.select(np.zeros(4, bool)))
