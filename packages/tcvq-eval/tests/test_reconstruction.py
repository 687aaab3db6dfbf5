"""Reconstruction metrics against values that can be computed on paper."""

import math

import pytest
import torch
from torchmetrics.functional.image import structural_similarity_index_measure

from tcvq_eval import evaluate_reconstruction, psnr, ssim


def test_an_error_of_one_tenth_everywhere_has_known_values():
    x = torch.zeros(3, 1, 28, 28)
    result = evaluate_reconstruction(x, x + 0.1)
    assert result.n == 3
    assert result.l1 == pytest.approx(0.1)
    assert result.mse == pytest.approx(0.01)
    assert result.psnr == pytest.approx(10 * math.log10(4 / 0.01), rel=1e-5)  # 26.02 dB: the peak is 2
    assert result.psnr_std == pytest.approx(0.0, abs=1e-5)


def test_psnr_is_averaged_over_images_not_taken_of_the_mean_error():
    x = torch.zeros(2, 1, 28, 28)
    x_hat = torch.stack([torch.full((1, 28, 28), 0.2), torch.full((1, 28, 28), 0.02)])
    each = [20 * math.log10(2 / 0.2), 20 * math.log10(2 / 0.02)]  # 20 and 40 dB
    result = evaluate_reconstruction(x, x_hat)
    assert psnr(x, x_hat).tolist() == pytest.approx(each, rel=1e-5)
    assert result.psnr == pytest.approx(30.0, rel=1e-5)
    assert result.psnr_std == pytest.approx(10.0, rel=1e-5)


def test_identical_images_have_no_error_infinite_psnr_and_ssim_one(pictures):
    x = pictures(4)
    result = evaluate_reconstruction(x, x.clone())
    assert result.mse == 0
    assert math.isinf(result.psnr)
    assert result.ssim == pytest.approx(1.0)


def test_ssim_of_flat_images_is_the_luminance_term_on_a_scale_from_black_zero():
    a, b, c1 = 0.25, 0.75, 0.01**2
    expected = (2 * a * b + c1) / (a * a + b * b + c1)
    x = torch.full((1, 1, 28, 28), 2 * a - 1, dtype=torch.float64)
    assert ssim(x, torch.full_like(x, 2 * b - 1)).item() == pytest.approx(expected, rel=1e-6)


def test_batches_give_the_mean_over_all_images(pictures):
    x = pictures(600)
    x_hat = (x + 0.3 * torch.randn(x.shape, generator=torch.Generator().manual_seed(1))).clamp(-1, 1)
    whole = structural_similarity_index_measure((x_hat + 1) / 2, (x + 1) / 2, data_range=1.0)
    result = evaluate_reconstruction(x, x_hat)
    assert result.ssim == pytest.approx(whole.item(), rel=1e-6)
    assert result.mse == pytest.approx((x - x_hat).square().mean().item(), rel=1e-5)


def test_outputs_outside_the_range_count_as_clamped(pictures):
    x = torch.ones(2, 1, 28, 28)
    assert evaluate_reconstruction(x, x + 5).mse == 0


def test_unequal_numbers_of_images_are_refused(pictures):
    with pytest.raises(ValueError, match=r"originals \(3, 1, 28, 28\) and reconstructions \(2, 1, 28, 28\)"):
        evaluate_reconstruction(pictures(3), pictures(2))


def test_batches_add_up_and_a_perceptual_distance_is_averaged_where_there_is_one(pictures):
    from tcvq_eval import ReconstructionMeter

    x = pictures(10)
    x_hat = x * 0.8
    meter = ReconstructionMeter(lambda a, b: (a - b).abs().amax(dim=(1, 2, 3)))
    for a, b in zip(x.split(3), x_hat.split(3), strict=True):
        meter.update(a, b)
    whole, parts = evaluate_reconstruction(x, x_hat), meter.result()
    assert (parts.n, whole.lpips) == (10, None)
    assert parts.mse == pytest.approx(whole.mse)
    assert parts.psnr_std == pytest.approx(whole.psnr_std)
    assert parts.ssim == pytest.approx(whole.ssim, rel=1e-6)
    assert parts.lpips == pytest.approx(0.2, rel=0.02)
    with pytest.raises(ValueError, match="no reconstruction was compared"):
        ReconstructionMeter().result()
