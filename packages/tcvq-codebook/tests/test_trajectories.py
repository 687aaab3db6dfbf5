"""The time-cell view, checked on bumps whose peaks, widths and planes are known."""

import math

import numpy as np
import pytest
import torch

from tcvq_codebook.trajectories import (
    entry_activity,
    normalise,
    permute_within_units,
    principal_paths,
    raster,
    slice_similarity,
    tuning,
    unit_activity,
)
from tcvq_codebook.usage import usage_weights


def bumps(peaks, n_steps, sigma=1.5, height=3.0, base=-1.0):
    """Gaussian activity (U, T) around each peak."""
    steps = torch.arange(n_steps, dtype=torch.float64)
    peaks = torch.tensor(peaks, dtype=torch.float64)
    return base + height * torch.exp(-((steps - peaks[:, None]) ** 2) / (2 * sigma**2))


@pytest.mark.parametrize(
    ("activity", "peak", "width"),
    [
        ([0, 1, 0], 1, 1.0),  # ½ is crossed halfway to both neighbours
        ([1, 0, 0], 0, 1.0),  # the first step begins at −½
        ([0, 0, 1], 2, 1.0),
        ([0, 1], 1, 1.0),
        ([2, 4, 2, 0], 1, 2.0 + 0.5),  # normalised .5 1 .5 0: above from −½ to 2
        ([0, 4, 3, 1, 4], 1, 2.5 - 0.5),  # only the run around the earliest peak counts
        ([-3, -3, -1, -1], 2, 3.5 - 1.5),
        ([5, 5, 5], 0, 3.0),  # constant
        ([7], 0, 1.0),
    ],
)
def test_peak_and_width_by_hand(activity, peak, width):
    found = tuning(torch.tensor([activity], dtype=torch.float64))
    assert found.peak.tolist() == [peak]
    assert found.width.tolist() == [width]


def test_width_of_a_gaussian_bump_is_its_full_width_at_half_maximum():
    found = tuning(bumps([30, 50], 80, sigma=6.0))
    assert found.peak.tolist() == [30, 50]
    torch.testing.assert_close(
        found.width, torch.full((2,), 2 * math.sqrt(2 * math.log(2)) * 6.0).double(), rtol=1e-3, atol=0
    )
    torch.testing.assert_close(found.centre, torch.tensor([30.0, 50.0]).double(), rtol=1e-3, atol=0)
    torch.testing.assert_close(found.depth, torch.full((2,), 3.0).double(), rtol=1e-3, atol=0)


def test_width_agrees_with_numpy_interpolation_on_random_units():
    activity = torch.randn(50, 7, dtype=torch.float64)
    found = tuning(activity)
    fine = np.linspace(-0.5, 6.5, 70001)
    for unit, peak, width in zip(normalise(activity).numpy(), found.peak, found.width, strict=True):
        above = np.interp(fine, np.arange(7), unit) >= 0.5
        left = fine[~above & (fine < peak.item())].max(initial=-0.5)
        right = fine[~above & (fine > peak.item())].min(initial=6.5)
        assert width.item() == pytest.approx(right - left, abs=3e-4)


def test_normalised_units_span_0_to_1_and_constant_ones_are_0():
    a = normalise(torch.tensor([[1.0, 3.0, 2.0], [4.0, 4.0, 4.0]]))
    assert a.tolist() == [[0, 1, 0.5], [0, 0, 0]]


def test_the_raster_orders_time_cells_by_their_peaks():
    peaks = torch.randperm(12)
    activity = bumps(peaks.tolist(), 12)
    found = raster(activity)
    assert peaks[found.order].tolist() == list(range(12))
    assert found.matrix.argmax(1).tolist() == list(range(12))
    assert torch.equal(found.matrix, normalise(activity)[found.order])
    assert found.peak_counts.tolist() == [1] * 12


def test_units_of_one_peak_are_ordered_by_their_centre():
    activity = torch.tensor([[0, 1, 0.9], [0.9, 1, 0], [0, 1, 0.2], [1, 0, 0]])
    assert raster(activity).order.tolist() == [3, 1, 2, 0]


def test_a_raster_sorted_by_other_data_shows_the_given_data():
    shown, other = bumps([0, 1, 2], 3), bumps([2, 0, 1], 3)
    found = raster(shown, sort_by=other)
    assert found.order.tolist() == [1, 2, 0]
    assert found.matrix.argmax(1).tolist() == [1, 2, 0]


