"""The contract of tcvq-data: one item type, one artifact type, and the version of that promise."""

from dataclasses import dataclass, field
from typing import NamedTuple, Protocol, runtime_checkable

from jaxtyping import Float, Int
from torch import Tensor

INTERFACE_VERSION = "0.1"


class Sample(NamedTuple):
    """One item of a dataset; the default collate function turns a list of them into one of batched tensors.

    Attributes:
        image: Pixel values in [-1, 1], float32; events carry a leading time axis ``(T, 2, H, W)``.
        label: Class number as an int64 scalar, -1 where there is none.
    """

    image: Float[Tensor, "*T C H W"]
    label: Int[Tensor, ""]


@runtime_checkable
class ImageSource(Protocol):
    """A map-style dataset of samples that knows its classes."""

    classes: tuple[str, ...]

    def __len__(self) -> int:
        """Number of samples."""
        ...

    def __getitem__(self, index: int) -> Sample:
        """Return one sample."""
        ...


class ArtifactError(ValueError):
    """A file is missing, damaged, of another schema, or made from something else than what it is used with."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Artifact:
    """A loaded artifact.

    Attributes:
        schema: Name and version of the layout, such as ``tcvq.codes/1``.
        tensors: The arrays by name.
        meta: Everything else, as JSON types.
        sha256: Hash of the file, by which later artifacts name what they were made from.
    """

    schema: str
    tensors: dict[str, Tensor]
    meta: dict[str, object] = field(default_factory=dict)
    sha256: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Codes:
    """The grids of code indices of one dataset split: what stage 1 hands to stage 2.

    Attributes:
        indices: One grid per image, in dataset order; int64.
        labels: Class of each image, -1 where there is none; int64.
        n_embed: Size K of the codebook that the indices point into.
        classes: Names of the classes.
        vqvae_sha256: Hash of the VQ-VAE artifact that made the codes.
        dataset: Name of the dataset.
        split: Name of the split.
        sha256: Hash of the file the codes were read from, empty before they are written.
    """

    indices: Int[Tensor, "N H W"]
    labels: Int[Tensor, " N"]
    n_embed: int
    classes: tuple[str, ...]
    vqvae_sha256: str
    dataset: str
    split: str
    sha256: str = ""
