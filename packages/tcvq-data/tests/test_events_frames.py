"""Denoising, binning, scaling and the way back; where tonic is installed, bit by bit what tonic does."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from tcvq_data import FashionMini
from tcvq_data.events import (
    EventStream,
    bin_events,
    denoise,
    resize_frames,
    restore_frames,
    sample_peaks,
    scale_counts,
    simulate_saccades,
    stabilise,
    unbin_frames,
    unscale_counts,
)


def random_events(n, seed, *, side=12, duration=100_000):
    rng = np.random.default_rng(seed)
    x, y, p = rng.integers(0, side, n), rng.integers(0, side, n), rng.integers(0, 2, n)
    return EventStream.from_arrays(x, y, np.sort(rng.integers(0, duration, n)), p, height=side, width=side)


def recording(number=0):
    image = ((FashionMini("train", limit=number + 1)[number].image[0] + 1) * 127.5).round().byte().numpy()
    return simulate_saccades(image, seed=number)


def same(a, b):
    return all(np.array_equal(getattr(a, name), getattr(b, name)) for name in "xytp")


def by_the_definition(events, filter_us):
    """The loop that `denoise` must equal: a memory of when each pixel last fired, asked before it is written."""
    last = np.zeros((events.x.max() + 1, events.y.max() + 1), np.int64)
    kept = []
    for x, y, t in zip(events.x.tolist(), events.y.tolist(), events.t.tolist(), strict=True):
        around = [(x - 1, y), (x + 1, y), (x, y - 1), (x, y + 1)]
        inside = [(a, b) for a, b in around if 0 <= a < last.shape[0] and 0 <= b < last.shape[1]]
        kept.append(any(t < last[place] + filter_us for place in inside))
        last[x, y] = t
    return events.select(np.array(kept))


@settings(max_examples=60, deadline=None)
@given(n=st.integers(1, 120), seed=st.integers(0, 10**6), side=st.integers(1, 9), filter_us=st.integers(1, 30_000))
def test_denoising_keeps_what_a_neighbour_supports(n, seed, side, filter_us):
    events = random_events(n, seed, side=side)
    assert same(denoise(events, filter_us=filter_us), by_the_definition(events, filter_us))


def test_denoising_leaves_the_order_and_an_empty_recording_alone():
    events = recording()
    kept = denoise(events)
    assert 0.7 < len(kept) / len(events) < 1
    assert (np.diff(kept.t) >= 0).all()
    empty = events.select(np.zeros(len(events), bool))
    assert len(denoise(empty)) == 0
    with pytest.raises(ValueError, match="filter_us=0 must be positive"):
        denoise(events, filter_us=0)


@pytest.mark.peer
@pytest.mark.parametrize("n_steps", [2, 4, 6, 10])
def test_denoising_and_binning_equal_tonic_bit_by_bit(n_steps):
    transforms = pytest.importorskip("tonic").transforms
    for events in [*(recording(i) for i in range(3)), random_events(3000, 1)]:
        theirs = transforms.Denoise(filter_time=10_000)(events.structured())
        ours = denoise(events)
        assert np.array_equal(ours.structured(), theirs)
        frames = transforms.ToFrame(sensor_size=(events.width, events.height, 2), n_time_bins=n_steps)(theirs)
        assert np.array_equal(bin_events(ours, n_steps, rule="tonic"), frames)


@settings(max_examples=60, deadline=None)
@given(
    n=st.integers(0, 200),
    seed=st.integers(0, 10**6),
    n_steps=st.integers(1, 12),
    rule=st.sampled_from(["time", "count"]),
)
def test_no_event_is_lost_by_time_or_by_count(n, seed, n_steps, rule):
    events = random_events(n, seed)
    frames = bin_events(events, n_steps, rule=rule)
    assert frames.shape == (n_steps, 2, 12, 12)
    assert frames.sum() == n
    per_pixel = np.zeros((2, 12, 12), int)
    np.add.at(per_pixel, (events.p.astype(int), events.y, events.x), 1)
    assert np.array_equal(frames.sum(0), per_pixel)
    if rule == "count" and n:
        sizes = frames.sum((1, 2, 3))
        assert sizes.max() - sizes.min() <= 1


def test_equal_times_by_hand_and_the_tail_that_tonic_loses():
    events = EventStream.from_arrays(
        np.array([0, 1, 2, 0]),
        np.array([0, 0, 0, 1]),
        np.array([0, 4, 5, 10]),
        np.array([0, 1, 0, 1]),
        height=2,
        width=3,
    )
    frames = bin_events(events, 2)
    assert np.argwhere(frames).tolist() == [[0, 0, 0, 0], [0, 0, 0, 2], [0, 1, 0, 1], [1, 1, 1, 0]]
    assert bin_events(events, 2, rule="tonic").sum() == 3
    assert bin_events(events, 11, rule="tonic").sum() == 0
    assert bin_events(events, 2, span=(-10, 11))[1].sum() == 3


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ({"n_steps": 0}, "n_steps=0 must be positive"),
        ({"n_steps": 2, "rule": "count", "span": (0, 1)}, "belongs to rule 'time'"),
        ({"n_steps": 2, "span": (0, 5)}, r"leave span=\(0, 5\)"),
    ],
)
def test_binning_that_makes_no_sense_is_refused(arguments, match):
    with pytest.raises(ValueError, match=match):
        bin_events(random_events(50, 0), **arguments)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10**6), n_steps=st.integers(1, 7), duration=st.integers(50, 400_000))
def test_counts_become_events_of_the_same_counts(seed, n_steps, duration):
    counts = np.random.default_rng(seed).poisson(0.3, (n_steps, 2, 5, 6)).astype(np.uint8)
    events = unbin_frames(counts, seed=seed, span=(100, 100 + duration))
    assert np.array_equal(bin_events(events, n_steps, span=(100, 100 + duration)), counts)
    assert (np.diff(events.t) >= 0).all()
    assert same(events, unbin_frames(counts, seed=seed, span=(100, 100 + duration)))


def test_times_within_a_step_are_uniform():
    events = unbin_frames(np.full((2, 2, 10, 10), 50, np.uint8), seed=0, span=(0, 20_000))
    first = np.sort(events.t[events.t < 10_000]) / 10_000
    gap = np.abs(first - np.linspace(0, 1, len(first))).max()
    assert gap < 1.63 / np.sqrt(len(first))  # Kolmogorov-Smirnov at 1 %


def test_counts_that_are_none_are_refused():
    with pytest.raises(ValueError, match="counts cannot be negative"):
        unbin_frames(np.full((1, 2, 1, 1), -1), seed=0)
    with pytest.raises(ValueError, match="cannot be divided into 4 steps"):
        unbin_frames(np.zeros((4, 2, 1, 1), np.uint8), seed=0, span=(0, 3))


@given(peak=st.integers(1, 60_000), counts=st.lists(st.integers(0, 60_000), min_size=1, max_size=20))
@settings(max_examples=60, deadline=None)
def test_scaling_is_inverted_exactly_up_to_the_peak(peak, counts):
    c = torch.tensor(counts)
    x = scale_counts(c, peak)
    assert x.min() >= -1
    assert x.max() <= 1
    assert torch.equal(unscale_counts(x, peak), c.clamp_max(peak))


def test_an_empty_recording_scales_to_minus_one_and_not_to_nan():
    frames = torch.zeros(2, 3, 2, 4, 4, dtype=torch.uint8)
    frames[1, 0, 0, 0, 0] = 7
    peaks = sample_peaks(frames)
    assert peaks.flatten().tolist() == [1, 7]
    x = scale_counts(frames, peaks)
    assert x[0].eq(-1).all()
    assert x[1].max() == 1
    with pytest.raises(ValueError, match="peak=0 must be at least 1"):
        scale_counts(frames, 0)


@pytest.mark.parametrize("size", [(64, 64), (20, 50), (34, 34), (1, 7)])
def test_bilinear_resizing_is_that_of_torch_with_aligned_corners(size):
    x = torch.randn(3, 2, 34, 34, generator=torch.Generator().manual_seed(0))
    expected = F.interpolate(x, size, mode="bilinear", align_corners=True)
    torch.testing.assert_close(resize_frames(x, size), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("rule", ["bilinear", "count"])
def test_enlarged_frames_are_restored_and_shrunk_ones_cannot_be(rule):
    counts = torch.from_numpy(bin_events(recording(), 4).astype(np.int64))
    x = resize_frames(scale_counts(counts, 9), (64, 64), rule=rule)
    assert torch.equal(unscale_counts(restore_frames(x, (34, 34), rule=rule), 9), counts.clamp_max(9))
    with pytest.raises(ValueError, match="cannot be restored"):
        restore_frames(x, (65, 64), rule=rule)


def test_spreading_counts_keeps_their_sum():
    counts = torch.randint(0, 5, (2, 2, 34, 34)).float()
    for size in ((17, 17), (64, 40)):
        torch.testing.assert_close(resize_frames(counts, size, rule="count").sum((2, 3)), counts.sum((2, 3)))
    halved = resize_frames(counts, (17, 17), rule="count")
    torch.testing.assert_close(halved, F.avg_pool2d(counts, 2) * 4)


def test_undoing_the_saccades_sharpens_the_picture():
    events = recording(3)

    def sharpness(stream):
        image = np.bincount(stream.y.astype(int) * stream.width + stream.x, minlength=stream.width * stream.height)
        return image.std() / image.mean()

    still = stabilise(events)
    assert sharpness(still) > 1.2 * sharpness(events)
    assert np.array_equal(np.sort(still.t), still.t)


@pytest.mark.parametrize("side", [128, 181, 182, 300])
@pytest.mark.parametrize("rule", ["time", "count"])
def test_large_sensors_and_unsorted_times_are_counted_alike(side, rule):
    rng = np.random.default_rng(side)
    x, y, t, p = (
        rng.integers(0, side, 3000),
        rng.integers(0, side, 3000),
        rng.integers(0, 9999, 3000),
        rng.integers(0, 2, 3000),
    )
    frames = bin_events(EventStream.from_arrays(x, y, t, p, height=side, width=side), 5, rule=rule)
    step = (t - t.min()) * 5 // (t.max() - t.min() + 1) if rule == "time" else np.arange(3000) * 5 // 3000
    expected = np.zeros_like(frames)
    np.add.at(expected, (step, p, y, x), 1)
    assert np.array_equal(frames, expected)


def test_a_cell_that_overflows_is_refused():
    n = 1 << 16
    stuck = EventStream.from_arrays(*(np.zeros(n, int) for _ in "xytp"), height=2, width=2)
    with pytest.raises(ValueError, match="a cell has 65536 events, more than 65535"):
        bin_events(stuck, 1)
    assert bin_events(stuck, 2, rule="count").sum() == n
