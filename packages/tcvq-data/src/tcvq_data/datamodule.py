"""Lightning data modules: training and validation batches of images for stage 1 and of codes for stage 2."""

from typing import NamedTuple

import lightning.pytorch as pl
import torch
from jaxtyping import Int
from torch import Tensor

from tcvq_data.batches import TensorBatches
from tcvq_data.interface import ArtifactError, Codes, ImageSource, Sample
from tcvq_data.registry import open_dataset


class CodeBatch(NamedTuple):
    """Some of the items of `Codes`.

    Attributes:
        indices: Grids of code indices, int64.
        labels: Their classes, -1 where there is none, int64.
    """

    indices: Int[Tensor, "B H W"]
    labels: Int[Tensor, " B"]


class ImageDataModule(pl.LightningDataModule):
    """Training batches of a dataset's train split, validation batches of its test split."""

    def __init__(self, name: str, batch_size: int, *, seed: int, limit: int | None = None, hflip: bool = False) -> None:
        """Describe the data; files are read on first use.

        Args:
            name: One of `tcvq_data.dataset_names`.
            batch_size: Images per batch.
            seed: Seed of shuffles and mirroring.
            limit: Take at most the first ``limit`` samples of each split.
            hflip: Mirror half of the training images.
        """
        super().__init__()
        self._name, self._batch_size, self._seed, self._limit, self._hflip = name, batch_size, seed, limit, hflip
        self._sources: dict[str, ImageSource] = {}

    def source(self, split: str) -> ImageSource:
        """Return the samples of a split in their fixed order.

        Raises:
            ValueError: The dataset or the split is unknown.
            ArtifactError: Its files are damaged.
        """
        if split not in self._sources:
            self._sources[split] = open_dataset(self._name, split, limit=self._limit)
        return self._sources[split]

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes."""
        return self.source("train").classes

    @property
    def image_shape(self) -> tuple[int, ...]:
        """Shape of one image, such as ``(1, 28, 28)``."""
        return tuple(self.source("train")[0].image.shape)

    def train_dataloader(self) -> TensorBatches[Sample]:
        """Return shuffled batches ``Sample((B, C, H, W), (B,))``, all of the same size."""
        images, labels = _tensors(self.source("train"))
        return TensorBatches(Sample, images, labels, self._batch_size, seed=self._seed, hflip=self._hflip)

    def val_dataloader(self) -> TensorBatches[Sample]:
        """Return the whole test split in its fixed order."""
        return TensorBatches(Sample, *_tensors(self.source("test")), self._batch_size)


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

    def train_dataloader(self) -> TensorBatches[CodeBatch]:
        """Return shuffled batches ``CodeBatch((B, H, W), (B,))``, all of the same size."""
        codes = self.codes_train
        return TensorBatches(CodeBatch, codes.indices, codes.labels, self._batch_size, seed=self._seed)

    def val_dataloader(self) -> TensorBatches[CodeBatch]:
        """Return all validation codes in their fixed order."""
        return TensorBatches(CodeBatch, self.codes_val.indices, self.codes_val.labels, self._batch_size)


def _tensors(source: ImageSource) -> tuple[Tensor, Tensor]:
    """Return all images and labels of a source, which offers them as ``images`` and ``labels`` or one by one."""
    images, labels = getattr(source, "images", None), getattr(source, "labels", None)
    if images is not None and labels is not None:
        return images, labels
    samples = [source[i] for i in range(len(source))]
    return torch.stack([s.image for s in samples]), torch.stack([s.label for s in samples])
