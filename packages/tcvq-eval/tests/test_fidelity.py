"""Frechet distance, precision and recall against closed forms and independent implementations."""

import numpy as np
import pytest
import scipy.linalg
import torch
from torchmetrics.image.fid import _compute_fid

from tcvq_eval import frechet_distance, nearest, noise_floor, precision_recall
from tcvq_eval.fidelity import check_features


def normal(n, width, generator):
    return torch.randn(n, width, generator=generator, dtype=torch.float64)


def standardised(n, width, generator):
    """Return vectors with mean exactly 0 and covariance exactly 1."""
    x = normal(n, width, generator)
    x = x - x.mean(0)
    return x @ torch.linalg.inv(torch.linalg.cholesky(x.T.cov().T)).T


def test_the_distance_of_a_set_to_itself_is_zero(generator):
    x = normal(200, 16, generator)
    assert frechet_distance(x, x) == pytest.approx(0.0, abs=1e-12)


def test_moved_and_scaled_gaussians_have_the_closed_form(generator):
    x = standardised(300, 8, generator)
    scale = torch.linspace(0.5, 4, 8, dtype=torch.float64)
    move = torch.arange(8, dtype=torch.float64)
    expected = move.square().sum() + (scale - 1).square().sum()  # |mu|² + sum (sigma - 1)²
    assert frechet_distance(x, x * scale + move) == pytest.approx(expected.item(), rel=1e-12)


def test_covariances_that_do_not_commute_have_the_closed_form(generator):
    x = standardised(300, 2, generator)
    a, b = torch.tensor([[2.0, 1.0], [1.0, 3.0]]).double(), torch.tensor([[4.0, -1.0], [-1.0, 1.0]]).double()
    xa, xb = x @ torch.linalg.cholesky(a).T, x @ torch.linalg.cholesky(b).T
    product = a @ b
    root_trace = (product.trace() + 2 * product.det().sqrt()).sqrt()  # tr of the root of a 2x2 matrix
    expected = a.trace() + b.trace() - 2 * root_trace
    assert frechet_distance(xa, xb) == pytest.approx(expected.item(), rel=1e-12)


def test_the_value_equals_scipy_and_torchmetrics_on_random_features(generator):
    a = normal(500, 24, generator) @ normal(24, 24, generator)
    b = normal(400, 24, generator) @ normal(24, 24, generator) + 1
    mean_a, mean_b, cov_a, cov_b = a.mean(0), b.mean(0), a.T.cov(), b.T.cov()
    root = scipy.linalg.sqrtm((cov_a @ cov_b).numpy())
    by_scipy = (mean_a - mean_b).square().sum() + (cov_a + cov_b).trace() - 2 * np.trace(root).real
    by_torchmetrics = _compute_fid(mean_a, cov_a, mean_b, cov_b)
    assert frechet_distance(a, b) == pytest.approx(by_scipy.item(), rel=1e-9)
    assert frechet_distance(a, b) == pytest.approx(by_torchmetrics.item(), rel=1e-9)


def test_the_distance_is_symmetric(generator):
    a, b = normal(50, 8, generator), 2 * normal(70, 8, generator) + 1
    assert frechet_distance(a, b) == pytest.approx(frechet_distance(b, a), rel=1e-12)


def test_fewer_vectors_than_features_stay_exact(generator):
    a = normal(10, 64, generator)
    assert frechet_distance(a, a + 1) == pytest.approx(64.0, rel=1e-12)
    assert frechet_distance(a, a.flip(0)) == pytest.approx(0.0, abs=1e-11)


def test_dead_features_do_no_harm(generator):
    a = normal(100, 6, generator)
    a[:, 3:] = 0
    assert frechet_distance(a, 2 * a) == pytest.approx((a.var(0).sum() + a.mean(0).square().sum()).item(), rel=1e-12)


def test_the_noise_floor_falls_with_more_vectors(generator):
    x = normal(4000, 16, generator)
    assert noise_floor(x, 100) > 3 * noise_floor(x, 1000) > 0


