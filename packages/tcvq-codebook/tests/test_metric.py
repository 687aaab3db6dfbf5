"""What near means: padding masks, step weights and cosine similarity."""

import pytest
import torch
import torch.nn.functional as F

from tcvq_codebook import TemporalCodebook, VanillaCodebook
from tcvq_codebook.testing import check_quantizer


@pytest.fixture
def mask(z):
    """Per sample: lengths 4, 2, 3, 4, 1 and 0 of 4 steps."""
    return torch.arange(4)[:, None] < torch.tensor([4, 2, 3, 4, 1, 0])


def full(mask, z):
    return mask[:, :, None, None].expand(*mask.shape, *z.shape[3:])


def rows(z):
    return z.permute(1, 3, 4, 0, 2).flatten(3).flatten(0, 2)


@pytest.mark.parametrize("update", ["gradient", "ema"])
@pytest.mark.parametrize("estimator", ["straight_through", "rotation"])
def test_masked_steps_may_hold_anything_and_change_nothing(z, mask, update, estimator):
    def run(padding):
        torch.manual_seed(1)
        codebook = TemporalCodebook(17, 8, 4, update=update, estimator=estimator)
        for _ in range(3):
            latents = z.where(full(mask, z).unsqueeze(2), padding).requires_grad_()
            out = codebook(latents, mask)
            (out.loss + out.z_q.square().sum()).backward()
        return out, latents.grad, codebook

    (plain, grad, codebook), (odd, odd_grad, other) = run(0.0), run(torch.nan)
    assert torch.equal(plain.indices, odd.indices)
    assert torch.equal(plain.z_q, odd.z_q)
    assert torch.equal(plain.loss, odd.loss)
    assert torch.equal(grad, odd_grad)
    assert grad[~full(mask, z).unsqueeze(2).expand_as(z)].count_nonzero() == 0
    assert all(
        torch.equal(a, b) for a, b in zip(codebook.state_dict().values(), other.state_dict().values(), strict=True)
    )


def test_a_mask_per_sample_is_a_mask_of_all_its_sites(codebook, z, mask):
    first, second = codebook.eval()(z, mask), codebook(z, full(mask, z))
    assert torch.equal(first.indices, second.indices)
    assert torch.equal(first.loss, second.loss)
    assert torch.equal(codebook.encode(z, mask), first.indices)


def test_a_mask_without_gaps_is_no_mask(codebook, z):
    plain, masked = codebook.eval()(z), codebook(z, torch.ones(4, 6, dtype=torch.bool))
    assert torch.equal(plain.indices, masked.indices)
    assert torch.equal(plain.z_q, masked.z_q)
    torch.testing.assert_close(plain.loss, masked.loss)


def test_the_masked_loss_is_the_mean_over_valid_elements(codebook, z, mask):
    out = codebook.eval()(z, mask)
    valid = full(mask, z).unsqueeze(2).expand_as(z)
    expected = (z - codebook.lookup(out.indices))[valid].square().mean()
    torch.testing.assert_close(out.codebook_loss, expected)
    torch.testing.assert_close(out.commitment_loss, expected)


def test_a_prefix_finds_the_entry_it_is_a_prefix_of(codebook):
    z = codebook.codebook.detach().movedim(0, 1)[..., None, None].clone()  # every entry once
    z[2:] = 99
    valid = torch.arange(4)[:, None] < torch.full((17,), 2)
    assert codebook.encode(z, valid).flatten().tolist() == list(range(17))


def test_sites_without_a_valid_step_are_not_counted(codebook, z, mask):
    codebook.counts.zero_()
    codebook(z, mask)
    assert codebook.counts.sum() == 75  # five of six samples with 15 sites each


def test_only_complete_sites_become_codes(z, mask):
    codebook = TemporalCodebook(17, 8, 4, init="data")
    codebook(z, mask)
    complete = rows(z[:, [0, 3]])
    assert (codebook.codebook.flatten(1)[:, None] == complete).all(2).any(1).all()


