"""The rotation trick: the entry forward, a rotated and scaled gradient backward, and no surprise at its edges."""

import pytest
import torch

from tcvq_codebook import TemporalCodebook
from tcvq_codebook.straight_through import estimate, rotate
from tcvq_codebook.testing import check_quantizer


def gradient(z, e, weight):
    leaf = z.clone().requires_grad_()
    return torch.autograd.grad((rotate(leaf, e) * weight).sum(), leaf)[0]


def test_the_rotation_carries_the_latent_to_the_entry():
    z, e = torch.randn(50, 12, dtype=torch.float64), torch.randn(50, 12, dtype=torch.float64)
    torch.testing.assert_close(rotate(z, e), e)


def test_the_gradient_is_scaled_by_the_ratio_of_the_lengths_and_keeps_its_angle():
    z, e, weight = torch.randn(3, 50, 12, dtype=torch.float64)
    grad = gradient(z, e, weight)
    torch.testing.assert_close(grad.norm(dim=1), weight.norm(dim=1) * e.norm(dim=1) / z.norm(dim=1))
    torch.testing.assert_close(torch.cosine_similarity(grad, z), torch.cosine_similarity(weight, e))


def test_a_quarter_turn_turns_the_gradient_back_by_a_quarter():
    z, e = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 2.0]])
    torch.testing.assert_close(gradient(z, e, torch.tensor([[0.0, 1.0]])), torch.tensor([[2.0, 0.0]]))
    torch.testing.assert_close(gradient(z, e, torch.tensor([[-1.0, 0.0]])), torch.tensor([[0.0, 2.0]]))


@pytest.mark.parametrize(
    ("z", "e"),
    [([0.0, 0.0], [1.0, 2.0]), ([1.0, 2.0], [0.0, 0.0]), ([1.0, 2.0], [-2.0, -4.0]), ([0.0, 0.0], [0.0, 0.0])],
)
def test_without_a_rotation_the_gradient_is_copied(z, e):
    z, e, weight = torch.tensor([z]), torch.tensor([e]), torch.tensor([[3.0, -1.0]])
    assert torch.equal(gradient(z, e, weight), weight)
    assert torch.equal(estimate(z, e, "rotation"), e)


def test_the_estimate_is_the_entry_bit_for_bit():
    z, e = torch.randn(500, 12), torch.randn(500, 12)
    assert not torch.equal(rotate(z, e), e)  # it rounds
    assert torch.equal(estimate(z, e, "rotation"), e)


def test_a_codebook_with_rotation_keeps_all_promises_but_the_identity_of_the_gradient(z):
    codebook = TemporalCodebook(17, 8, 4, estimator="rotation")
    codebook(z)
    check_quantizer(codebook, z, identity_gradient=False)
    with pytest.raises(AssertionError, match="identity"):
        check_quantizer(codebook, z)


def test_autocast_changes_neither_the_value_nor_the_gradient_of_the_rotation():
    z, e, weight = torch.randn(3, 20, 12)
    expected = gradient(z, e, weight)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(gradient(z, e, weight), expected)