def test_permuting_within_units_keeps_each_units_values_and_destroys_the_common_order():
    activity = bumps([3.0] * 400, 8)
    null = permute_within_units(activity, seed=1)
    assert torch.equal(null.sort(1).values, activity.sort(1).values)
    assert torch.equal(null, permute_within_units(activity, seed=1))
    counts = raster(null).peak_counts
    assert counts.sum() == 400
    assert counts.min() > 20  # 50 expected at each of the 8 steps


def test_units_are_the_coordinates_of_the_entries_and_entries_have_the_norm():
    codebook = torch.randn(3, 4, 2)
    assert torch.equal(unit_activity(codebook)[1 * 2 + 1], codebook[1, :, 1])
    torch.testing.assert_close(entry_activity(codebook)[2, 3], codebook[2, 3].square().sum().sqrt())


def plane(n_embed=5, n_steps=6, width=7):
    """Entries in a plane of R^7 with standard deviations in the ratio 3 : 1, and that plane."""
    basis = torch.linalg.qr(torch.randn(width, 2, dtype=torch.float64)).Q
    return torch.randn(n_embed, n_steps, 2).double() @ torch.diag(torch.tensor([3.0, 1.0]).double()) @ basis.T + 2.0


def test_two_components_hold_a_plane_and_explain_all_of_its_variance():
    codebook = plane()
    found = principal_paths(codebook)
    torch.testing.assert_close(found.paths @ found.components + found.mean, codebook)
    assert found.explained.sum().item() == pytest.approx(1.0)
    assert (found.components.gather(1, found.components.abs().argmax(1, keepdim=True)) > 0).all()


def test_components_and_explained_variance_are_those_of_numpys_covariance():
    codebook = torch.randn(6, 4, 5, dtype=torch.float64) * torch.arange(1, 6)
    counts = torch.tensor([3, 0, 1, 1, 2, 5])
    points = np.repeat(codebook.numpy(), counts.numpy(), axis=0).reshape(-1, 5)
    values, vectors = np.linalg.eigh(np.cov(points.T, bias=True))
    found = principal_paths(codebook, 3, counts=counts)
    np.testing.assert_allclose(found.explained.numpy(), values[::-1][:3] / values.sum(), rtol=1e-9)
    np.testing.assert_allclose(np.abs(found.components.numpy() @ vectors[:, ::-1][:, :3]), np.eye(3), atol=1e-9)
    np.testing.assert_allclose(found.mean.numpy(), points.mean(0), rtol=1e-9)


def test_signs_of_components_do_not_depend_on_the_order_of_entries():
    codebook = plane()
    torch.testing.assert_close(principal_paths(codebook.flip(0)).paths.flip(0), principal_paths(codebook).paths)


def test_standing_points_have_no_explained_variance():
    assert principal_paths(torch.zeros(3, 2, 4)).explained.tolist() == [0, 0]


@pytest.mark.parametrize("n_components", [0, 8])
def test_at_most_as_many_components_as_there_are_dimensions_are_allowed(n_components):
    assert principal_paths(plane(), 7).components.shape == (7, 7)
    with pytest.raises(ValueError, match=r"principal components of 30 points of width 7; ask for 1 to 7"):
        principal_paths(plane(), n_components)


def test_similarity_of_slices_is_the_cosine_weighted_by_use():
    codebook = torch.randn(4, 3, 5, dtype=torch.float64)
    codebook[:, 2] = -2 * codebook[:, 0]
    counts = torch.tensor([1, 2, 0, 4])
    repeated = codebook.numpy().repeat(counts.numpy(), 0)
    a, b = repeated[:, 0].ravel(), repeated[:, 1].ravel()
    found = slice_similarity(codebook, counts=counts)
    expected = a @ b / np.linalg.norm(a) / np.linalg.norm(b)
    torch.testing.assert_close(found, torch.tensor([[1, expected, -1], [expected, 1, -expected], [-1, -expected, 1]]))


def test_a_slice_of_zeros_is_similar_to_nothing():
    assert slice_similarity(torch.tensor([[[0.0], [2.0]]])).tolist() == [[0, 0], [0, 1]]


def test_counts_of_another_codebook_are_refused():
    with pytest.raises(ValueError, match=r"got 3 counts for 5 codes"):
        usage_weights(5, torch.ones(3))
