"""A configuration that no network can be built from is refused, naming the field and the numbers."""

import pytest

from tcvq_vqvae import LossConfig, Stage1Config, VQVAEConfig


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
