"""Samples in the forms that people and other programs want: single files, films, strips, completed images."""

import io
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from tcvq_data import EventFrames, atomic_path, write_bytes
from tcvq_eval import event_gif, event_strips, image_grid
from tcvq_neurons import merge_time
from tcvq_runner.batching import in_batches
from tcvq_runner.completion import Completion
from tcvq_runner.drawing import Drawing
from tcvq_runner.recipe import ConfigError
from tcvq_runner.samples import Samples, to_bytes
from tcvq_runner.stages import codes_of
from tcvq_runner.wiring import Compute, open_split

FORMATS = ("png", "npz", "bin")
_SHOWN = 16  # recordings or images in a film
_STRIPS = 10  # rows of a picture of steps


def check_wishes(drawing: Drawing, formats: tuple[str, ...]) -> None:
    """Refuse what the run's images cannot be written as, before anything is drawn.

    Raises:
        ConfigError: Events were asked of still images.
    """
    if "bin" in formats and drawing.recipe.vqvae.encoding != "event":
        raise ConfigError("--format bin writes event recordings, but this run makes still images; use png or npz")


def write_files(
    folder: Path,
    samples: Samples,
    drawing: Drawing,
    compute: Compute,
    *,
    formats: tuple[str, ...] = (),
    grid: tuple[int, int] | None = None,
    gif: bool = False,
    unfold: bool = False,
) -> list[Path]:
    """Write what was asked for beside the samples.

    Args:
        folder: Where.
        samples: All of them.
        drawing: How they were drawn.
        compute: Computes the steps of still images.
        formats: ``png``: a file per image; ``npz``: one file of all; ``bin``: an event file per recording.
        grid: Columns and rows of a sheet in the order of the samples.
        gif: A film: recordings play; still images come into being step by step.
        unfold: A picture of all steps, one sample per row.

    Returns:
        The files and folders.

    Raises:
        OSError: One cannot be written.
    """
    events = samples.images.ndim == 5
    source = open_split(drawing.recipe, "train") if events else None
    counts = _counts(source, samples.images) if isinstance(source, EventFrames) else None
    made = []
    if grid is not None:
        made.append(_write(folder / "grid.png", _sheet(samples, counts, *grid)))
    if gif or unfold:
        steps = counts if counts is not None else _steps(drawing, samples.indices[:_SHOWN], compute)
        if gif:
            made.append(_write(folder / "samples.gif", _film(steps[:_SHOWN], events)))
        if unfold:
            made.append(_write(folder / "unfolded.png", _unfolded(steps[:_STRIPS], events, samples)))
    if "png" in formats:
        made.append(_images(folder / "images", samples, counts))
    if "npz" in formats:
        made.append(_archive(folder / "samples.npz", samples, counts))
    if "bin" in formats and isinstance(source, EventFrames):
        made.append(_recordings(folder / "events", samples, source))
    if drawing.completion is not None:
        made.append(_write(folder / "completion.png", completion_sheet(samples, drawing, drawing.completion)))
    return made


