"""Recordings as pictures: a strip of all steps as PNG, and the steps one after the other as GIF."""

import io
from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Num, UInt8
from torch import Tensor

from .grids import compose, labelled_png
from .style import INK, PALETTE, PAPER, blank_figure, figure_bytes

ON, OFF = PALETTE[1], PALETTE[0]
_CAPTION = 22  # height in pixels of the GIF's legend


def event_tiles(counts: Num[Tensor, "*B 2 H W"], scale: int = 1) -> UInt8[np.ndarray, "*B h w 3"]:
    """Colour counts of events: OFF blue, ON orange, paler where there are fewer, white where there is nothing.

    The share of full colour is the square root of count / largest count, so that single events can be seen.

    Args:
        counts: Numbers of OFF and ON events, at least 0; channel 0 is OFF.
        scale: Side of a square that one pixel becomes.
    """
    strength = (counts.clamp_min(0).float() / counts.max().clamp_min(1)).sqrt()
    paper, off, on = (_rgb(colour) for colour in (PAPER, OFF, ON))
    ink = strength[..., 0, :, :, None] * (paper - off) + strength[..., 1, :, :, None] * (paper - on)
    pixels = ((paper - ink).clamp(0, 1) * 255).round().to(torch.uint8)
    return pixels.repeat_interleave(scale, dim=-3).repeat_interleave(scale, dim=-2).numpy()


def event_strips(
    counts: Num[Tensor, "N T 2 H W"], *, row_labels: Sequence[str] = (), scale: int = 3, gutter: int = 4
) -> bytes:
    """Lay recordings out, one per row, their steps from left to right.

    Args:
        counts: Numbers of events per step; see `event_tiles`.
        row_labels: Text to the left of each row; a legend of the two colours comes below.
        scale: Side of a square that one pixel becomes.
        gutter: White pixels between steps.

    Returns:
        A PNG.

    Raises:
        ValueError: There is no recording, or the labels do not match the rows.
    """
    n, steps = counts.shape[:2]
    if not n or (row_labels and len(row_labels) != n):
        raise ValueError(f"{len(row_labels)} row labels for {n} recordings; pass one per recording, or none")
    tiles = np.concatenate([event_tiles(recording, scale) for recording in counts])
    height, width = tiles.shape[1:3]
    places = [
        (gutter + i // steps * (height + gutter), gutter + i % steps * (width + gutter)) for i in range(len(tiles))
    ]
    labels = [(gutter + row * (height + gutter) + height / 2, text) for row, text in enumerate(row_labels)]
    return labelled_png(compose(tiles, places, gutter), labels, height, legend=[("ON", ON), ("OFF", OFF)])


def event_gif(
    counts: Num[Tensor, "N T 2 H W"], *, cols: int = 4, scale: int = 4, gutter: int = 4, frame_ms: int = 125
) -> bytes:
    """Play recordings side by side.

    Args:
        counts: Numbers of events per step; see `event_tiles`.
        cols: Recordings per row.
        scale: Side of a square that one pixel becomes.
        gutter: White pixels between recordings.
        frame_ms: Milliseconds per step.

    Returns:
        An endless GIF of T frames, with a legend of the two colours and the number of the step.

    Raises:
        ValueError: There is no recording.
    """
    from PIL import Image

    if not len(counts):
        raise ValueError("a GIF needs at least one recording")
    tiles = np.stack([event_tiles(recording, scale) for recording in counts])
    height, width = tiles.shape[2:4]
    places = [(gutter + i // cols * (height + gutter), gutter + i % cols * (width + gutter)) for i in range(len(tiles))]
    frames = []
    for step in range(tiles.shape[1]):
        canvas = compose(tiles[:, step], places, gutter)
        caption = _caption(canvas.shape[1], f"step {step + 1} of {tiles.shape[1]}")
        frames.append(Image.fromarray(np.concatenate([canvas, caption])))
    buffer = io.BytesIO()
    frames[0].save(buffer, "GIF", save_all=True, append_images=frames[1:], duration=frame_ms, loop=0)
    return buffer.getvalue()


def _caption(width: int, text: str) -> UInt8[np.ndarray, "h w 3"]:
    """Return the line below a frame: legend and step."""
    from PIL import Image

    with blank_figure(width / 100, _CAPTION / 100) as figure:
        for x, (name, colour) in zip((6, 38), (("ON", ON), ("OFF", OFF)), strict=True):
            figure.text(x / width, 0.5, name, va="center", fontsize=8, color=colour, weight="bold")
        figure.text(1 - 6 / width, 0.5, text, va="center", ha="right", fontsize=8, color=INK)
        line = Image.open(io.BytesIO(figure_bytes(figure, "png"))).convert("RGB")
    return np.asarray(line)


def _rgb(colour: str) -> Tensor:
    """Return a colour such as ``#2f5fd0`` as three shares of 1."""
    return torch.tensor([int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)])
