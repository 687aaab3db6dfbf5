"""The contract of tcvq-eval: measures take arrays and callables, never a model class of ours."""

from typing import Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor

INTERFACE_VERSION = "0.3"


@runtime_checkable
class FeatureExtractor(Protocol):
    """Anything that maps images, or clips of event frames, in [-1, 1] to feature vectors.

    What it knows of itself beyond the name goes into fingerprints where it has these attributes, all text:
    ``weights_sha256``, ``layer``, ``resize``, ``input``, ``colour``. If it can classify, ``logits_of(features)``
    returns class scores.
    """

    name: str
    num_features: int

    def __call__(self, images: Float[Tensor, "N *shape"]) -> Float[Tensor, "N F"]:
        """Return one feature vector per image, without gradient."""
        ...
