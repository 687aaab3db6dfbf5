"""Batches whose order is a pure function of seed and epoch: sharded over ranks, resumable in the middle of an epoch."""

import math
import os
import warnings
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.distributed
from jaxtyping import Bool, Int
from torch import Tensor
from torch.utils.data import Dataset, DistributedSampler
from torchdata.stateful_dataloader import StatefulDataLoader

from tcvq_data.interface import ImageSource, Sample

MAX_WORKERS = 8


class Pick(NamedTuple):
    """What one batch is made of.

    Attributes:
        positions: Of samples in the dataset.
        mirrored: Which of them are mirrored, None if never any.
    """

    positions: list[int]
    mirrored: list[bool] | None


def epoch_order(n: int, *, seed: int, epoch: int) -> Int[Tensor, " n"]:
    """Return the permutation of ``0 … n - 1`` that belongs to ``seed`` and ``epoch``, and to nothing else."""
    return torch.from_numpy(np.random.default_rng([seed, epoch]).permutation(n))


def epoch_flips(n: int, *, seed: int, epoch: int) -> Bool[Tensor, " n"]:
    """Return which of ``n`` samples are mirrored in this epoch: a fair coin each, independent of the order."""
    return torch.from_numpy(np.random.default_rng([seed, epoch, 1]).random(n) < 0.5)


class EpochSampler(DistributedSampler[Pick]):
    """The batches of one epoch; Lightning calls ``set_epoch`` of ``loader.sampler`` before each.

    Shuffled epochs leave the last samples out that do not fill a batch on every rank, so that all ranks take equally
    many steps of equal size; the batches of W ranks side by side are those of one rank with W times the batch size.
    Epochs in order visit every sample once, whatever the number of ranks; theirs may then differ by one batch.
    """

    def __init__(
        self, n: int, batch_size: int, *, seed: int | None, hflip: bool = False, rank: int = 0, world_size: int = 1
    ) -> None:
        """Make a sampler at epoch 0.

        Args:
            n: Number of samples.
            batch_size: Samples per batch and rank.
            seed: Non-negative seed of shuffles and mirroring, or None for the order of the dataset.
            hflip: Mirror half of the samples, others in each epoch; needs a seed.
            rank: Number of this process.
            world_size: Number of processes.

        Raises:
            ValueError: The batch size is not positive, or larger than the data are when shuffling; a seed is negative,
                or missing although ``hflip`` is set.
        """
        most = n if seed is None else n // world_size
        if batch_size < 1 or (seed is not None and batch_size > most):
            ranks = f", {n} on {world_size} ranks" if world_size > 1 else ""
            raise ValueError(f"batch_size={batch_size} must be between 1 and the number of samples, {most}{ranks}")
        if hflip and seed is None:
            raise ValueError("hflip=True needs a seed")
        if seed is not None and seed < 0:
            raise ValueError(f"seed={seed} must not be negative")
        super().__init__(_Sized(n), world_size, rank, shuffle=seed is not None)
        self.n, self.batch_size, self.order_seed, self.hflip = n, batch_size, seed, hflip

    def __len__(self) -> int:
        """Number of batches of this rank in one epoch."""
        if self.order_seed is None:
            return math.ceil(len(range(self.rank, self.n, self.num_replicas)) / self.batch_size)
        return self.n // (self.batch_size * self.num_replicas)

    def __iter__(self) -> Iterator[Pick]:
        """Yield the batches of the present epoch."""
        if self.order_seed is None:
            mine = torch.arange(self.rank, self.n, self.num_replicas)
            yield from (Pick(part.tolist(), None) for part in torch.split(mine, self.batch_size) if len(part))
            return
        order = epoch_order(self.n, seed=self.order_seed, epoch=self.epoch)
        flips = epoch_flips(self.n, seed=self.order_seed, epoch=self.epoch) if self.hflip else None
        whole = len(self) * self.num_replicas * self.batch_size
        for index in order[:whole].view(-1, self.num_replicas, self.batch_size)[:, self.rank]:
            yield Pick(index.tolist(), None if flips is None else flips[index].tolist())


