"""What all grids of a set of codes have in common, which values fit it, and the hash that identifies such a set."""

import hashlib
import json
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from jaxtyping import Int
from torch import Tensor

SCHEMA = "tcvq.codes/2"

_BLOCK = 10_000  # rows that are hashed at a time


@dataclass(frozen=True, kw_only=True, slots=True)
class Header:
    """What all grids of a set have in common; its fields are those of `tcvq_data.Codes`; ``grid`` is (h, w)."""

    n_embed: int
    grid: tuple[int, int]
    classes: tuple[str, ...]
    vqvae_sha256: str
    dataset: str
    split: str
    n_steps: int | None

    def __post_init__(self) -> None:
        """Check the numbers.

        Raises:
            ValueError: One is out of range.
        """
        if not 1 <= self.n_embed < 2**31 or min(self.grid) < 1 or (self.n_steps is not None and self.n_steps < 1):
            raise ValueError(
                f"codes of {self.dataset}/{self.split}: n_embed={self.n_embed} must be 1..2147483647, and "
                f"grid={self.grid} and n_steps={self.n_steps} positive"
            )

    @property
    def length(self) -> int:
        """Indices of one grid."""
        return self.grid[0] * self.grid[1]

    @property
    def index_type(self) -> np.dtype[Any]:
        """How an index is stored: two bytes up to 65,536 codes, four above."""
        return np.dtype("<u2" if self.n_embed <= 2**16 else "<i4")

    @property
    def label_type(self) -> np.dtype[Any]:
        """How a label is stored: two bytes up to 32,768 classes, four above."""
        return np.dtype("<i2" if len(self.classes) <= 2**15 else "<i4")

    def problem(self, indices: Tensor, labels: Tensor) -> str:
        """Return what is wrong with some grids and their labels, or an empty string."""
        if indices.shape[1:] != self.grid or labels.shape != indices.shape[:1]:
            wanted = f"(N, {self.grid[0]}, {self.grid[1]}) and (N,)"
            return f"shapes {tuple(indices.shape)} and {tuple(labels.shape)} are not {wanted}"
        for what, values, low, size in (
            ("index", indices, 0, self.n_embed),
            ("label", labels, -1, len(self.classes)),
        ):
            if values.is_floating_point() or values.is_complex():
                return f"{what} of type {values.dtype} instead of an integer"
            if values.numel() and not low <= int(values.min()) <= int(values.max()) < size:
                return f"{what} {int(values.min())}..{int(values.max())} outside {low}..{size - 1}"
        return ""

    def content_sha256(self, indices: Int[np.ndarray, "N L"], labels: Int[np.ndarray, " N"]) -> str:
        """Return the hash of header, grids and labels in the order of the dataset, however they are stored."""
        common = json.dumps([SCHEMA, len(indices), asdict(self)], sort_keys=True, separators=(",", ":"))
        digest = hashlib.sha256(common.encode())
        for first in range(0, len(indices), _BLOCK):
            digest.update(indices[first : first + _BLOCK].astype(self.index_type).tobytes())
        digest.update(labels.astype("<i8").tobytes())
        return digest.hexdigest()


def header_of(tree: dict[str, Any]) -> Header | None:
    """Return the fields of a header, or None if one is missing, of another type or out of range."""
    match tree:
        case {
            "n_embed": int(n_embed),
            "grid": [int(height), int(width)],
            "classes": list(classes),
            "vqvae_sha256": str(vqvae_sha256),
            "dataset": str(dataset),
            "split": str(split),
            "n_steps": int() | None as n_steps,
        }:
            try:
                return Header(
                    n_embed=n_embed,
                    grid=(height, width),
                    classes=tuple(str(name) for name in classes),
                    vqvae_sha256=vqvae_sha256,
                    dataset=dataset,
                    split=split,
                    n_steps=n_steps,
                )
            except ValueError:
                return None
    return None
