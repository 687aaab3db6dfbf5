"""Running a network over a whole dataset, so that no result depends on where a batch began."""

from collections.abc import Callable

import torch
from torch import Tensor

from tcvq_data import ImageSource
from tcvq_runner.progress import Task
from tcvq_runner.wiring import Compute


def tensors(source: ImageSource) -> tuple[Tensor, Tensor]:
    """Return all images and labels of a dataset."""
    samples = [source[i] for i in range(len(source))]
    return torch.stack([s.image for s in samples]), torch.stack([s.label for s in samples])


@torch.no_grad()
def in_batches(
    function: Callable[[Tensor], Tensor],
    items: Tensor,
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
        items: The items along axis 0, at least one.
        size: Items per batch.
        compute: Where to compute.
        task: Told the number of finished items, if given.
        done: Items that the task had finished before.
    """
    results = []
    for first in range(0, len(items), size):
        rows = torch.arange(first, first + size) % len(items)
        results.append(function(items[rows].to(compute.device)).cpu())
        if task is not None:
            task.update(done + min(first + size, len(items)))
    return torch.cat(results)[: len(items)]
