"""Kernel distance, Inception Score, overlap, spread and fingerprints: closed forms, libraries, and properties."""

import dataclasses
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import nn

from tcvq_eval import (
    FashionFeatures,
    Fingerprint,
    InceptionFeatures,
    ModuleFeatures,
    cached_features,
    density_coverage,
    extract_features,
    fd_infinity,
    fingerprint_differences,
    frechet_distance,
    half_spread,
    inception_score,
    kernel_distance,
    load_features,
    measure,
    mmd,
    open_source,
    save_features,
    tensor_source,
)
from tcvq_eval.sources import content_sha256
from tcvq_eval.testing import check_feature_extractor

WIDTH = 12


def normal(n, generator, width=WIDTH):
    return torch.randn(n, width, generator=generator)


def pixels(width=WIDTH):
    return ModuleFeatures(nn.Flatten(), name="pixels/1", num_features=width, logits=lambda x: 5 * x)


def features_of(x, name="set"):
    return extract_features(tensor_source(x[:, None, None].clamp(-1, 1), name), pixels())


@settings(max_examples=8, deadline=None)
@given(st.integers(0, 10_000), st.integers(2, 6))
def test_the_kernel_distance_is_unbiased(seed, n):
    """For equal distributions it is zero in the mean whatever the size; the biased estimate would be k(x, x) / n."""
    generator = torch.Generator().manual_seed(seed)
    values = torch.tensor([mmd(normal(n, generator, 3), normal(n, generator, 3)) for _ in range(400)])
    error = values.std() / len(values) ** 0.5
    assert abs(values.mean()) < 4.5 * error
    biased = 2 * ((1.0**3 + 3 + 3 * (1 + 2 / 3)) / n)  # about E k(x, x) minus E k(x, y), twice over n
    assert biased > 4.5 * error or n > 4


def test_the_kernel_distance_by_hand():
    a, b = torch.tensor([[1.0], [2.0]]), torch.tensor([[0.0], [3.0]])
    # k(1, 2) = 3³ = 27, k(0, 3) = 1, cross: k(1,0) = 1, k(1,3) = 64, k(2,0) = 1, k(2,3) = 343
    assert mmd(a, b) == pytest.approx(27 + 1 - 2 * (1 + 64 + 1 + 343) / 4)


def test_the_kernel_distance_equals_torchmetrics(generator):
    from torchmetrics.image.kid import poly_mmd

    a, b = normal(40, generator).double(), normal(40, generator).double() + 0.2
    assert mmd(a, b) == pytest.approx(poly_mmd(a, b).item(), rel=1e-9)


def test_kernel_distance_and_score_equal_torch_fidelity_with_its_own_subsets(generator):
    pytest.importorskip("torch_fidelity", reason="compared with it: install the extra tcvq-eval[fidelity]")
    from torch_fidelity.metric_isc import isc_features_to_metric
    from torch_fidelity.metric_kid import kid_features_to_metric

    a, b = normal(70, generator).double(), normal(60, generator).double() + 0.2
    peer = kid_features_to_metric(a, b, kid_subsets=7, kid_subset_size=20, rng_seed=2020, verbose=False)
    ours = kernel_distance(a, b, subsets=7, size=20)
    assert ours.mean == pytest.approx(peer["kernel_inception_distance_mean"], rel=1e-9)
    assert ours.std == pytest.approx(peer["kernel_inception_distance_std"], rel=1e-9)
    peer = isc_features_to_metric(3 * a, splits=4, shuffle=True, rng_seed=2020)
    ours = inception_score(3 * a, splits=4)
    assert ours.mean == pytest.approx(peer["inception_score_mean"], rel=1e-12)
    assert ours.std == pytest.approx(peer["inception_score_std"], rel=1e-12)


def test_precision_and_recall_equal_torch_fidelity(generator):
    pytest.importorskip("torch_fidelity", reason="compared with it: install the extra tcvq-eval[fidelity]")
    from torch_fidelity.metric_prc import calculate_precision_recall_full

    from tcvq_eval import precision_recall

    a, b = normal(120, generator, 4), normal(100, generator, 4) + 0.7
    precision, recall = calculate_precision_recall_full(b.double(), a.double(), 3, 1000)  # generated first
    ours = precision_recall(a, b)
    assert (ours.precision, ours.recall) == (pytest.approx(float(precision)), pytest.approx(float(recall)))


def test_a_certain_and_even_classifier_scores_the_number_of_classes():
    logits = 100 * torch.eye(4).repeat(5, 1)
    assert inception_score(logits, splits=1).mean == pytest.approx(4.0)
    assert inception_score(torch.zeros(20, 4), splits=2).mean == pytest.approx(1.0)
    with pytest.raises(ValueError, match="3 images cannot make 10 splits"):
        inception_score(torch.zeros(3, 4))


