"""A configuration that no network can be built from is refused, naming the field and the numbers."""

import pytest

from tcvq_vqvae import LossConfig, Stage1Config, VQVAEConfig
from tcvq_vqvae.train_config import start_batch


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"image_size": 28}, "image_size is 28; 5 levels with space_to_depth 1 need a multiple of 16"),
        ({"image_size": 32, "space_to_depth": 4}, "need a multiple of 64"),
        ({"n_steps": 0}, "n_steps is 0"),
        ({"channel_mult": ()}, "channel_mult is \\(\\)"),
        ({"channel_mult": (1, 0)}, "channel_mult is \\(1, 0\\)"),
        ({"attn_resolutions": (3,)}, "attn_resolutions is \\(3,\\); the levels have sides \\[32, 16, 8, 4, 2\\]"),
        ({"dropout": 1.0}, "dropout is 1.0"),
        ({"encoding": "event"}, "event goes with event"),
        ({"decoding": "event"}, "event goes with event"),
    ],
)
def test_impossible_architecture_is_refused_with_its_numbers(options, message):
    with pytest.raises(ValueError, match=message):
        VQVAEConfig(**options)


def test_unknown_setting_is_refused():
    with pytest.raises(TypeError, match="pixelloss_weight"):
        LossConfig(pixelloss_weight=1.0)


@pytest.mark.parametrize(
    ("build", "options", "message"),
    [
        (LossConfig, {"disc_weight": -0.1}, "disc_weight is -0.1"),
        (LossConfig, {"disc_layers": 0}, "disc_layers is 0"),
        (LossConfig, {"disc_start": "10 hours"}, "disc_start is '10 hours'; write 15001, \"30001 steps\""),
        (LossConfig, {"perceptual_weight": 1.0}, "perceptual_weights names no file; give torchvision's vgg16-397923af"),
        (Stage1Config, {"max_steps": 5, "max_epochs": 1}, "max_steps and stage1.max_epochs are both set"),
        (Stage1Config, {"learning_rate": 1e-3, "base_lr": 1e-6}, "learning_rate and stage1.base_lr are both set"),
        (Stage1Config, {"batch_size": 6, "accumulate": 4}, "accumulate is 4; it must divide stage1.batch_size 6"),
        (Stage1Config, {"ema_decay": 1.0}, "ema_decay is 1.0"),
        (Stage1Config, {"max_steps": 3, "unquantized_steps": 3}, "unquantized_steps is 3 of 3"),
        (Stage1Config, {"max_steps": 0}, "max_steps is 0"),
        (Stage1Config, {"grad_clip": -1.0}, "grad_clip is -1.0"),
        (Stage1Config, {"learning_rate": 0.0}, "learning_rate is 0.0"),
    ],
)
def test_impossible_training_is_refused_with_its_numbers(build, options, message):
    with pytest.raises(ValueError, match=message):
        build(**options)


def test_five_levels_on_32_pixels_give_a_grid_of_2_by_2():
    assert VQVAEConfig().grid == (2, 2)
    assert VQVAEConfig(space_to_depth=2).grid == (1, 1)


def test_learning_rate_is_the_base_rate_times_the_global_batch():
    assert Stage1Config(batch_size=64).lr == 4.5e-6 * 64
    assert Stage1Config(batch_size=64, base_lr=1e-5).lr == 1e-5 * 64
    assert Stage1Config(batch_size=64, learning_rate=2e-3).lr == 2e-3


def test_epochs_become_steps():
    assert Stage1Config(max_epochs=3).total_steps(7) == 21
    assert Stage1Config(max_steps=5).total_steps(7) == 5
    assert Stage1Config().total_steps(7) == 100_000


@pytest.mark.parametrize(
    ("text", "batch"),
    [(15001, 15001), ("15001 batches", 15001), ("30001 steps", 15001), ("30000 steps", 15000), ("10 epochs", 70)],
)
def test_start_of_the_discriminator_is_a_batch_whatever_the_unit(text, batch):
    assert start_batch(text, steps_per_epoch=7) == batch


def test_start_in_epochs_needs_their_length():
    with pytest.raises(ValueError, match="number of batches per epoch is not known"):
        start_batch("10 epochs")
