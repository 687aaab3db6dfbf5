"""The temporal codebook: what it returns, where its gradients go, and what it refuses."""

from dataclasses import fields

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tcvq_codebook import Quantizer, TemporalCodebook, straight_through
from tcvq_codebook.config import CodebookConfig
from tcvq_codebook.testing import check_quantizer


def closed_form_gradients(codebook, z, weight_code, weight_commit):
    """Gradients of weight_code · L_code + weight_commit · L_commit, by hand."""
    indices = codebook.encode(z)
    difference = (z - codebook.lookup(indices)).detach()
    grad_codes = torch.zeros_like(codebook.codebook)
    for b, h, w in torch.cartesian_prod(*map(torch.arange, indices.shape)).tolist():
        grad_codes[indices[b, h, w]] -= 2 * weight_code / z.numel() * difference[:, b, :, h, w]
    return 2 * weight_commit / z.numel() * difference, grad_codes


def test_one_index_names_a_whole_trajectory():
    codebook = TemporalCodebook(2, 1, 3, init="uniform").eval()
    rising, falling = torch.tensor([0.0, 1.0, 2.0]), torch.tensor([2.0, 1.0, 0.0])
    with torch.no_grad():
        codebook.codebook.copy_(torch.stack([rising, falling]).unsqueeze(-1))
    z = torch.stack([falling + 0.1, rising - 0.1], dim=1).view(3, 1, 1, 1, 2)
    out = codebook(z)
    assert out.indices.tolist() == [[[1, 0]]]
    assert out.z_q[:, 0, 0, 0, 0].tolist() == [2, 1, 0]
    assert out.z_q[:, 0, 0, 0, 1].tolist() == [0, 1, 2]
    torch.testing.assert_close(out.codebook_loss, torch.tensor(0.01))
    torch.testing.assert_close(out.loss, torch.tensor(0.0125))
    torch.testing.assert_close(out.perplexity, torch.tensor(2.0))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_the_temporal_codebook_passes_the_conformance_kit(codebook, z, dtype):
    codebook = codebook.double() if dtype == torch.float64 else codebook
    assert isinstance(codebook, Quantizer)
    check_quantizer(codebook, z.to(dtype))


def test_a_broken_quantizer_fails_the_conformance_kit(codebook, z):
    class Second(TemporalCodebook):
        def _search(self, *args):
            return (super()._search(*args) + 1) % self.n_embed

    broken = Second(17, 8, 4)
    broken.load_state_dict(codebook.state_dict())
    with pytest.raises(AssertionError, match="every site gets its nearest entry"):
        check_quantizer(broken, z)


@settings(max_examples=15, deadline=None)
@given(t=st.integers(1, 4), b=st.integers(1, 3), d=st.integers(1, 5), h=st.integers(1, 3), w=st.integers(1, 3))
def test_every_shape_round_trips_through_lookup_and_encode(t, b, d, h, w):
    codebook = TemporalCodebook(5, d, t, init="uniform")
    out = codebook(torch.randn(t, b, d, h, w))
    assert torch.equal(codebook.lookup(out.indices), out.z_q)
    assert torch.equal(codebook.encode(out.z_q), out.indices)
    tokens = out.indices.flatten(1)
    assert torch.equal(codebook.lookup(tokens), out.z_q.flatten(3))


@settings(max_examples=15, deadline=None)
@given(order=st.permutations(range(17)))
def test_permuting_the_entries_permutes_the_indices(order):
    z = torch.randn(4, 6, 8, 3, 5)
    codebook = TemporalCodebook(17, 8, 4).double()
    codebook(z)
    before = codebook.eval().encode(z)
    with torch.no_grad():
        codebook.codebook.copy_(codebook.codebook[list(order)])
    assert torch.equal(torch.tensor(order)[codebook.encode(z)], before)


def test_the_memory_format_of_the_latents_changes_nothing(codebook, z):
    strided = z.flatten(0, 1).to(memory_format=torch.channels_last).unflatten(0, z.shape[:2])
    assert not strided.is_contiguous()
    plain, other = codebook.eval()(z), codebook(strided)
    assert torch.equal(plain.z_q, other.z_q)
    assert torch.equal(plain.indices, other.indices)


@pytest.mark.parametrize(("legacy", "weights"), [(False, (1.0, 0.3)), (True, (0.3, 1.0))])
def test_beta_weighs_the_commitment_term_or_in_the_legacy_placement_the_codebook_term(codebook, z, legacy, weights):
    loaded = TemporalCodebook(17, 8, 4, beta=0.3, legacy_beta=legacy)
    loaded.load_state_dict(codebook.state_dict())
    codebook = loaded
    grad_z, grad_codes = closed_form_gradients(codebook, z, *weights)
    leaf = z.requires_grad_()
    out = codebook(leaf)
    out.loss.backward()
    torch.testing.assert_close(out.loss, weights[0] * out.codebook_loss + weights[1] * out.commitment_loss)
    torch.testing.assert_close(leaf.grad, grad_z)
    torch.testing.assert_close(codebook.codebook.grad, grad_codes)