def completion_sheet(samples: Samples, drawing: Drawing, completion: Completion) -> bytes:
    """Return a PNG with a row per test image: the image, what was given of it, and its completions."""
    codes = codes_of(drawing.run, "test", drawing.plan.vqvae_sha256)
    source = open_split(drawing.recipe, "test")
    chosen = completion.chosen(codes)
    originals = torch.stack([source[int(i)].image for i in chosen])
    height, width = originals.shape[-2:]
    stacked = drawing.vqvae.config.n_steps if drawing.vqvae.config.codebook == "vanilla" else 1
    cells = completion.given(codes.indices.shape[1] // stacked, codes.indices.shape[2])
    pixels = cells.repeat_interleave(height // cells.shape[0], 0).repeat_interleave(width // cells.shape[1], 1)
    nothing = 0.0 if originals.ndim == 4 else -1.0  # grey; no event
    given = originals.masked_fill(~pixels, nothing)
    drawn = samples.images.unflatten(0, (completion.images, completion.ways))
    rows = torch.cat([originals[:, None], given[:, None], drawn], dim=1)  # (images, 2 + ways, …)
    names = [samples.classes[label] if samples.classes else "" for label in codes.labels[chosen].tolist()]
    if originals.ndim == 5:
        return event_strips(to_bytes(rows).long().sum(2), row_labels=names)  # events of all steps together
    return image_grid(rows.flatten(0, 1), completion.ways + 2, row_labels=names, scale=max(1, 64 // width))


def _counts(source: EventFrames, frames: Tensor) -> Tensor:
    """Return the events of each step and pixel."""
    peak = source.peak if source.peak is not None else int(source.counts([0]).max())
    return torch.cat([source.to_counts(part, peak=max(peak, 1)) for part in frames.split(256)])


def _steps(drawing: Drawing, indices: Tensor, compute: Compute) -> Tensor:
    """Return what still images are after 1, 2, … steps of the decoder, ``(N, T, C, H, W)``."""
    vqvae = drawing.vqvae

    def decode(grids: Tensor) -> Tensor:
        x_seq = vqvae.decoder(merge_time(vqvae.post_quant_conv, vqvae.codebook.lookup(grids)))
        return x_seq.transpose(0, 1)

    frames = in_batches(decode, indices, len(indices), compute)
    number = torch.arange(1, frames.shape[1] + 1).view(1, -1, 1, 1, 1)
    return (frames.cumsum(1) / number).clamp(-1, 1)


def _sheet(samples: Samples, counts: Tensor | None, columns: int, rows: int) -> bytes:
    shown = columns * rows
    if counts is None:
        return image_grid(samples.images[:shown], columns)
    return event_strips(counts[:rows])


def _film(steps: Tensor, events: bool) -> bytes:
    from PIL import Image

    if events:
        return event_gif(steps)
    sheets = [Image.open(io.BytesIO(image_grid(steps[:, t], 4))).convert("RGB") for t in range(steps.shape[1])]
    buffer = io.BytesIO()
    sheets[0].save(buffer, "GIF", save_all=True, append_images=sheets[1:], duration=400, loop=0)
    return buffer.getvalue()


def _unfolded(steps: Tensor, events: bool, samples: Samples) -> bytes:
    labels = samples.labels[: len(steps)].tolist()
    names = [samples.classes[label] for label in labels] if samples.classes and min(labels) >= 0 else []
    if events:
        return event_strips(steps, row_labels=names)
    return image_grid(steps.flatten(0, 1), steps.shape[1], row_labels=names)


def _images(folder: Path, samples: Samples, counts: Tensor | None) -> Path:
    """Write one PNG per sample: the image, or the strip of a recording."""
    from PIL import Image

    folder.mkdir(exist_ok=True)
    for i, image in enumerate(to_bytes(samples.images)):
        with atomic_path(folder / f"{i:06d}.png") as path:
            if counts is not None:
                path.write_bytes(event_strips(counts[i : i + 1], scale=1))
            else:
                Image.fromarray(image.permute(1, 2, 0).numpy().squeeze(-1) if len(image) == 1 else _colour(image)).save(
                    path
                )
    return folder


def _colour(image: Tensor) -> np.ndarray:
    return image.permute(1, 2, 0).numpy()


def _archive(path: Path, samples: Samples, counts: Tensor | None) -> Path:
    """Write all samples as numpy arrays, images with channels last."""
    pictures = to_bytes(samples.images).permute(0, 2, 3, 1) if counts is None else counts.clamp(max=65535)
    arrays = {
        "images" if counts is None else "counts": pictures.numpy().astype(np.uint8 if counts is None else np.uint16),
        "indices": samples.indices.numpy().astype(np.int32),
        "labels": samples.labels.numpy().astype(np.int32),
        "classes": np.array(samples.classes, dtype=np.str_),
    }
    with atomic_path(path) as temporary:
        np.savez_compressed(temporary, **arrays)  # type: ignore[arg-type]
    return path


def _recordings(folder: Path, samples: Samples, source: EventFrames) -> Path:
    """Write one event file per recording; within a step the times are random, by the number of the sample."""
    folder.mkdir(exist_ok=True)
    peak = None if source.peak is not None else max(int(source.counts([0]).max()), 1)
    for i, frames in enumerate(samples.images):
        source.export_events(frames, folder / f"{i:06d}.bin", peak=peak, seed=i)
    return folder


def _write(path: Path, data: bytes) -> Path:
    write_bytes(path, data)
    return path
