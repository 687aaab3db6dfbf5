"""The contract of tcvq-data: one item type, one artifact type, how data are read, and the version of that promise."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, NamedTuple, Protocol, runtime_checkable

from jaxtyping import Float, Int
from torch import Tensor

INTERFACE_VERSION = "0.2"


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
    """A map-style dataset of samples that knows its classes; it may be pickled and read from many processes.

    A source that reads many samples faster than one by one has a method ``batch(index) -> Sample`` too, which takes a
    list of positions and returns ``Sample((B, …), (B,))``; `read_batch` uses it.

    Attributes:
        classes: Names of the classes, empty where there are no labels.
        labels: Class of every sample, -1 where there is none; known without decoding an image.
    """

    classes: tuple[str, ...]
    labels: Int[Tensor, " N"]

    def __len__(self) -> int:
        """Number of samples."""
        ...

    def __getitem__(self, index: int) -> Sample:
        """Return one sample."""
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class EventOptions:
    """How recordings become the input of a network; image datasets have no use for it.

    Attributes:
        n_steps: Steps T that a recording is divided into.
        rule: How: equal ``time``, equal ``count`` of events, or as ``tonic`` divides, which loses the tail.
        denoise_us: Time constant of the filter against isolated events, in microseconds; 0 leaves it out.
        stabilise: Undo N-MNIST's saccades.
        resize: How frames get their size, see `tcvq_data.events.resize_frames`.
        scale: Count that becomes +1: the largest of the training split (``fixed``), or of the recording.
    """

    n_steps: int = 4
    rule: Literal["time", "count", "tonic"] = "time"
    denoise_us: int = 10_000
    stabilise: bool = False
    resize: Literal["bilinear", "count"] = "bilinear"
    scale: Literal["fixed", "per_sample"] = "fixed"

    def __post_init__(self) -> None:
        """Check the numbers.

        Raises:
            ValueError: A number is out of range.
        """
        if self.n_steps < 1:
            raise ValueError(f"n_steps={self.n_steps} of event data must be positive")
        if self.denoise_us < 0:
            raise ValueError(f"denoise_us={self.denoise_us} must not be negative; 0 leaves the filter out")


@dataclass(frozen=True, kw_only=True, slots=True)
class DataOptions:
    """How a dataset is read.

    Attributes:
        root: Folder of all datasets; None takes ``$TCVQ_DATA``, else ``~/.cache/tcvq/data``.
        limit: Take at most the first so many samples of the split.
        size: Height and width of the samples; None takes what the paper uses for this dataset.
        channels: 1 for grey, 3 for colour, where the dataset leaves a choice; None keeps what it has.
        seed: Of splits, where the dataset has no official ones, and of simulated recordings.
        events: How recordings are read.
    """

    root: Path | None = None
    limit: int | None = None
    size: int | None = None
    channels: int | None = None
    seed: int = 0
    events: EventOptions = field(default_factory=EventOptions)

    def __post_init__(self) -> None:
        """Check the numbers.

        Raises:
            ValueError: A number is out of range.
        """
        for name in ("limit", "size"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name}={value} of the data must be positive, or None")
        if self.channels not in (None, 1, 3):
            raise ValueError(f"channels={self.channels} of the data must be 1 (grey), 3 (colour) or None")
        if self.seed < 0:
            raise ValueError(f"seed={self.seed} of the data must not be negative")


class ArtifactError(ValueError):
    """A file is missing, damaged, of another schema, or made from something else than what it is used with."""


class MissingDataError(ArtifactError):
    """Files of a dataset are not where they are expected; the message says which, where, and how to get them."""


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
        indices: One grid per image, in dataset order; int32 where read, any integer where made.
        labels: Class of each image, -1 where there is none; int64.
        n_embed: Size K of the codebook that the indices point into.
        classes: Names of the classes.
        vqvae_sha256: Hash of the VQ-VAE artifact that made the codes.
        dataset: Name of the dataset.
        split: Name of the split.
        n_steps: Time steps T of the VQ-VAE, None where nobody said.
        sha256: Hash of the content, the same however it is stored; empty before the codes are written.
    """

    indices: Int[Tensor, "N H W"]
    labels: Int[Tensor, " N"]
    n_embed: int
    classes: tuple[str, ...]
    vqvae_sha256: str
    dataset: str
    split: str
    n_steps: int | None = None
    sha256: str = ""