def test_a_masked_step_leaves_the_average_of_that_step_where_it_is():
    codebook = TemporalCodebook(1, 1, 2, update="ema", decay=0.5, eps=1e-12)
    codebook.assign(torch.tensor([[[1.0], [2.0]]]))
    codebook(torch.tensor([3.0, 777.0]).view(2, 1, 1, 1, 1), torch.tensor([[True], [False]]))
    torch.testing.assert_close(codebook.codebook.flatten(), torch.tensor([2.0, 2.0]))


def test_a_mask_of_other_sizes_is_an_error_that_names_both(codebook, z):
    with pytest.raises(ValueError, match=r"mask has shape \(4, 6, 2, 5\).*\(4, 6\) or \(4, 6, 3, 5\)"):
        codebook(z, torch.ones(4, 6, 2, 5, dtype=torch.bool))


def test_weights_of_zero_and_one_are_a_mask_in_the_search_but_not_in_the_loss(codebook, z):
    weighted = TemporalCodebook(17, 8, 4, step_weights=(0.0, 1.0, 0.0, 1.0))
    weighted.load_state_dict(codebook.state_dict())
    masked = codebook.encode(z, torch.tensor([False, True, False, True])[:, None].expand(4, 6))
    out = weighted.eval()(z)
    assert torch.equal(out.indices, masked)
    torch.testing.assert_close(out.codebook_loss, (z - weighted.lookup(masked)).square().mean())


def test_cosine_ignores_the_length_of_latents_and_entries(z):
    codebook = TemporalCodebook(17, 8, 4, similarity="cosine")
    codebook(z)
    expected = F.cosine_similarity(rows(z)[:, None], codebook.codebook.flatten(1), dim=2).argmax(1)
    out = codebook.eval()(z)
    assert torch.equal(out.indices.flatten(), expected)
    torch.testing.assert_close(rows(out.z_q).norm(dim=1), torch.ones(90))
    assert torch.equal(codebook.encode(8 * z), out.indices)
    torch.testing.assert_close(out.commitment_loss, (rows(out.z_q) - F.normalize(rows(z))).square().mean())
    check_quantizer(codebook, z, identity_gradient=False)


def test_cosine_per_step_gives_every_step_unit_length(z):
    codebook = TemporalCodebook(17, 8, 4, similarity="cosine", norm="step")
    codebook(z)
    out = codebook.eval()(z)
    torch.testing.assert_close(out.z_q.norm(dim=2), torch.ones(4, 6, 3, 5))
    loudness = torch.tensor([1.0, 10.0, 0.1, 3.0]).view(4, 1, 1, 1, 1)
    assert torch.equal(codebook.encode(loudness * z), out.indices)
    check_quantizer(codebook, z, identity_gradient=False, nearest_entry=False)


@pytest.mark.parametrize("update", ["gradient", "ema"])
def test_latents_of_length_zero_have_finite_gradients_under_cosine(z, update):
    codebook = TemporalCodebook(17, 8, 4, similarity="cosine", update=update)
    codebook(z)
    leaf = torch.zeros_like(z).requires_grad_()
    out = codebook(leaf)
    (out.loss + out.z_q.sum()).backward()
    assert leaf.grad.isfinite().all()
    assert codebook.codebook.isfinite().all()


def test_a_mask_needs_steps_of_unit_length_under_cosine(z, mask):
    TemporalCodebook(17, 8, 4, similarity="cosine", norm="step")(z, mask)
    with pytest.raises(ValueError, match="norm='step'"):
        TemporalCodebook(17, 8, 4, similarity="cosine")(z, mask)


def test_a_vanilla_codebook_takes_a_mask_and_all_options(z, mask):
    codebook = VanillaCodebook(17, 8, similarity="cosine", update="ema", estimator="rotation")
    out = codebook(z, mask)
    assert torch.equal(codebook.eval().encode(z, mask)[~full(mask, z)], torch.zeros(150, dtype=torch.int64))
    assert codebook.step.counts.sum() == full(mask, z).sum()
    assert out.indices.shape == (4, 6, 3, 5)
