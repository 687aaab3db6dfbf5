"""The regularisers: values by hand, bounds, and independence of chunking."""

import math

import pytest
import torch

from tcvq_codebook.losses import entropy_loss, orthogonality_loss


def test_orthogonal_entries_of_any_length_cost_nothing_and_parallel_ones_the_share_of_pairs():
    basis = torch.eye(6).view(6, 2, 3)
    assert orthogonality_loss(7 * basis).item() == 0
    assert orthogonality_loss(torch.ones(4, 2, 3)).item() == pytest.approx(12 / 16)


def test_sure_and_even_assignments_have_the_lowest_entropy_loss():
    codebook = 100 * torch.eye(4).view(4, 2, 2)
    sites = codebook.repeat(3, 1, 1).movedim(0, 1)[..., None, None]  # every entry three times
    assert entropy_loss(sites, codebook).item() == pytest.approx(-math.log(4))
    assert entropy_loss(sites[:, ::4], codebook).item() == pytest.approx(0, abs=1e-6)  # sure, but all of one code
    assert entropy_loss(torch.zeros_like(sites), codebook).item() == pytest.approx(0, abs=1e-6)  # even, but not sure


def test_chunks_change_neither_the_entropy_loss_nor_its_gradient(z):
    codebook = torch.randn(17, 4, 8, requires_grad=True)

    def run(max_bytes):
        leaf = z.double().requires_grad_()
        value = entropy_loss(leaf, codebook.double(), temperature=0.3, max_bytes=max_bytes)
        return value, *torch.autograd.grad(value, (leaf, codebook))

    for whole, chunked in zip(run(2**26), run(3000), strict=True):
        torch.testing.assert_close(whole, chunked)


def test_no_latents_have_no_entropy_loss(z):
    assert entropy_loss(z[:, :0], torch.randn(17, 4, 8)).item() == 0
