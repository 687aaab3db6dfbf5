"""Completing images: the codes of one side of test images are given, the prior draws the others."""

from dataclasses import dataclass
from typing import Literal, get_args

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from tcvq_data import Codes
from tcvq_runner.recipe import ConfigError

Side = Literal["upper", "lower", "left", "right"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Completion:
    """Which images are completed, how often, and what of them is given.

    Attributes:
        images: Number of test images, of the classes in turn.
        ways: How often each is completed.
        side: The side that is given.
        share: Share of the image that is given.
    """

    images: int
    ways: int = 8
    side: Side = "upper"
    share: float = 0.5

    def __post_init__(self) -> None:
        """Reject what cannot be completed."""
        if self.images < 1 or self.ways < 1:
            raise ConfigError(f"--complete {self.images}x{self.ways}: both must be at least 1")
        if not 0 < self.share < 1:
            raise ConfigError(f"--keep {self.side}:{self.share}: the share must lie between 0 and 1")

    @property
    def n(self) -> int:
        """Number of completed images."""
        return self.images * self.ways

    def chosen(self, codes: Codes) -> Int[Tensor, " images"]:
        """Return the positions of the images in the test split: the first of each class, then the second, and so on.

        Raises:
            ConfigError: There are not so many.
        """
        if self.images > len(codes.labels):
            raise ConfigError(f"--complete {self.images}: the test split has {len(codes.labels)} images")
        labels = codes.labels
        rank = torch.zeros_like(labels)
        for label in labels.unique():
            rank[labels == label] = torch.arange(int((labels == label).sum()))
        order = sorted(range(len(labels)), key=lambda i: (int(rank[i]), int(labels[i]), i))
        return torch.tensor(order[: self.images])

    def known(self, codes: Codes, stacked: int) -> Int[Tensor, "n h w"]:
        """Return the given codes, each image ``ways`` times in a row, -1 where the prior draws.

        Args:
            codes: Of the test split.
            stacked: Grids that stand below each other in one: the steps of a codebook of single steps, else 1.
        """
        grids = codes.indices[self.chosen(codes)].long()
        height, width = grids.shape[1] // stacked, grids.shape[2]
        given = self.given(height, width).repeat(stacked, 1)
        return grids.masked_fill(~given, -1).repeat_interleave(self.ways, dim=0)

    def labels(self, codes: Codes) -> Int[Tensor, " n"]:
        """Return the class of each completed image."""
        return codes.labels[self.chosen(codes)].long().repeat_interleave(self.ways)

    def given(self, height: int, width: int) -> Bool[Tensor, "h w"]:
        """Return which cells of a grid are given, at least one and not all."""
        rows = self.side in ("upper", "lower")
        along = height if rows else width
        cells = torch.arange(along) < min(max(round(self.share * along), 1), along - 1)
        if self.side in ("lower", "right"):
            cells = cells.flip(0)
        return (cells[:, None] if rows else cells[None, :]).expand(height, width)


def parse_completion(images: str, keep: str) -> Completion:
    """Return what ``--complete IMAGES[xWAYS]`` and ``--keep SIDE[:SHARE]`` mean.

    Raises:
        ConfigError: One of them is not of this form.
    """
    n, x, ways = images.partition("x")
    side, colon, share = keep.partition(":")
    try:
        if side not in get_args(Side):
            raise ValueError
        numbers = int(n), int(ways) if x else 8, float(share) if colon else 0.5
    except ValueError:
        raise ConfigError(
            f"--complete {images} --keep {keep}: write such as --complete 8x8 --keep upper:0.5; "
            f"sides are {', '.join(get_args(Side))}"
        ) from None
    return Completion(images=numbers[0], ways=numbers[1], side=side, share=numbers[2])  # type: ignore[arg-type]
