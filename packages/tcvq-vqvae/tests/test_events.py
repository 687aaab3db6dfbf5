"""Recordings of N-MNIST's shape, 64 x 64 pixels, two polarities, four steps, as the paper trains on them."""

import pytest
import torch

from tcvq_data import DataOptions, EventOptions, open_dataset
from tcvq_vqvae import LitVQVAE, LossConfig, Stage1Config, VQVAEConfig, reconstruct


@pytest.mark.slow  # minutes without the fused kernels
def test_simulated_events_train_and_are_reconstructed(fit, tmp_path):
    options = DataOptions(root=tmp_path, limit=8, size=64, events=EventOptions(n_steps=4))
    source = open_dataset("fashion-mini-events", "train", options)
    frames = torch.stack([source[i].image for i in range(8)])  # (B, T, 2, H, W)
    assert frames.shape == (8, 4, 2, 64, 64)
    config = VQVAEConfig(
        image_size=64,
        in_channels=2,
        n_steps=4,
        width=16,
        channel_mult=(1,),
        n_res_blocks=1,
        attn_resolutions=(),
        z_channels=16,
        n_embed=64,
        embed_dim=8,
        space_to_depth=8,
        encoding="event",
        decoding="event",
    )
    loss = LossConfig(pixel="l2", disc_start=110, disc_width=8, disc_layers=2, disc_norm="group")
    train = Stage1Config(
        max_steps=120, batch_size=4, learning_rate=5e-3, betas=(0.9, 0.95), unquantized_steps=40, revive_every=10
    )
    module = LitVQVAE(config, loss, train)
    x = frames.transpose(0, 1)

    fit(module, *frames.split(4))
    error = (reconstruct(module.trained, x) - x).square().mean()
    average = (x - x.mean((0, 1))).square().mean()  # of always drawing the mean frame of these recordings
    assert error < 0.9 * average
    assert error < 0.8 * x.var(correction=0)
