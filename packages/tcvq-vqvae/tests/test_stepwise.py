"""The per-step baseline: one index per step and site, in a grid of T·h rows with step 0 on top."""

import pytest
import torch

from tcvq_codebook import VanillaCodebook
from tcvq_vqvae import SpikingVQVAE, StepwiseCodebook, load_vqvae, save_vqvae
from tcvq_vqvae.testing import check_tokenizer


@pytest.fixture
def codebook():
    vanilla = VanillaCodebook(5, 2, init="uniform")
    with torch.no_grad():
        vanilla.step.codebook.copy_(torch.arange(10.0).view(5, 1, 2))
    return StepwiseCodebook(vanilla, 3).eval()


def test_rows_of_a_grid_run_step_by_step(codebook):
    z = torch.zeros(3, 1, 2, 2, 2)  # T, B, D, h, w
    z[1] = codebook.codebook[4, 0].view(2, 1, 1)
    z[2, 0, :, 0, 1] = codebook.codebook[2, 0]
    expected = [[0, 0], [0, 0], [4, 4], [4, 4], [0, 2], [0, 0]]
    assert codebook.encode(z).tolist() == [expected]
    assert codebook(z).indices.tolist() == [expected]
    assert torch.equal(codebook.lookup(codebook.encode(z))[1:, 0, :, 0, 1], codebook.codebook[[4, 2], 0])


def test_lookup_of_the_indices_is_the_quantized_latent_bit_for_bit(codebook):
    out = codebook(4 * torch.randn(3, 2, 2, 4, 2))
    assert out.indices.shape == (2, 12, 2)
    assert torch.equal(codebook.lookup(out.indices), out.z_q)


def test_entries_follow_the_loss_and_are_revived_like_those_of_a_temporal_codebook(codebook):
    z = torch.randn(3, 2, 2, 4, 2)
    codebook.train()(z).loss.backward()
    assert codebook.codebook.grad.shape == (5, 1, 2)
    assert codebook.counts.sum() == 3 * 2 * 4 * 2
    dead = codebook.counts < 1
    assert torch.equal(codebook.revive(z), dead)
    assert codebook.is_initted()


def test_grid_that_is_no_whole_number_of_steps_is_refused(codebook):
    with pytest.raises(ValueError, match=r"takes \(B, T\*h, w\) with T = 3"):
        codebook.lookup(torch.zeros(1, 4, 2).long())


def test_latents_of_another_length_are_refused(codebook):
    with pytest.raises(ValueError, match="latents have 2 steps; this codebook takes T = 3"):
        codebook(torch.zeros(2, 1, 2, 2, 2))


@pytest.mark.parametrize("events", [False, True])
def test_network_with_a_codebook_of_single_steps_is_a_tokenizer_and_is_saved(make_config, tmp_path, events):
    kind = {"encoding": "event", "decoding": "event", "in_channels": 2} if events else {}
    model = SpikingVQVAE(make_config(codebook="vanilla", n_steps=3, **kind))
    x = torch.rand(3, 2, 2, 8, 8) if events else torch.rand(2, 1, 8, 8)
    model.codebook.initialize(model.latents(x))
    assert model.encode(x).indices.shape == (2, *model.config.grid) == (2, 12, 4)
    assert model.config.entry_size == model.codebook.codebook[0].numel() == 4
    check_tokenizer(model.eval(), x)
    save_vqvae(tmp_path / "v.safetensors", model)
    loaded = load_vqvae(tmp_path / "v.safetensors").model
    assert loaded.codebook.initted
    assert torch.equal(loaded(x).x_hat, model(x).x_hat)
