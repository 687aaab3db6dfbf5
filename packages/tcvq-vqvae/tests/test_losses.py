"""The terms of the objective against numbers worked out by hand."""

import pytest
import torch

from tcvq_vqvae import (
    PatchDiscriminator,
    adaptive_weight,
    generator_loss,
    hinge_discriminator_loss,
    pixel_loss,
    vanilla_discriminator_loss,
)
from tcvq_vqvae.discriminator import pictures


def test_hinge_loss_counts_only_scores_inside_the_margin():
    real, fake = torch.tensor([2.0, 0.5, -1.0]), torch.tensor([-3.0, 0.0, 1.0])
    assert hinge_discriminator_loss(real, fake) == pytest.approx(0.5 * ((0 + 0.5 + 2) / 3 + (0 + 1 + 2) / 3))


def test_generator_loss_is_the_negated_mean_score():
    assert generator_loss(torch.tensor([1.0, 3.0])) == -2.0


def test_adaptive_weight_is_the_ratio_of_gradient_norms():
    w = torch.tensor([1.0, 1.0], requires_grad=True)
    weight = adaptive_weight((w * torch.tensor([3.0, 4.0])).sum(), (w * torch.tensor([0.0, 2.0])).sum(), w)
    assert weight.item() == pytest.approx(5.0 / (2.0 + 1e-4))
    assert not weight.requires_grad


def test_adaptive_weight_is_clamped_where_the_generator_gradient_vanishes():
    w = torch.ones(2, requires_grad=True)
    assert adaptive_weight(5 * w.sum(), (w * 0.0).sum(), w).item() == 1e4


@pytest.mark.parametrize("bad", [float("inf"), float("nan")])
def test_adaptive_weight_of_a_gradient_that_is_not_finite_is_not_a_number(bad):
    w = torch.ones(2, requires_grad=True)
    assert adaptive_weight(w.sum(), (w * bad).sum(), w).isnan()
    assert adaptive_weight((w * bad).sum(), w.sum(), w).isnan()


def test_error_inside_the_adaptive_weight_is_passed_on_unchanged(monkeypatch):
    error = RuntimeError("out of memory")

    def fail(*args, **kwargs):
        raise error

    monkeypatch.setattr(torch.autograd, "grad", fail)
    w = torch.ones(1, requires_grad=True)
    with pytest.raises(RuntimeError) as caught:
        adaptive_weight(w.sum(), w.sum(), w)
    assert caught.value is error


@pytest.mark.parametrize(("side", "patches"), [(28, 1), (32, 2), (64, 6)])
def test_three_layer_discriminator_scores_overlapping_patches(side, patches):
    discriminator = PatchDiscriminator(1, width=4)
    assert discriminator(torch.randn(2, 1, side, side)).shape == (2, 1, patches, patches)


def test_discriminator_starts_with_the_weights_of_dcgan():
    discriminator = PatchDiscriminator(3)
    convolution, norm = discriminator.layers[5], discriminator.layers[3]
    assert convolution.weight.std().item() == pytest.approx(0.02, rel=0.05)
    assert convolution.bias is None
    assert norm.weight.mean().item() == pytest.approx(1.0, abs=0.02)
    assert norm.bias.abs().max() == 0


def test_pixel_losses_are_means_over_all_elements():
    x_hat, x = torch.tensor([[1.0, 3.0]]), torch.tensor([[0.0, 1.0]])
    assert pixel_loss(x_hat, x) == 1.5
    assert pixel_loss(x_hat, x, "l2") == 2.5


def test_vanilla_loss_is_the_cross_entropy_of_real_and_reconstructed():
    real, fake = torch.tensor([2.0, -1.0]), torch.tensor([0.5, -3.0])
    probability = torch.sigmoid
    expected = -0.5 * (probability(real).log().mean() + (1 - probability(fake)).log().mean())
    assert vanilla_discriminator_loss(real, fake) == pytest.approx(expected.item())


@pytest.mark.parametrize("scale", [1024.0, 1.0])
def test_scaled_adaptive_weight_is_the_same(scale):
    w = torch.tensor([1.0, 1.0], requires_grad=True)
    weight = adaptive_weight((w * 3.0).sum(), (w * torch.tensor([0.0, 2.0])).sum(), w, scale)
    assert weight.item() == pytest.approx(18**0.5 / (2.0 + 1e-4))


@pytest.mark.parametrize(
    ("norm", "kind", "bias"), [("group", torch.nn.GroupNorm, False), ("none", torch.nn.Identity, True)]
)
def test_discriminator_normalises_as_it_is_told(norm, kind, bias):
    layers = PatchDiscriminator(1, width=4, n_layers=1, norm=norm).layers
    assert isinstance(layers[3], kind)
    assert (layers[2].bias is not None) == bias


def test_clips_put_the_frames_of_a_recording_into_channels():
    x = torch.arange(2 * 3 * 2).float().view(2, 3, 2, 1, 1)  # T = 2, B = 3
    assert torch.equal(pictures(x, clips=True)[1].flatten(), torch.cat([x[0, 1], x[1, 1]]).flatten())
    assert torch.equal(pictures(x, clips=False)[4], x[1, 1])
    assert pictures(x[0], clips=True).shape == (3, 2, 1, 1)
