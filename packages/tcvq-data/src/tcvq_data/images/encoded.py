"""What all datasets of encoded images share: decoding at access, seeded splits, and finding the damaged ones."""

import logging
import os
from abc import ABC, abstractmethod
from collections.abc import Sequence
from hashlib import blake2b
from multiprocessing.pool import ThreadPool
from pathlib import Path

import torch
from jaxtyping import Int
from torch import Tensor

from tcvq_data.images.transforms import decode, to_floats
from tcvq_data.interface import ArtifactError, DataOptions, ImageSource, Sample

TEST_SHARE = 0.1
"""Part of a dataset without an official split that `hash_split` keeps for the test."""


class EncodedImages(ABC):
    """Samples that are stored as encoded images and decoded at each access; subclasses say where the bytes are.

    Attributes:
        classes: Names of the classes, empty where there are no labels.
        labels: Class of every sample, -1 where there is none; int64.
        size: Height and width of the samples.
        channels: 1 for grey, 3 for colour.
        skipped: Files of 0 bytes that were left out.
    """

    classes: tuple[str, ...] = ()
    labels: Int[Tensor, " N"]
    skipped: int = 0

    def __init__(self, n: int, options: DataOptions, *, size: int) -> None:
        """Make a source of ``n`` samples without labels; ``size`` is taken where the options name none."""
        self.labels = torch.full((n,), -1)
        self.size, self.channels = options.size or size, options.channels or 3

    @abstractmethod
    def encoded(self, index: int) -> tuple[bytes | Path, str]:
        """Return one encoded image, and what to call it in errors."""

    def __len__(self) -> int:
        """Number of images."""
        return len(self.labels)

    def __getitem__(self, index: int) -> Sample:
        """Return one image ``(C, S, S)`` and its label; an `ArtifactError` names the image if it is damaged."""
        index = range(len(self))[index]
        data, name = self.encoded(index)
        return Sample(to_floats(decode(data, size=self.size, channels=self.channels, name=name)), self.labels[index])


def check_split(name: str, split: str, known: Sequence[str]) -> None:
    """Raise a ValueError that lists the splits of dataset ``name`` if ``split`` is none of them."""
    if split not in known:
        raise ValueError(f"split {split!r} of {name} is unknown; it has {', '.join(known)}")


def hash_split(keys: Sequence[str], split: str, *, name: str, seed: int) -> list[int]:
    """Return the positions of a split: `TEST_SHARE` of the keys, those of smallest hash, are the test.

    The side of a key follows from the key and the seed alone, so that adding images moves no other one.

    Args:
        keys: A name of each image that stays the same on every machine, such as its path in the folder.
        split: ``"train"`` or ``"test"``.
        name: Of the dataset, for errors.
        seed: Of the split.

    Raises:
        ValueError: The split is unknown.
        ArtifactError: No image falls into the split.
    """
    check_split(name, split, ("train", "test"))
    bound, wanted = int(TEST_SHARE * 2**64), split == "test"
    digests = (blake2b(f"{seed}\0{key}".encode("utf-8", "surrogateescape"), digest_size=8).digest() for key in keys)
    positions = [i for i, digest in enumerate(digests) if (int.from_bytes(digest) < bound) == wanted]
    if not positions:
        raise ArtifactError(
            f"{name}: none of its {len(keys)} images falls into the {split} split, a hash of the path sends "
            f"{TEST_SHARE:.0%} to test; add images, change the seed, or sort them into folders train and test"
        )
    return positions


def report_empty(name: str, source: EncodedImages, empty: Sequence[str]) -> None:
    """Count files of 0 bytes as skipped, with one line in the log."""
    source.skipped = len(empty)
    if empty:
        logging.getLogger(__name__).warning("%s: skipped %d files of 0 bytes, first %s", name, len(empty), empty[0])


def verify_images(source: ImageSource) -> list[str]:
    """Decode every image, on all cores, and return one line for each that is damaged."""

    def fault(index: int) -> str | None:
        try:
            source[index]
        except ArtifactError as error:
            return str(error)
        return None

    first = fault(0)  # opens what is opened once per process before there are threads
    with ThreadPool(len(os.sched_getaffinity(0))) as pool:
        rest = pool.imap(fault, range(1, len(source)), chunksize=16)
        return [line for line in (first, *rest) if line is not None]