def test_the_noise_floor_needs_two_disjoint_sets(generator):
    with pytest.raises(ValueError, match="two disjoint sets of 6 need 12 vectors; got 11"):
        noise_floor(normal(11, 4, generator), 6)


@pytest.mark.parametrize(("shape", "message"), [((9, 5), "5 and 4 features"), ((1, 4), "1 and 9 vectors")])
def test_sets_that_do_not_fit_are_refused(shape, message, generator):
    with pytest.raises(ValueError, match=message):
        check_features(normal(*shape, generator), normal(9, 4, generator), least=2)


def test_features_that_are_not_finite_are_refused(generator):
    x = normal(9, 4, generator)
    with pytest.raises(ValueError, match="not finite"):
        frechet_distance(x, x / 0)


def test_identical_sets_have_precision_and_recall_one(generator):
    x = normal(60, 8, generator)
    result = precision_recall(x, x.clone())
    assert (result.precision, result.recall, result.k) == (1.0, 1.0, 3)


def test_far_sets_have_precision_and_recall_zero(generator):
    x = normal(60, 8, generator)
    result = precision_recall(x, x + 100)
    assert (result.precision, result.recall) == (0.0, 0.0)


def test_precision_and_recall_on_a_line_by_hand():
    real = torch.tensor([[0.0], [1.0], [3.0], [10.0]])  # distances to the nearest other: 1, 1, 2, 7
    fake = torch.tensor([[2.0], [2.5], [20.0], [30.0]])  # 0.5, 0.5, 10, 10
    result = precision_recall(real, fake, k=1)
    assert result.precision == 0.5  # 2 and 2.5 lie within 2 of 3; 20 and 30 lie outside [3, 17]
    assert result.recall == 0.5  # 3 lies within 0.5 of 2.5, 10 within 10 of 20; 0 and 1 in no ball


def test_generated_images_of_one_mode_have_precision_without_recall(generator):
    modes = torch.cat([normal(50, 4, generator), normal(50, 4, generator) + 50])
    result = precision_recall(modes, normal(100, 4, generator) * 0.1)
    assert result.precision == 1.0
    assert result.recall < 0.5


def test_chunks_do_not_change_precision_and_recall(generator, monkeypatch):
    a, b = normal(90, 4, generator), normal(80, 4, generator) + 0.5
    whole = precision_recall(a, b)
    monkeypatch.setattr("tcvq_eval.fidelity.CHUNK", 7)
    assert precision_recall(a, b) == whole


def test_a_set_of_k_vectors_is_too_small(generator):
    with pytest.raises(ValueError, match="each needs at least 4"):
        precision_recall(normal(3, 4, generator), normal(3, 4, generator), k=3)


def test_nearest_finds_exact_copies_at_distance_zero(generator):
    reference = torch.randn(3000, 1, 4, 4, generator=generator)
    order = torch.randperm(3000, generator=generator)[:1500]
    distances, indices = nearest(reference[order], reference)
    assert torch.equal(indices, order)
    assert distances.max() == 0


def test_a_set_searched_in_batches_gives_the_nearest_of_all(generator):
    from tcvq_eval import nearest_in_batches

    queries, items = normal(20, 5, generator), normal(100, 5, generator)
    distances, rows = nearest(queries, items)
    found, twins, searched = nearest_in_batches(queries, items.split(17))
    assert torch.equal(found, distances)
    assert torch.equal(twins, items[rows])
    assert searched == 100
    with pytest.raises(ValueError, match="a set to search"):
        nearest_in_batches(queries, [])


def test_features_computed_in_batches_give_the_same_fidelity(pictures):
    from tcvq_eval import FashionFeatures, as_saved, evaluate_fidelity, fidelity_of_features

    net, fake, real = FashionFeatures(), pictures(20), pictures(50)
    whole = evaluate_fidelity(fake, real, net)
    parts = fidelity_of_features(net(as_saved(fake)), net(as_saved(real)), net)
    assert parts.fd == pytest.approx(whole.fd, rel=1e-4)
    assert (parts.precision, parts.recall, parts.n) == (whole.precision, whole.recall, whole.n)
