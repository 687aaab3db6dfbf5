"""Lightning data modules: training and validation batches of images for stage 1 and of codes for stage 2."""

from typing import NamedTuple

import lightning.pytorch as pl
import torch
from jaxtyping import Int
from torch import Tensor
from torch.utils.data import Dataset

from tcvq_data.batches import Batches, EpochSampler, ImageItems, Pick, default_workers, process_rank
from tcvq_data.interface import ArtifactError, Codes, DataOptions, ImageSource
from tcvq_data.registry import is_mirrored, open_dataset


class CodeBatch(NamedTuple):
    """Some of the items of `Codes`.

    Attributes:
        indices: Grids of code indices, int64.
        labels: Their classes, -1 where there is none, int64.
    """

    indices: Int[Tensor, "B H W"]
    labels: Int[Tensor, " B"]


class ImageDataModule(pl.LightningDataModule):
    """Training batches of a dataset's train split, validation batches of its test split, each rank its share."""

    def __init__(
        self,
        name: str,
        batch_size: int,
        *,
        seed: int,
        options: DataOptions | None = None,
        hflip: bool | None = None,
        workers: int | None = None,
    ) -> None:
        """Describe the data; files are read on first use.

        Args:
            name: Any name that `tcvq_data.open_dataset` takes.
            batch_size: Images per batch and rank.
            seed: Seed of shuffles and mirroring.
            options: How the dataset is read.
            hflip: Mirror half of the training images; None does as the paper does with this dataset.
            workers: Processes that decode; None starts them for image files only, by the number of usable CPUs.
        """
        super().__init__()
        self._name, self._batch_size, self._seed, self._workers = name, batch_size, seed, workers
        self._options = options or DataOptions()
        self._hflip = is_mirrored(name) if hflip is None else hflip
        self._sources: dict[str, ImageSource] = {}

    def prepare_data(self) -> None:
        """Open both splits on one rank of each node, which builds the caches that they may need."""
        for split in ("train", "test"):
            self.source(split)

    def source(self, split: str) -> ImageSource:
        """Return the samples of a split in their fixed order.

        Raises:
            ValueError: The dataset or the split is unknown.
            MissingDataError: Its files are not there.
            ArtifactError: Its files are damaged.
        """
        if split not in self._sources:
            self._sources[split] = open_dataset(self._name, split, self._options)
        return self._sources[split]

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes."""
        return self.source("train").classes

    @property
    def image_shape(self) -> tuple[int, ...]:
        """Shape of one image, such as ``(1, 28, 28)``."""
        return tuple(self.source("train")[0].image.shape)

    def train_dataloader(self) -> Batches:
        """Return shuffled batches ``Sample((B, …), (B,))``, all of the same size."""
        return self._batches("train", seed=self._seed, hflip=self._hflip)

    def val_dataloader(self) -> Batches:
        """Return the whole test split in its fixed order."""
        return self._batches("test", seed=None)

    def _batches(self, split: str, *, seed: int | None, hflip: bool = False) -> Batches:
        source = self.source(split)
        workers = default_workers(source) if self._workers is None else self._workers
        return _sharded(ImageItems(source), self._batch_size, seed=seed, hflip=hflip, workers=workers)


class CodesDataModule(pl.LightningDataModule):
    """Batches of code grids for stage 2."""

    def __init__(self, codes_train: Codes, codes_val: Codes, batch_size: int, *, seed: int) -> None:
        """Take the codes of both splits.

        Args:
            codes_train: Codes to learn from.
            codes_val: Codes to validate on.
            batch_size: Grids per batch.
            seed: Seed of the shuffles.

        Raises:
            ArtifactError: The two come from different VQ-VAEs, codebooks or grids.
        """
        super().__init__()
        for field in ("vqvae_sha256", "n_embed", "classes"):
            ours, theirs = getattr(codes_train, field), getattr(codes_val, field)
            if ours != theirs:
                raise ArtifactError(
                    f"training codes have {field}={ours}, validation codes {theirs}; encode both with one VQ-VAE"
                )
        if codes_train.indices.shape[1:] != codes_val.indices.shape[1:]:
            grids = (tuple(codes.indices.shape[1:]) for codes in (codes_train, codes_val))
            raise ArtifactError("training codes are grids of {}, validation codes of {}; encode again".format(*grids))
        self.codes_train, self.codes_val = codes_train, codes_val
        self._batch_size, self._seed = batch_size, seed

    def train_dataloader(self) -> Batches:
        """Return shuffled batches ``CodeBatch((B, H, W), (B,))``, all of the same size."""
        return _sharded(_Grids(self.codes_train), self._batch_size, seed=self._seed)

    def val_dataloader(self) -> Batches:
        """Return all validation codes in their fixed order."""
        return _sharded(_Grids(self.codes_val), self._batch_size, seed=None)


class _Grids(Dataset[CodeBatch]):
    """Batches of codes."""

    def __init__(self, codes: Codes) -> None:
        self._codes = codes

    def __len__(self) -> int:
        return len(self._codes.labels)

    def __getitem__(self, pick: Pick) -> CodeBatch:
        index = torch.tensor(pick.positions)
        return CodeBatch(self._codes.indices[index].long(), self._codes.labels[index].long())


def _sharded(
    items: ImageItems | _Grids, batch_size: int, *, seed: int | None, hflip: bool = False, workers: int = 0
) -> Batches:
    """Return this rank's share of the batches."""
    rank, world_size = process_rank()
    sampler = EpochSampler(len(items), batch_size, seed=seed, hflip=hflip, rank=rank, world_size=world_size)
    return Batches(items, sampler, workers=workers)
