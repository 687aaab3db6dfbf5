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
        ({"null_class": True}, "null_class is set without classes"),
    ],
)
def test_impossible_architecture_is_refused_with_its_numbers(options, message):
    with pytest.raises(ValueError, match=message):
        PriorConfig(**options)


@pytest.mark.parametrize(
    ("options", "message"),
    [({"max_steps": 0}, "max_steps is 0"), ({"grad_clip": -1.0}, "grad_clip is -1.0"), ({"learning_rate": 0.0}, "0.0")],
)
def test_impossible_training_is_refused_with_its_numbers(options, message):
    with pytest.raises(ValueError, match=message):
        Stage2Config(**options)


def test_code_features_of_another_size_are_refused(make_config):
    with pytest.raises(ValueError, match=r"code features are \(5, 3\); the prior was built for \(7, 3\)"):
        SpikingPrior(make_config(code_features=3), torch.zeros(5, 3))
