"""Fast batches of data in memory, whose order is a pure function of seed and epoch."""

from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

import numpy as np
import torch
from jaxtyping import Bool, Int, Shaped
from torch import Tensor

BatchT = TypeVar("BatchT")


def epoch_order(n: int, *, seed: int, epoch: int) -> Int[Tensor, " n"]:
    """Return the permutation of ``0 … n − 1`` that belongs to ``seed`` and ``epoch``, and to nothing else."""
    return torch.from_numpy(np.random.default_rng([seed, epoch]).permutation(n))


def epoch_flips(n: int, *, seed: int, epoch: int) -> Bool[Tensor, " n"]:
    """Return which of ``n`` samples are mirrored in this epoch: a fair coin each, independent of the order."""
    return torch.from_numpy(np.random.default_rng([seed, epoch, 1]).random(n) < 0.5)


class EpochSampler:
    """The order of one pass over the data; Lightning calls ``set_epoch`` of ``loader.sampler`` before each epoch."""

    def __init__(self, n: int, *, seed: int | None) -> None:
        """Make a sampler at epoch 0.

        Args:
            n: Number of samples.
            seed: Non-negative seed of the shuffles, or None for the order of the dataset.

        Raises:
            ValueError: The seed is negative.
        """
        if seed is not None and seed < 0:
            raise ValueError(f"seed={seed} must not be negative")
        self.n, self.seed, self.epoch = n, seed, 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the shuffle of the next pass."""
        self.epoch = epoch

    def order(self) -> Int[Tensor, " n"]:
        """Return the positions of the samples in the order of the present epoch."""
        if self.seed is None:
            return torch.arange(self.n)
        return epoch_order(self.n, seed=self.seed, epoch=self.epoch)


class TensorBatches(Generic[BatchT]):
    """Batches indexed out of two tensors: no workers, no collation, no random state but seed and epoch.

    Every ``iter`` runs through the epoch set by ``loader.sampler.set_epoch(epoch)``, 0 at first. Shuffled passes leave
    the last incomplete batch out; passes in order keep it.
    """

    batch_sampler = None  # as in a DataLoader that does not batch; Lightning asks for it where there is a sampler

    def __init__(
        self,
        make: Callable[[Tensor, Tensor], BatchT],
        data: Shaped[Tensor, "N *shape"],
        labels: Int[Tensor, " N"],
        batch_size: int,
        *,
        seed: int | None = None,
        hflip: bool = False,
    ) -> None:
        """Make a loader.

        Args:
            make: Builds the batch out of ``data[i]`` and ``labels[i]``.
            data: One item per sample.
            labels: One class per sample.
            batch_size: Samples per batch.
            seed: Seed of the shuffles, or None for the order of the data.
            hflip: Mirror half of the items along their last axis, others in each epoch; needs a seed.

        Raises:
            ValueError: The batch size is not positive, or larger than the data are when shuffling; a seed is negative,
                or missing although ``hflip`` is set.
        """
        if batch_size < 1 or (seed is not None and batch_size > len(data)):
            raise ValueError(f"batch_size={batch_size} must be between 1 and the number of samples, {len(data)}")
        if hflip and seed is None:
            raise ValueError("hflip=True needs a seed")
        self._make, self._data, self._labels = make, data, labels
        self.batch_size, self.hflip = batch_size, hflip
        self.sampler = EpochSampler(len(data), seed=seed)

    def __len__(self) -> int:
        """Number of batches in one pass."""
        whole, rest = divmod(self.sampler.n, self.batch_size)
        return whole + (rest > 0 and self.sampler.seed is None)

    def __iter__(self) -> Iterator[BatchT]:
        """Yield the batches of the present epoch."""
        seed, epoch = self.sampler.seed, self.sampler.epoch
        flips = epoch_flips(self.sampler.n, seed=seed, epoch=epoch) if self.hflip and seed is not None else None
        for index in torch.split(self.sampler.order(), self.batch_size)[: len(self)]:
            data = self._data[index]
            if flips is not None:
                mirrored = flips[index]
                data[mirrored] = data[mirrored].flip(-1)
            yield self._make(data, self._labels[index])
