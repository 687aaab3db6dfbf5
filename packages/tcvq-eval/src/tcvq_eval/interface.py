"""The contract of tcvq-eval: measures take arrays and callables, never a model class of ours."""

from typing import Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor

INTERFACE_VERSION = "0.2"


@runtime_checkable
class FeatureExtractor(Protocol):
    """Anything that maps images in [-1, 1] to feature vectors."""

    name: str
    num_features: int

    def __call__(self, images: Float[Tensor, "N C H W"]) -> Float[Tensor, "N F"]:
        """Return one feature vector per image, without gradient."""
        ...
