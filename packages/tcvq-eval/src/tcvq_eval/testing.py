"""Conformance kit: what any feature extractor must do before its distances can be trusted."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from .interface import FeatureExtractor


def _check_stays_in_eval(extractor: nn.Module, images: Float[Tensor, "N *shape"]) -> None:
    """Assert that a parent's ``train()`` neither changes the features nor lets the extractor's state move."""
    before = {name: value.clone() for name, value in extractor.state_dict().items()}
    expected = extractor(images)
    nn.ModuleList([extractor]).train()
    assert torch.equal(extractor(images), expected), "train() of a parent changes the features; override train()"
    for name, value in extractor.state_dict().items():
        assert torch.equal(value, before[name]), f"computing features changed {name}; override train() to stay in eval"


def check_feature_extractor(extractor: FeatureExtractor, images: Float[Tensor, "N *shape"]) -> None:
    """Assert that an extractor keeps the contract of ``FeatureExtractor``.

    It has a name and a width, returns one finite float32 vector per image without gradient, gives the same answer
    twice, does not let images of a batch influence each other, leaves its input alone, and stays in evaluation mode.

    Args:
        extractor: What to check.
        images: At least three different images, or clips, in [-1, 1], of a shape that it accepts.

    Raises:
        AssertionError: A promise is broken; the message says which.
    """
    assert isinstance(extractor, FeatureExtractor), "name, num_features or __call__ is missing"
    assert extractor.name, "name is empty"
    assert len(images) >= 3, f"the check needs at least three images, got {len(images)}"
    kept = images.clone()
    features = extractor(images.clone().requires_grad_())
    expected = (len(images), extractor.num_features)
    assert features.shape == expected, f"features have shape {tuple(features.shape)}, expected {expected}"
    assert features.dtype == torch.float32, f"features are {features.dtype}, expected float32"
    assert not features.requires_grad, "features carry a gradient"
    assert bool(features.isfinite().all()), "a feature is not finite"
    assert torch.equal(extractor(images), features), "the same images gave other features"
    assert torch.equal(images, kept), "the extractor changed its input"
    alone = torch.cat([extractor(images[i : i + 1]) for i in range(len(images))])
    torch.testing.assert_close(alone, features, msg="the features of an image depend on its batch")
    assert not torch.equal(features[0], features[1]), "different images gave equal features"
    if isinstance(extractor, nn.Module):
        _check_stays_in_eval(extractor, images)
