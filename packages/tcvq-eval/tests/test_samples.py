"""The evaluation of a set of samples: yardsticks, fingerprint, class agreement, memorisation."""

import dataclasses

import pytest
import torch

from tcvq_eval import (
    FashionFeatures,
    as_saved,
    class_agreement,
    evaluate_fidelity,
    evaluate_samples,
    fd_fashion,
    frechet_distance,
    memorisation,
    sample_headlines,
)


class Means:
    """Four features: the means of the quarters of an image."""

    name = "means"
    num_features = 4

    def __call__(self, images):
        return torch.nn.functional.adaptive_avg_pool2d(images, 2).flatten(1)


def test_real_images_against_real_images_score_like_the_noise_floor(pictures):
    result = evaluate_fidelity(pictures(100), pictures(200), Means())
    assert result.n == 100
    assert 0.2 < result.fd / result.fd_noise_floor < 5
    assert abs(result.precision - result.precision_ceiling) < 0.2


def test_dark_images_stand_far_above_the_noise_floor(pictures):
    result = evaluate_fidelity(pictures(100) * 0.2 - 0.8, pictures(200), Means())
    assert result.fd > 100 * result.fd_noise_floor
    assert (result.precision, result.recall) == (0.0, 0.0)


def test_both_comparisons_use_half_of_a_small_real_set(pictures):
    result = evaluate_fidelity(pictures(100), pictures(60), Means())
    assert result.n == 30
    assert (result.fingerprint["n_real"], result.fingerprint["n_fake"]) == (30, 30)


def test_fewer_images_than_features_are_pointed_out(pictures):
    assert "singular covariance" in fd_fashion(pictures(20), pictures(40)).note
    assert evaluate_fidelity(pictures(20), pictures(40), Means()).note == ""


def test_samples_are_clamped_and_rounded_once(pictures):
    x = torch.tensor([-7.0, -1.0, 0.0011, 1.0, 3.0]).view(1, 1, 1, 5)
    assert as_saved(x).flatten().tolist() == pytest.approx([-1, -1, 128 / 127.5 - 1, 1, 1], abs=1e-6)
    real = pictures(8)
    assert torch.equal(as_saved(real), real)


def test_the_distance_carries_the_name_of_its_space(pictures):
    ours = fd_fashion(pictures(8), pictures(16)).fingerprint
    other = evaluate_fidelity(pictures(8), pictures(16), Means()).fingerprint
    assert ours["metric"] == "fd_fashion"
    assert ours["extractor_sha256"] == FashionFeatures.weights_sha256
    assert other["metric"] == "fd[means]"


@pytest.mark.parametrize("change", [{"real_split": "train"}, {"seed": 1}])
def test_the_fingerprint_changes_with_each_setting(change, pictures):
    fake, real = pictures(8), pictures(16)
    assert (
        evaluate_fidelity(fake, real, Means()).fingerprint
        != evaluate_fidelity(fake, real, Means(), **change).fingerprint
    )


def test_the_fingerprint_changes_with_the_number_of_samples(pictures):
    fake, real = pictures(8), pictures(16)
    assert evaluate_fidelity(fake, real, Means()).fingerprint != evaluate_fidelity(fake[:7], real, Means()).fingerprint


def test_the_same_seed_gives_the_same_evaluation(pictures):
    fake, real = pictures(20), pictures(40)
    assert evaluate_fidelity(fake, real, Means()) == evaluate_fidelity(fake, real, Means())


def test_class_agreement_counts_over_all_and_per_class():
    result = class_agreement(torch.tensor([0, 0, 1, 1, 2]), torch.tensor([0, 1, 1, 1, 0]), 3, real=0.9)
    assert result.overall == pytest.approx(3 / 5)
    assert result.per_class[:2] == pytest.approx((1 / 2, 2 / 3))
    assert result.per_class[2] != result.per_class[2]  # never asked for
    assert result.real == 0.9


def test_copies_of_training_images_are_found(pictures):
    train, held_out = pictures(40), pictures(20)
    result = memorisation(torch.cat([train[:5], pictures(5)]), train, held_out)
    assert result.copies == 0.5
    assert memorisation(train[:7], train, held_out).ratio == 0


def test_distances_are_root_mean_square_pixel_differences():
    train = torch.zeros(3, 1, 4, 4)
    result = memorisation(train[:2] + 0.5, train, train[:2] - 0.25)
    assert (result.sample_distance, result.held_out_distance, result.ratio) == (0.5, 0.25, 2.0)
    assert (result.copies, result.n_train) == (0.0, 3)


def test_memorisation_needs_all_three_sets(pictures):
    with pytest.raises(ValueError, match="got 2, 0, 3"):
        memorisation(pictures(2), pictures(0), pictures(3))


def test_evaluate_samples_measures_everything_it_is_given(pictures):
    extractor, real = FashionFeatures(), pictures(30)
    samples, labels = pictures(12), torch.arange(12) % 10
    result = evaluate_samples(
        samples,
        labels,
        real,
        extractor,
        real_labels=extractor.predict(real),
        train=pictures(20),
        reconstructions=real,
    )
    expected = (extractor.predict(samples) == labels).double().mean().item()
    assert result.agreement.overall == pytest.approx(expected)
    assert result.agreement.real == 1.0
    assert result.memorisation.n_train == 20
    assert (result.fidelity.n, result.codec.n) == (12, 12)
    assert [line.label for line in sample_headlines(result)] == [
        "fd_fashion, n = 12",
        "precision",
        "recall",
        "class agreement",
    ]


def test_perfect_reconstructions_score_exactly_the_noise_floor(pictures):
    real = pictures(60)
    result = evaluate_samples(pictures(12), None, real, Means(), reconstructions=real)
    assert result.codec.fd == result.codec.fd_noise_floor == result.fidelity.fd_noise_floor


def test_reconstructions_must_be_those_of_the_real_images(pictures):
    with pytest.raises(ValueError, match="20 reconstructions of 30 real images"):
        evaluate_samples(pictures(12), None, pictures(30), Means(), reconstructions=pictures(20))


@pytest.mark.parametrize("labels", [None, torch.full((12,), -1)])
def test_samples_without_classes_have_no_class_agreement(labels, pictures):
    result = evaluate_samples(pictures(12), labels, pictures(30), FashionFeatures())
    assert (result.agreement, result.memorisation, result.codec) == (None, None, None)
    assert len(sample_headlines(result)) == 3


def test_the_distance_is_that_of_the_shuffled_first_half(pictures):
    fake, real = pictures(10), pictures(20)
    order = torch.randperm(20, generator=torch.Generator().manual_seed(0))[:10]
    expected = frechet_distance(Means()(real[order]), Means()(fake))
    assert evaluate_fidelity(fake, real, Means()).fd == pytest.approx(expected, rel=1e-5)


def test_results_are_plain_and_frozen(pictures):
    result = evaluate_samples(pictures(12), None, pictures(30), FashionFeatures())
    with pytest.raises(dataclasses.FrozenInstanceError):
        result.n = 3
