"""Running a network over a whole dataset, so that no result depends on where a batch began."""

from collections.abc import Callable

import torch
from torch import Tensor

from tcvq_data import ImageSource, read_batch
from tcvq_runner.progress import Task
from tcvq_runner.wiring import Compute


def tensors(source: ImageSource) -> tuple[Tensor, Tensor]:
    """Return all images and labels of a dataset."""
    samples = read_batch(source, list(range(len(source))))
    return samples.image, samples.label


@torch.no_grad()
def in_batches(
    function: Callable[[Tensor], Tensor],
    items: Tensor | ImageSource,
    size: int,
    compute: Compute,
    *,
    task: Task | None = None,
    done: int = 0,
) -> Tensor:
    """Apply a network to many items in batches of exactly ``size``, and return the results on the CPU.

    The last batch is filled up with repeats: in float32 another batch shape can round a membrane to the other side of
    the threshold, so that an item's result would depend on its neighbours.

    Args:
        function: Maps ``(size, …)`` to ``(size, …)``.
        items: The items along axis 0, at least one; or a dataset, which is read batch by batch. Recordings are
            given to the function as ``(T, size, C, H, W)``.
        size: Items per batch.
        compute: Where to compute.
        task: Told the number of finished items, if given.
        done: Items that the task had finished before.
    """
    results = []
    for first in range(0, len(items), size):
        rows = torch.arange(first, first + size) % len(items)
        batch = items[rows] if isinstance(items, Tensor) else images_of(items, rows)
        results.append(function(batch.to(compute.device)).cpu())
        if task is not None:
            task.update(done + min(first + size, len(items)))
    return torch.cat(results)[: len(items)]


def images_of(source: ImageSource, rows: Tensor) -> Tensor:
    """Return some images of a dataset with time, where there is any, as the first axis."""
    images = read_batch(source, rows.tolist()).image
    return images.transpose(0, 1) if images.ndim == 5 else images