class Batches(StatefulDataLoader):  # type: ignore[misc]  # torchdata has no type hints
    """A loader of whole batches; ``state_dict`` and ``load_state_dict`` stop and go on anywhere, epoch included."""

    sampler: EpochSampler

    def __init__(self, items: Dataset[Any], sampler: EpochSampler, *, workers: int = 0) -> None:
        """Make a loader.

        Args:
            items: The data: maps a `Pick` to a batch.
            sampler: Says which samples make which batch.
            workers: Processes that read ahead; 0 reads in this one. Nothing in them is random.
        """
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", ".*set_vital.* is deprecated")  # torchdata 0.11 against torch 2.15
            super().__init__(
                items,
                batch_size=None,
                sampler=sampler,
                num_workers=workers,
                collate_fn=_as_it_is,
                pin_memory=torch.cuda.is_available(),
                persistent_workers=workers > 0,
                generator=torch.Generator().manual_seed(sampler.order_seed or 0),
            )

        self._epoch, self._taken, self._skipped = sampler.epoch, 0, 0

    def __iter__(self) -> Iterator[Any]:
        """Yield the batches of the sampler's epoch, from where `load_state_dict` put the loader."""
        self._epoch, self._taken, self._skipped = self.sampler.epoch, self._skipped, 0
        for batch in super().__iter__():
            self._taken += 1
            yield batch

    def state_dict(self) -> dict[str, Any]:
        """Return the epoch and the place in it; the end of an epoch is the beginning of the next."""
        if self._taken == 0 or self._epoch != self.sampler.epoch:
            return {"epoch": self.sampler.epoch, "taken": 0, "loader": {}}
        if self._taken == len(self.sampler):
            return {"epoch": self._epoch + 1, "taken": 0, "loader": {}}
        return {"epoch": self._epoch, "taken": self._taken, "loader": super().state_dict()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on where `state_dict` was taken, at the next ``iter``; ``sampler.epoch`` tells the epoch."""
        self.sampler.set_epoch(state_dict["epoch"])
        self._epoch, self._taken, self._skipped = state_dict["epoch"], 0, state_dict["taken"]
        super().load_state_dict(state_dict["loader"])


def process_rank() -> tuple[int, int]:
    """Return the number of this process and how many there are, 0 and 1 without a process group."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return torch.distributed.get_rank(), torch.distributed.get_world_size()
    return 0, 1


def default_workers(source: ImageSource) -> int:
    """Return how many processes should decode: none for sources that are fast, else one per usable CPU but one."""
    if hasattr(source, "batch"):
        return 0
    return min(max(len(os.sched_getaffinity(0)) - 1, 1), MAX_WORKERS)


def read_batch(source: ImageSource, index: list[int]) -> Sample:
    """Return the samples at some positions, stacked: ``Sample((B, …), (B,))``."""
    together = getattr(source, "batch", None)
    if together is not None:
        return together(index)
    samples = [source[i] for i in index]
    return Sample(torch.stack([s.image for s in samples]), torch.stack([s.label for s in samples]))


class ImageItems(Dataset[Sample]):
    """Batches of an image source, mirrored where the sampler says so."""

    def __init__(self, source: ImageSource) -> None:
        self.source = source

    def __len__(self) -> int:
        """Number of samples."""
        return len(self.source)

    def __getitem__(self, pick: Pick) -> Sample:
        """Return ``Sample((B, …), (B,))``."""
        image, label = read_batch(self.source, pick.positions)
        if pick.mirrored is not None:
            mirrored = torch.tensor(pick.mirrored)
            image = torch.where(mirrored.view(-1, *(1,) * (image.ndim - 1)), image.flip(-1), image)
        return Sample(image, label)


class _Sized(Dataset[Pick]):
    """A length, which is all that torch's distributed sampler asks of a dataset."""

    def __init__(self, n: int) -> None:
        self.n = n

    def __len__(self) -> int:
        return self.n


def _as_it_is(batch: Any) -> Any:
    return batch