def test_density_and_coverage_on_a_line_by_hand():
    real = torch.tensor([[0.0], [1.0], [3.0], [10.0]])  # radii at k = 1: 1, 1, 2, 7
    fake = torch.tensor([[2.5], [9.0], [50.0], [60.0]])  # in the balls of 3; of 10; of none
    result = density_coverage(real, fake, k=1)
    assert result.density == 2 / 4
    assert result.coverage == 2 / 4


def test_density_and_coverage_of_equal_distributions_have_their_expected_values(generator):
    result = density_coverage(normal(800, generator), normal(800, generator), k=5)
    assert result.density == pytest.approx(1.0, abs=0.1)
    assert result.coverage == pytest.approx(1 - 0.5**5, abs=0.03)  # Naeem et al. 2020, appendix B


def test_every_measure_stands_beside_real_against_real(generator):
    real, good, bad = (features_of(0.3 * normal(n, generator) + m) for n, m in ((300, 0), (150, 0), (150, 0.3)))
    near, far = (measure(real, fake, resamples=4) for fake in (good, bad))
    assert [m.name for m in near] == [
        f"{name}[pixels/1]" for name in ("fd", "kid", "is", "precision", "recall", "density", "coverage")
    ]
    for a, b in zip(near, far, strict=True):
        assert not a.skipped
        assert a.n_floor == 150
        assert a.fingerprint.n_real == 300
        assert a.spread >= 0
        if a.better == "lower":
            assert a.value < 3 * abs(a.noise_floor) + 4 * a.spread < b.value
        elif a.name != "is[pixels/1]":
            assert b.value < a.value


def test_the_spread_is_the_standard_error_of_a_mean(generator):
    x = torch.randn(2000, generator=generator)
    error = half_spread(lambda a, _: [x[a].mean().item()], 2000, 2, resamples=200)
    assert error[0] == pytest.approx(x.std().item() / 2000**0.5, rel=0.2)


def test_more_images_than_features_are_asked_for(generator):
    few = features_of(normal(WIDTH, generator))
    assert "cannot fill 12 features" in measure(few, few, ("fd",), resamples=0)[0].note


def test_extrapolation_removes_most_of_the_bias_of_few_images(generator):
    real, fake = (features_of(0.25 * normal(n, generator)) for n in (20_000, 500))
    biased = measure(real, fake, ("fd",), resamples=0)[0].value
    assert abs(fd_infinity(real, fake)) < biased / 3


def test_what_cannot_be_measured_is_skipped_with_its_reason(generator, tmp_path):
    np.savez(tmp_path / "published.npz", mu=np.zeros(WIDTH), sigma=np.eye(WIDTH))
    published, fake = load_features(tmp_path / "published.npz"), features_of(normal(50, generator))
    fd, kid = measure(published, fake, ("fd", "kid"))
    assert fd.value > 0
    assert fd.noise_floor is None
    assert math.isnan(kid.value)
    assert "mean and a covariance only" in kid.skipped
    with pytest.raises(ValueError, match="unknown metric 'fod'"):
        measure(fake, fake, ("fod",))


def test_sets_from_different_extractors_are_never_compared(generator, pictures):
    other = extract_features(tensor_source(pictures(20)), FashionFeatures())
    with pytest.raises(ValueError, match="different extractors"):
        measure(other, features_of(normal(20, generator)), ("fd",))


def test_the_fingerprint_changes_with_each_field():
    base = Fingerprint(metric="fid")
    digests = {base.digest()}
    for field in dataclasses.fields(Fingerprint):
        value = {"metric": "kid", "settings": {"k": 1}, "libraries": {"torch": "1"}, "sampler": {"seed": 1}}
        new = value.get(field.name, 7 if field.type in (int, "int") else "other")
        digests.add(dataclasses.replace(base, **{field.name: new}).digest())
    assert len(digests) == len(dataclasses.fields(Fingerprint)) + 1


def test_numbers_are_comparable_across_models_and_nothing_else():
    a = Fingerprint(metric="fid", n_fake=10, model_sha256="a", sampler={"seed": 0})
    b = dataclasses.replace(a, model_sha256="b", sampler={"seed": 1})
    assert fingerprint_differences(a, b) == ()
    assert fingerprint_differences(a, dataclasses.replace(a, n_fake=11, resize="tf1")) == ("n_fake", "resize")
    assert fingerprint_differences(a, dataclasses.asdict(b)) == ()


def test_measured_fingerprints_name_extractor_images_and_settings(generator):
    real, fake = features_of(normal(90, generator)), features_of(normal(40, generator))
    kid = measure(real, fake, ("kid",), origin={"model_sha256": "m"})[0].fingerprint
    assert (kid.extractor, kid.n_real, kid.n_fake, kid.model_sha256) == ("pixels/1", 90, 40, "m")
    assert kid.settings["size"] == 40
    assert len(kid.extractor_sha256) == len(kid.real_sha256) == 64


