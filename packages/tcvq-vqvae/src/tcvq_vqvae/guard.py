"""Stopping where a number stops being one: the message says step and term, the batch is kept for a look."""

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from tcvq_data import Sample, write_artifact

SCHEMA = "tcvq.debug-batch/1"


def not_finite(
    values: Mapping[str, float], step: int, batch: Sample, path: Path | None, *, rank: int = 0
) -> FloatingPointError:
    """Return the error for values of which one is NaN or infinite, after writing the batch that made it.

    Args:
        values: The values by name.
        step: Updates of the autoencoder before this batch.
        batch: The batch; written as ``image`` and ``label``.
        path: Where to write it, atomically; None does not write.
        rank: Process that saw it; named by ranks above 0, which write beside the file of rank 0.
    """
    shown = ", ".join(f"{name} = {value:.4g}" for name, value in values.items())
    where = ""
    if path is not None:
        path = path.with_stem(f"{path.stem}-{rank}") if rank else path
        tensors: dict[str, Tensor] = {"image": batch.image, "label": batch.label}
        meta = {"step": step, "rank": rank, "values": {name: repr(value) for name, value in values.items()}}
        try:
            write_artifact(path, tensors, schema=SCHEMA, meta=meta)
            where = f"; the batch is in {path}"
        except OSError as error:
            where = f"; the batch could not be written to {path} ({error.strerror})"
    return FloatingPointError(
        f"stage 1: the loss is not finite at batch {step}: {shown}{where}; "
        "lower stage1.learning_rate or set stage1.grad_clip"
    )
