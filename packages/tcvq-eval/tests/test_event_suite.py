"""Statistics of recordings by hand, the trained feature space, and a ruler that must see what it claims to see."""

import math

import pytest
import torch

from tcvq_eval import (
    EventClassifier,
    EventTraining,
    cached_event_classifier,
    count_check,
    destroyed,
    evaluate_events,
    event_statistics,
    statistic_distances,
    train_event_classifier,
)
from tcvq_eval.event_statistics import wasserstein_ks
from tcvq_eval.testing import check_feature_extractor

T, SIDE, PEAK = 4, 12, 5.0


def clip(events):
    """Return one recording (1, 2, 2, 4, 6) with the given (step, channel, row, column, count) entries."""
    x = torch.zeros(1, 2, 2, 4, 6)
    for step, channel, row, column, count in events:
        x[0, step, channel, row, column] = count
    return x


def moving(n, seed, direction=1):
    """Return n recordings of a spot that moves right with time, in the row band of its class, and the classes."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(n) % 3
    jitter = torch.randint(0, 2, (n, 2), generator=generator)
    x = torch.zeros(n, T, 2, SIDE, SIDE)
    for i in range(n):
        for t in range(T):
            step = t if direction > 0 else T - 1 - t
            row, column = 4 * int(labels[i]) + int(jitter[i, 0]), 2 * step + int(jitter[i, 1])
            x[i, t, t % 2, row : row + 2, column : column + 3] = torch.randint(
                1, 6, (2, 3), generator=generator
            ).float()
    return 2 * x / PEAK - 1, labels


@pytest.fixture(scope="module")
def classifier():
    clips, labels = moving(300, seed=1)
    training = EventTraining(steps=60, batch_size=32)
    return train_event_classifier(clips.__getitem__, labels, n_steps=T, n_classes=3, training=training)


def test_features_and_maps_have_unit_mean_square_and_the_classes_are_those_before(classifier):
    clips, labels = moving(300, seed=1)
    assert classifier(clips).square().mean().item() == pytest.approx(1, rel=1e-3)
    assert classifier.maps(clips.flatten(0, 1)).square().mean().item() == pytest.approx(1, rel=1e-3)
    before = classifier.logits_of(classifier(clips))
    clone = EventClassifier(T, 3)
    clone.load_state_dict(classifier.state_dict())
    clone.normalise(clips[:7])
    assert torch.allclose(clone.logits_of(clone(clips)), before, atol=1e-4)
    assert not torch.allclose(clone(clips), classifier(clips))
    assert (before.argmax(dim=1) == labels).double().mean() > 0.9


def test_statistics_of_a_recording_by_hand():
    found = event_statistics(clip([(0, 0, 0, 0, 3), (0, 1, 0, 5, 1), (1, 1, 3, 5, 2)]))
    assert found["rate"].tolist() == [[4, 2]]
    assert found["total"].item() == 6
    assert found["on_share"].item() == 3 / 6
    assert found["active_share"].item() == 3 / 24
    assert found["centroid_x"].tolist() == [[pytest.approx(1 / 4), 1.0]]  # 3 at the left, 1 at the right
    assert found["centroid_y"].tolist() == [[0.0, 1.0]]
    assert found["autocorrelation"].tolist() == [[0.0]]  # no cell is active twice
    assert found["histogram"][0].tolist() == pytest.approx([93 / 96, 1 / 96, 1 / 96, 1 / 96, 0, 0])


def test_a_recording_that_repeats_itself_is_fully_correlated():
    still = clip([(0, 0, 1, 1, 2), (1, 0, 1, 1, 2)])
    assert event_statistics(still)["autocorrelation"].item() == 1.0


def test_an_empty_recording_has_no_polarity_and_no_centre_but_is_no_error():
    found = event_statistics(clip([]))
    assert math.isnan(found["on_share"].item())
    assert found["centroid_x"].isnan().all()
    assert found["total"].item() == 0
    distances = statistic_distances(clip([]), clip([]), clip([]))
    assert all(each.w1 == 0 for each in distances)


def test_a_stripe_has_its_power_at_its_own_frequency():
    x = torch.zeros(1, 1, 2, 8, 8)
    x[..., 0::4] = 1  # two periods of four pixels across
    spectrum = event_statistics(x)["spectrum"][0]
    assert spectrum.argmax().item() == 1  # rings begin at frequency 1


def test_wasserstein_of_a_shift_is_the_shift_in_standard_deviations():
    x = torch.arange(101.0, dtype=torch.float64)[:, None]
    w1, ks = wasserstein_ks(x, x + 10)
    assert w1 == pytest.approx(10 / x.std(correction=0).item())
    assert ks == pytest.approx(10 / 101)


def test_twice_the_rate_is_found_in_the_rate_and_not_in_the_polarity():
    (a, _), (b, _), (c, _) = (moving(80, seed) for seed in (2, 3, 4))
    real, other, fake = ((x + 1) * PEAK / 2 for x in (a, b, c))
    found = {each.name: each for each in statistic_distances(real, other, 2 * fake)}
    assert found["total"].w1 > 5 * found["total"].w1_floor
    assert found["total"].fake[0] == pytest.approx(2 * found["total"].real[0], rel=0.1)
    assert found["on_share"].w1 < 3 * found["on_share"].w1_floor + 0.1


def test_counts_are_whole_and_not_negative():
    check = count_check(torch.tensor([0.0, 1.0, 2.5, -1.0]))
    assert (check.negative, check.fractional) == (1 / 4, 1 / 4)
    assert count_check(torch.tensor([1.02, 2.98]), tolerance=0.03).fractional == 0


def test_the_classifier_learns_repeats_and_keeps_the_contract(classifier):
    clips, labels = moving(90, seed=5)
    assert (classifier.predict(clips) == labels).double().mean() > 0.95
    check_feature_extractor(classifier, clips[:4])
    data, known = moving(40, seed=6)
    training = EventTraining(steps=3, batch_size=32)
    twice = [
        train_event_classifier(data.__getitem__, known, n_steps=T, n_classes=3, training=training) for _ in range(2)
    ]
    assert twice[0].weights_sha256 == twice[1].weights_sha256


def test_the_cache_returns_the_same_weights_and_trains_again_if_they_are_damaged(tmp_path):
    data, labels = moving(20, seed=7)
    reads = []

    def read(rows):
        reads.append(len(rows))
        return data[rows]

    def get(data_sha256="a"):
        training = EventTraining(steps=2, batch_size=8)
        return cached_event_classifier(
            tmp_path, data_sha256, read, labels, n_steps=T, n_classes=3, training=training
        ).weights_sha256

    first = get()
    assert get() == first
    assert len(reads) == 3  # two batches, and once to give the features their size
    next(tmp_path.iterdir()).write_bytes(b"damaged")
    assert get() == first
    assert len(reads) == 6
    get("b")
    assert len(reads) == 9


def test_recordings_without_classes_or_of_another_length_are_refused(classifier):
    data, labels = moving(4, seed=8)
    with pytest.raises(ValueError, match="needs classes from 0 to 2"):
        train_event_classifier(data.__getitem__, labels - 1, n_steps=T, n_classes=3)
    with pytest.raises(ValueError, match="built for"):
        classifier(data[:, :2])


def test_destroyed_recordings_by_hand():
    x = torch.arange(6.0).reshape(2, 3, 1)
    assert destroyed(x, "reverse")[0].flatten().tolist() == [2, 1, 0]
    assert destroyed(x, "last")[1].flatten().tolist() == [5, 5, 5]
    assert sorted(destroyed(x, "shuffle")[0].flatten().tolist()) == [0, 1, 2]
    with pytest.raises(ValueError, match="there are reverse, shuffle and last"):
        destroyed(x, "none")


def test_good_recordings_are_nearer_than_reversed_ones_and_the_ruler_proves_that_it_sees_time(classifier):
    (real, real_labels), (good, labels) = moving(240, seed=9), moving(100, seed=10)
    result = evaluate_events(good, real, classifier, labels=labels, real_labels=real_labels, peak=PEAK, resamples=2)
    backwards = evaluate_events(moving(100, seed=11, direction=-1)[0], real, classifier, peak=PEAK, resamples=0)
    fd, far = result.measurements[0], backwards.measurements[0]
    assert result.n == 100
    assert fd.name == "fd[event-cnn/3]"
    assert fd.value < 2 * fd.noise_floor < far.value
    ratio = {each.name: each.ratio for each in result.temporal}
    assert ratio["reverse"] > 3
    assert ratio["last"] > ratio["shuffle"] > 3  # the last step alone loses most
    assert all(each.seen for each in result.temporal)
    assert max(result.slice_fd) < 4 * max(result.slice_floor)
    assert max(backwards.slice_fd) > 4 * max(result.slice_fd)
    assert backwards.difference_fd > 4 * result.difference_floor
    assert result.accuracy > 0.9
    assert result.real_accuracy > 0.9
    assert sum(result.classes) == pytest.approx(1.0)
    assert (result.counts.negative, result.counts.fractional) == (0, 0)
    path = {each.name: each for each in backwards.statistics}["centroid_x"]
    assert path.real[0] < path.real[-1]
    assert path.fake[0] > path.fake[-1]
    assert path.ks > 0.9


def test_too_few_recordings_are_refused(classifier):
    data, _ = moving(3, seed=12)
    with pytest.raises(ValueError, match="too few to compare"):
        evaluate_events(data, data, classifier)


def test_large_frames_are_averaged_first():
    assert EventClassifier(2, 3)(torch.rand(2, 2, 2, 64, 64)).shape == (2, 64)
