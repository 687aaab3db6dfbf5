"""Real images that travel with the package, so that everything runs with no network."""

import hashlib
import json
from functools import cache
from importlib.resources import files

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from tcvq_data.idx import gunzip, parse_idx
from tcvq_data.interface import ArtifactError, DataOptions, ImageSource, Sample

_FILES = {"train": "train", "test": "t10k"}


class FashionMini:
    """10,000 training and 2,000 test images of Fashion-MNIST: the first 1,000 and 200 of each class.

    Meant for demonstrations and tests; scores on it are not comparable with scores on the full set.

    Attributes:
        classes: The ten names, in the order of the labels.
        images: All images, float32 in [-1, 1].
        labels: Their classes, int64.
    """

    classes: tuple[str, ...] = (
        "T-shirt/top",
        "Trouser",
        "Pullover",
        "Dress",
        "Coat",
        "Sandal",
        "Shirt",
        "Sneaker",
        "Bag",
        "Ankle boot",
    )
    images: Float[Tensor, "N 1 28 28"]
    labels: Int[Tensor, " N"]

    def __init__(self, split: str = "train", *, limit: int | None = None) -> None:
        """Load a split.

        Args:
            split: ``"train"`` or ``"test"``.
            limit: Take at most the first ``limit`` images; classes are mixed.

        Raises:
            ValueError: The split is unknown, or ``limit`` is not positive.
            ArtifactError: A file of the package is damaged.
        """
        if split not in _FILES:
            raise ValueError(f"split {split!r} of fashion-mini is unknown; it has {', '.join(_FILES)}")
        if limit is not None and limit < 1:
            raise ValueError(f"limit={limit} of fashion-mini/{split} must be positive, or None for all images")
        images, labels = _load(_FILES[split])
        self.images = images[:limit].float().div_(127.5).sub_(1).unsqueeze(1)
        self.labels = labels[:limit].long()

    def __len__(self) -> int:
        """Number of images."""
        return len(self.labels)

    def __getitem__(self, index: int) -> Sample:
        """Return one image ``(1, 28, 28)`` and its label."""
        return Sample(self.images[index], self.labels[index])

    def batch(self, index: list[int]) -> Sample:
        """Return some images ``(B, 1, 28, 28)`` and their labels ``(B,)``."""
        return Sample(self.images[index], self.labels[index])


def open_fashion_mini(split: str, options: DataOptions) -> ImageSource:
    """Open the embedded images, 28x28 and grey unless the options say otherwise.

    Raises:
        ValueError: The split is unknown, or the size below 28.
        ArtifactError: A file of the package is damaged.
    """
    if (options.size or 28, options.channels or 1) == (28, 1):
        return FashionMini(split, limit=options.limit)
    from tcvq_data.images.arrays import ArraySource

    if split not in _FILES:
        raise ValueError(f"split {split!r} of fashion-mini is unknown; it has {', '.join(_FILES)}")
    images, labels = _load(_FILES[split])
    return ArraySource(
        images[:, None].numpy(), labels.numpy(), FashionMini.classes, options, name=f"fashion-mini/{split}"
    )


@cache
def _load(prefix: str) -> tuple[UInt8[Tensor, "N 28 28"], UInt8[Tensor, " N"]]:
    """Return images and labels as stored, their hashes verified; callers must not write into them."""
    arrays = []
    for name in (f"{prefix}-images-idx3-ubyte", f"{prefix}-labels-idx1-ubyte"):
        payload = _payload(name)
        arrays.append(torch.from_numpy(parse_idx(payload, name=name)))
    return arrays[0], arrays[1]


def _payload(name: str) -> bytes:
    """Return one uncompressed file of the package data, its hash verified."""
    folder = files("tcvq_data") / "embedded" / "fashion_mini"
    try:
        data = (folder / f"{name}.gz").read_bytes()
        expected = json.loads((folder / "SOURCE.json").read_text(encoding="utf-8"))["payload_sha256"][name]["subset"]
    except (FileNotFoundError, ValueError, KeyError) as error:
        raise ArtifactError(f"fashion-mini: package data missing or damaged ({error}); reinstall tcvq-data") from None
    payload = gunzip(data, name=f"{name}.gz")
    if hashlib.sha256(payload).hexdigest() != expected:
        raise ArtifactError(f"{name}.gz: wrong checksum, the package data are damaged; reinstall tcvq-data")
    return payload
