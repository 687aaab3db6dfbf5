"""A configuration that no prior can be built from is refused, naming the field and the numbers."""

import pytest
import torch

from tcvq_prior import PriorConfig, SpikingPrior, Stage2Config


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_embed": 0}, "n_embed is 0"),
        ({"grid": (4, 0)}, r"grid is \(4, 0\)"),
        ({"n_classes": -1}, "n_classes is -1"),
        ({"width": 100, "n_head": 16}, "width is 100; it must be a multiple of n_head 16"),
        ({"dropout": 1.0}, "dropout is 1.0"),
        ({"neighbourhood": -1}, "neighbourhood is -1"),
        ({"init_gain": 0.0}, "init_gain is 0.0"),
        ({"rotary": True, "width": 12, "n_head": 2}, "multiple of 4 channels per head; width / n_head is 6"),
        ({"kind": "gpt", "attention_norm": "position"}, "are for kind=spiking"),
        ({"kind": "gpt", "distance_weights": True}, "are for kind=spiking"),
        ({"distance_weights": True, "attention_chunk": 4}, "needs all pairs of tokens"),
        ({"surrogate_alpha": 0.0}, "surrogate_alpha is 0.0; it must be positive"),
        ({"kind": "gpt", "attention_chunk": 8}, "are for kind=spiking"),
        ({"attention_chunk": -1}, "attention_chunk is -1"),
        ({"per_step": "joint"}, "per_step is joint with n_code_steps 1"),
        ({"n_code_steps": 2}, "per_step is none with n_code_steps 2"),
        ({"per_step": "joint", "n_code_steps": 4, "grid": (6, 2)}, "n_code_steps is 4; it must divide the 6 rows"),
        ({"null_class": True}, "null_class is set without classes"),
    ],
)
def test_impossible_architecture_is_refused_with_its_numbers(options, message):
    with pytest.raises(ValueError, match=message):
        PriorConfig(**options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_steps": 0}, "max_steps is 0"),
        ({"max_epochs": 3}, "max_steps is 100000 and stage2.max_epochs is 3; set exactly one"),
        ({"max_steps": None}, "max_steps is None and stage2.max_epochs is None; set exactly one"),
        ({"max_steps": None, "max_epochs": 0}, "max_epochs is 0"),
        ({"base_lr": 1e-6}, "learning_rate is 6.4e-05 and stage2.base_lr is 1e-06; set exactly one"),
        ({"learning_rate": None, "base_lr": 0.0}, "base_lr is 0.0"),
        ({"grad_clip": -1.0}, "grad_clip is -1.0"),
        ({"learning_rate": 0.0}, "0.0"),
        ({"accumulate": 0}, "accumulate is 0"),
        ({"batch_size": 64, "accumulate": 3}, "batch_size is 64; it must be a multiple of 3, 1 processes x"),
        ({"pkeep": 0.0}, "pkeep is 0.0"),
        ({"label_smoothing": 1.0}, "label_smoothing is 1.0"),
        ({"class_dropout": -0.1}, "class_dropout is -0.1"),
        ({"ema_decay": 1.0}, "ema_decay is 1.0"),
    ],
)
def test_impossible_training_is_refused_with_its_numbers(options, message):
    with pytest.raises(ValueError, match=message):
        Stage2Config(**options)


def test_code_features_of_another_size_are_refused(make_config):
    with pytest.raises(ValueError, match=r"code features are \(5, 3\); the prior was built for \(7, 3\)"):
        SpikingPrior(make_config(code_features=3), torch.zeros(5, 3))


def test_base_learning_rate_is_per_grid_of_the_batch_as_in_the_paper():
    config = Stage2Config(learning_rate=None, base_lr=2.5e-6, batch_size=32)
    assert config.peak_learning_rate == pytest.approx(8e-5)  # Bedroom: 2 GPUs x 16


def test_epochs_are_turned_into_steps_of_accumulated_batches():
    config = Stage2Config(max_steps=None, max_epochs=3, batch_size=64, accumulate=4)
    assert config.total_steps(10) == 7  # 30 batches, 4 per step
    assert Stage2Config(max_steps=5).total_steps(10) == 5


def test_the_batch_is_divided_over_processes_and_accumulated_batches():
    config = Stage2Config(batch_size=64, accumulate=4)
    assert (config.micro_batch_size(), config.micro_batch_size(world_size=2)) == (16, 8)
    with pytest.raises(ValueError, match="multiple of 12, 3 processes x"):
        config.micro_batch_size(world_size=3)