def test_straight_through_is_bit_equal_to_the_entry_and_passes_the_gradient_unchanged():
    z, e = torch.randn(1000, requires_grad=True), torch.randn(1000, requires_grad=True)
    z_q = straight_through(z, e)
    weight = torch.randn(1000)
    grad_z, grad_e = torch.autograd.grad((z_q * weight).sum(), (z, e), allow_unused=True)
    assert torch.equal(z_q, e)
    assert torch.equal(grad_z, weight)
    assert grad_e is None


def test_bfloat16_latents_get_their_gradient_in_bfloat16_and_codes_in_float32(codebook, z):
    leaf = z.bfloat16().requires_grad_()
    out = codebook(leaf)
    out.z_q.sum().backward()
    assert out.z_q.dtype == torch.float32
    assert torch.equal(leaf.grad, torch.ones_like(leaf))


def test_autocast_changes_no_index(codebook, z):
    expected = codebook.eval()(z)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = codebook(z)
    assert torch.equal(out.indices, expected.indices)
    assert torch.equal(out.z_q, expected.z_q)
    assert torch.equal(out.loss, expected.loss)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_non_finite_latents_are_an_error_that_counts_the_sites(codebook, z, training, value):
    z[1, 2, 3, 0, 0] = value
    z[0, 0, 0, 1, 1] = value
    codebook.train(training)
    before = codebook.counts.clone()
    for call in (codebook, codebook.encode, codebook.initialize, codebook.revive):
        with pytest.raises(ValueError, match=r"2 of 90 sites .* NaN or inf"):
            call(z)
    assert torch.equal(codebook.counts, before)


def test_finite_latents_whose_sum_overflows_are_legal(codebook, z):
    assert codebook.eval().encode(torch.full_like(z, 3e38)).shape == (6, 3, 5)


def test_an_empty_batch_gives_zero_loss_and_finite_gradients(codebook):
    out = codebook(torch.empty(4, 0, 8, 3, 5))
    out.loss.backward()
    assert out.loss.item() == 0
    assert out.indices.shape == (0, 3, 5)
    assert codebook.codebook.grad.count_nonzero() == 0


@pytest.mark.parametrize("shape", [(3, 2, 8, 1, 1), (4, 2, 7, 1, 1)])
def test_latents_of_another_size_are_an_error_that_names_both(codebook, shape):
    with pytest.raises(ValueError, match=r"has T = 4 steps of D = 8"):
        codebook(torch.randn(shape))


@pytest.mark.parametrize("index", [-1, 17])
def test_an_index_outside_the_codebook_is_an_error(codebook, index):
    with pytest.raises(ValueError, match="entries 0 to 16"):
        codebook.lookup(torch.tensor([[0, index]]))


@pytest.mark.parametrize(
    "wrong",
    [
        {"n_embed": 0},
        {"n_steps": 0},
        {"beta": -1.0},
        {"decay": 1.0},
        {"eps": 0.0},
        {"max_bytes": 0},
        {"step_weights": (1.0, 2.0)},
        {"step_weights": (1.0, -2.0, 0.0)},
        {"step_weights": (0.0, 0.0, 0.0)},
    ],
)
def test_impossible_options_are_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        TemporalCodebook(**{"n_embed": 4, "embed_dim": 2, "n_steps": 3, **wrong})


@pytest.mark.parametrize("name", ["init", "similarity", "norm", "update", "estimator"])
def test_an_unknown_choice_is_refused_by_name(name):
    config = object.__new__(CodebookConfig)
    for field in fields(CodebookConfig):
        object.__setattr__(
            config, field.name, {"n_embed": 4, "embed_dim": 2, "n_steps": 3}.get(field.name, field.default)
        )
    object.__setattr__(config, name, "magic")
    with pytest.raises(ValueError, match=f"{name} must be one of .*'magic'"):
        config.__post_init__()


def test_a_codebook_is_built_from_its_config():
    config = CodebookConfig(n_embed=4, embed_dim=2, n_steps=3, update="ema", step_weights=(1.0, 0.5, 0.0))
    assert TemporalCodebook.from_config(config).config == config
    assert TemporalCodebook(4, 2, 3, update="ema", step_weights=(1.0, 0.5, 0.0)).config == config


def test_the_state_dict_of_a_codebook_learned_by_gradient_has_three_entries(codebook):
    assert list(codebook.state_dict()) == ["codebook", "initted", "counts"]


def test_learning_can_be_switched_off_in_training_mode(codebook, z):
    before = codebook.counts.clone()
    out = codebook.quantize(z, learn=False)
    assert torch.equal(codebook.counts, before)
    assert torch.equal(out.indices, codebook(z).indices)
    assert not torch.equal(codebook.counts, before)
