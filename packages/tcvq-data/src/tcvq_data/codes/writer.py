"""Writing of codes in bounded memory; each rank appends shards of its own."""

from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path
from types import TracebackType

import numpy as np
from jaxtyping import Int
from torch import Tensor

from tcvq_data.codes.finish import check_target, finish_codes, partial_folder, rank_file
from tcvq_data.codes.header import Header
from tcvq_data.codes.manifest import Shard
from tcvq_data.codes.shards import SHARD_ROWS, Rows, write_shard
from tcvq_data.files import write_json
from tcvq_data.interface import Codes


class CodesWriter:
    """Appends the grids of one rank, in bounded memory; `finish_codes` makes the folder of all ranks.

    The i-th grid of rank r of W is sample r + i·W of the dataset, as `EpochSampler` and torch's `DistributedSampler`
    deal them out in order. Until `finish_codes`, everything lies in the hidden folder ``.partial-<name>`` beside the
    final one, and what was there before stays as it is.

    Example:
        >>> with CodesWriter(path, n_embed=512, grid=(7, 7), ...) as writer:
        ...     for indices, labels in batches:
        ...         writer.append(indices, labels)
        >>> codes = finish_codes(path)  # with several ranks: on one of them, after a barrier
    """

    def __init__(
        self,
        path: str | Path,
        *,
        n_embed: int,
        grid: tuple[int, int],
        classes: tuple[str, ...],
        vqvae_sha256: str,
        dataset: str,
        split: str,
        n_steps: int | None = None,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        """Describe the codes; files are written inside the ``with`` block.

        Args:
            path: The folder to make or to replace.
            n_embed: Size K of the codebook.
            grid: Height and width of the grids.
            classes: Names of the classes.
            vqvae_sha256: Hash of the VQ-VAE artifact that makes the codes.
            dataset: Name of the dataset.
            split: Name of the split.
            n_steps: Time steps T of the VQ-VAE, if it is to be kept.
            rank: Number of this process.
            world_size: Number of processes that write these codes.

        Raises:
            ValueError: A number is out of range.
        """
        if not 0 <= rank < world_size:
            raise ValueError(f"rank={rank} must be one of 0..{world_size - 1}")
        self.header = Header(
            n_embed=n_embed,
            grid=grid,
            classes=classes,
            vqvae_sha256=vqvae_sha256,
            dataset=dataset,
            split=split,
            n_steps=n_steps,
        )
        self._path, self._rank, self._world_size = Path(path), rank, world_size
        self._folder = partial_folder(self._path)
        self._codes = np.empty((SHARD_ROWS, self.header.length), self.header.index_type)
        self._labels = np.empty(SHARD_ROWS, self.header.label_type)
        self._open, self._filled, self._shards = False, 0, list[Shard]()

    def __enter__(self) -> "CodesWriter":
        """Delete what an interrupted writer of this rank left.

        Raises:
            FileNotFoundError: The folder in which ``path`` lies does not exist.
            FileExistsError: ``path`` is a file, or a folder of something else.
        """
        check_target(self._path)
        self._folder.mkdir(exist_ok=True)
        self._clear()
        self._open, self._filled, self._shards = True, 0, []
        return self

    def append(self, indices: Int[Tensor, "B h w"], labels: Int[Tensor, " B"]) -> None:
        """Append this rank's next grids.

        Args:
            indices: The grids, on any device.
            labels: Their classes, -1 where there is none.

        Raises:
            ValueError: Shapes do not fit together, or an index or a label is out of range.
            RuntimeError: The writer is not inside its ``with`` block.
            OSError: Writing failed.
        """
        if not self._open:
            raise RuntimeError(f"{self._path}: append codes inside the `with` block of their writer")
        if problem := self.header.problem(indices, labels):
            raise ValueError(f"codes of {self.header.dataset}/{self.header.split}: {problem}")
        codes, classes = indices.detach().flatten(1).cpu().numpy(), labels.detach().cpu().numpy()
        taken = 0
        while taken < len(codes):
            n = min(len(codes) - taken, SHARD_ROWS - self._filled)
            into = slice(self._filled, self._filled + n)
            self._codes[into], self._labels[into] = codes[taken : taken + n], classes[taken : taken + n]
            taken, self._filled = taken + n, self._filled + n
            if self._filled == SHARD_ROWS:
                self._flush()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Write the last shard and that this rank is done; after an error, delete what this rank has written."""
        self._open = False
        done = False
        try:
            if kind is None:
                if self._filled or not self._shards:
                    self._flush()
                shards = [asdict(shard) for shard in self._shards]
                tree = asdict(self.header) | {"world_size": self._world_size, "shards": shards}
                write_json(self._folder / rank_file(self._rank), tree)
                done = True
        finally:
            if not done:
                self._clear()
                with suppress(OSError):  # other ranks have files there
                    self._folder.rmdir()

    def _flush(self) -> None:
        """Write the rows of the buffer as the next shard."""
        first = len(self._shards) * SHARD_ROWS
        rows = self._rank + np.arange(first, first + self._filled, dtype=np.uint32) * np.uint32(self._world_size)
        path = self._folder / f"shard-{self._rank:05d}-{len(self._shards):05d}.arrow"
        buffered = Rows(self._codes[: self._filled], self._labels[: self._filled], rows.astype(np.uint32))
        self._shards.append(write_shard(path, buffered, self.header))
        self._filled = 0

    def _clear(self) -> None:
        """Delete the files of this rank."""
        for file in (*self._folder.glob(f"shard-{self._rank:05d}-*.arrow"), self._folder / rank_file(self._rank)):
            file.unlink(missing_ok=True)


def write_codes(path: str | Path, codes: Codes) -> Codes:
    """Write codes, two bytes per index up to 65,536 codes and four above.

    Args:
        path: The folder to make or to replace.
        codes: The codes; their own ``sha256`` is not stored.

    Returns:
        The same codes with the hash of their content.

    Raises:
        ValueError: Shapes do not fit together, or an index or a label is out of range.
        FileNotFoundError: The folder in which ``path`` lies does not exist.
        FileExistsError: ``path`` is a file, or a folder of something else.
        OSError: Writing failed.
    """
    common = {name: getattr(codes, name) for name in Header.__dataclass_fields__ if name != "grid"}
    if codes.indices.ndim != 3:
        shapes = f"{tuple(codes.indices.shape)} and {tuple(codes.labels.shape)}"
        raise ValueError(f"codes of {codes.dataset}/{codes.split}: shapes {shapes} are not (N, H, W) and (N,)")
    height, width = codes.indices.shape[1:]
    writer = CodesWriter(path, grid=(height, width), **common)
    if problem := writer.header.problem(codes.indices, codes.labels):
        raise ValueError(f"codes of {codes.dataset}/{codes.split}: {problem}")
    with writer:
        writer.append(codes.indices, codes.labels)
    return replace(codes, sha256=finish_codes(path).sha256)