def test_a_network_of_your_own_stays_in_eval(pictures):
    net = nn.Sequential(nn.Flatten(), nn.Linear(784, 8), nn.BatchNorm1d(8), nn.Dropout(0.5))
    check_feature_extractor(ModuleFeatures(net, name="own/1", num_features=8), pictures(5))


def test_clips_are_features_too():
    clips = torch.rand(6, 3, 2, 4, 4)
    found = extract_features(tensor_source(clips), ModuleFeatures(nn.Flatten(), name="clips/1", num_features=96))
    assert found.features.shape == (6, 96)


def test_batches_and_storage_do_not_change_features(pictures, tmp_path):
    x, net = pictures(50), FashionFeatures()
    whole = extract_features(tensor_source(x), net, batch=50)
    parts = extract_features(tensor_source(x), net, batch=7, store=tmp_path / "vectors")
    torch.testing.assert_close(parts.features, whole.features)
    assert parts.sha256 == whole.sha256
    slim = extract_features(tensor_source(x), net, batch=7, keep=False)
    assert slim.features is None
    assert slim.gaussian.n == 50
    torch.testing.assert_close(slim.gaussian.scatter, parts.gaussian.scatter)


def test_the_cache_is_used_for_the_same_images_and_extractor_only(pictures, tmp_path):
    calls = []

    class Counting(nn.Flatten):
        def forward(self, x):
            calls.append(len(x))
            return super().forward(x)

    x, net = pictures(5), ModuleFeatures(Counting(), name="pixels/1", num_features=784)
    first = cached_features(tmp_path, tensor_source(x), net)
    again = cached_features(tmp_path, tensor_source(x), net)
    assert calls == [5]
    assert torch.equal(first.features, again.features)
    assert again.facts == first.facts
    cached_features(tmp_path, tensor_source(x.flip(0)), net)
    cached_features(tmp_path, tensor_source(x), ModuleFeatures(Counting(), name="pixels/2", num_features=784))
    assert calls == [5, 5, 5]
    for file in tmp_path.iterdir():
        file.write_bytes(b"damaged")
    assert torch.equal(cached_features(tmp_path, tensor_source(x), net).features, first.features)


def test_saved_features_come_back(generator, tmp_path):
    made = features_of(normal(20, generator), "held-out")
    save_features(tmp_path / "f.safetensors", made)
    back = load_features(tmp_path / "f.safetensors")
    assert (back.name, back.n, back.sha256, back.facts) == (made.name, made.n, made.sha256, made.facts)
    assert torch.equal(back.features, made.features)
    with pytest.raises(ValueError, match="does not exist"):
        load_features(tmp_path / "g.safetensors")


def test_a_folder_and_npz_files_of_the_same_pictures_are_the_same_source(tmp_path, generator):
    pixels_ = torch.randint(0, 256, (5, 6, 8, 3), generator=generator).byte().numpy()
    (tmp_path / "folder").mkdir()
    for i, image in enumerate(pixels_):
        Image.fromarray(image).save(tmp_path / "folder" / f"{i}.png")
    np.savez(tmp_path / "last.npz", pixels_)
    np.savez_compressed(tmp_path / "first.npz", images=pixels_.transpose(0, 3, 1, 2))
    hashes = set()
    for path in (tmp_path / "folder", tmp_path / "last.npz", tmp_path / "first.npz"):
        source = open_source(path)
        assert source.n == 5
        digests = [digest for _, digest in content_sha256(source.batches(2))]
        hashes.add(digests[-1]())
    assert len(hashes) == 1


@pytest.mark.parametrize("name", ["missing", "empty", "text.npz", "objects.npz", "mixed", "broken"])
def test_what_is_no_set_of_images_is_refused_in_one_line(name, tmp_path):
    for folder in ("empty", "mixed", "broken"):
        (tmp_path / folder).mkdir()
    (tmp_path / "text.npz").write_text("no")
    np.savez(tmp_path / "objects.npz", labels=np.zeros(3), other=np.zeros(3))
    for i, size in enumerate((4, 5)):
        Image.new("L", (size, size)).save(tmp_path / "mixed" / f"{i}.png")
    (tmp_path / "broken" / "a.png").write_bytes(b"no")
    with pytest.raises(ValueError, match=str(tmp_path)) as error:
        list(open_source(tmp_path / name).batches(8))
    assert "\n" not in str(error.value)


def test_the_frechet_distance_of_sets_is_that_of_their_vectors(generator):
    a, b = features_of(0.3 * normal(60, generator)), features_of(0.3 * normal(50, generator) + 0.1)
    value = measure(a, b, ("fd",), resamples=0)[0].value
    assert value == pytest.approx(frechet_distance(a.features, b.features), rel=1e-9)


def test_an_unknown_resize_is_refused():
    with pytest.raises(ValueError, match="tf1, halfpixel, antialias"):
        InceptionFeatures(resize="lanczos")
