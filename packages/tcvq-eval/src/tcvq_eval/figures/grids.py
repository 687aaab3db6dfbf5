"""Grids of images as PNG: pixels repeated, never interpolated, with labels to the left of the rows."""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from .style import DPI, INK, blank_figure, figure_bytes


def _tiles(images: Tensor, scale: int) -> UInt8[np.ndarray, "N H W 3"]:
    """Turn images in [-1, 1] into 8-bit colour tiles, each pixel a square of ``scale`` pixels.

    Raises:
        ValueError: The images have neither one nor three channels, or there is none.
    """
    if images.shape[1] not in (1, 3) or not len(images):
        raise ValueError(f"a picture needs images (N, 1 or 3, H, W), at least one; got {tuple(images.shape)}")
    pixels = ((images.detach().cpu().float().nan_to_num().clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)
    pixels = pixels.expand(-1, 3, -1, -1).permute(0, 2, 3, 1)
    return pixels.repeat_interleave(scale, dim=1).repeat_interleave(scale, dim=2).numpy()


def compose(tiles: np.ndarray, places: Sequence[tuple[int, int]], gutter: int) -> UInt8[np.ndarray, "H W 3"]:
    """Paste each tile with its top left corner at its place (y, x) on white paper."""
    height, width = tiles.shape[1:3]
    canvas = np.full((max(y for y, _ in places) + height + gutter, max(x for _, x in places) + width + gutter, 3), 255)
    canvas = canvas.astype(np.uint8)
    for tile, (y, x) in zip(tiles, places, strict=True):
        canvas[y : y + height, x : x + width] = tile
    return canvas


def labelled_png(
    canvas: np.ndarray,
    labels: Sequence[tuple[float, str]] = (),
    tile_height: int = 0,
    *,
    legend: Sequence[tuple[str, str]] = (),
) -> bytes:
    """Write a picture pixel by pixel, with right-aligned labels at the heights y to the left of it, a legend below.

    The labels grow with the tiles, so that they stay readable when the picture is shrunk to a phone's width.
    """
    height, width = canvas.shape[:2]
    points = min(max(0.15 * tile_height, 8), 14)
    margin = 16 + round(0.85 * points * max(len(text) for _, text in labels)) if labels else 0
    foot = round(2.5 * points) if legend else 0
    with blank_figure((width + margin) / DPI, (height + foot) / DPI) as figure:
        figure.figimage(canvas, xo=margin, yo=foot, origin="upper")
        for y, text in labels:
            x = (margin - 8) / (width + margin)
            figure.text(x, 1 - y / (height + foot), text, ha="right", va="center", fontsize=points, color=INK)
        for i, (text, colour) in enumerate(legend):
            x, y = (margin + 6 + 4 * i * points) / (width + margin), foot / 2 / (height + foot)
            figure.text(x, y, text, va="center", fontsize=points, color=colour, weight="bold")
        return figure_bytes(figure, "png")


def image_grid(
    images: Float[Tensor, "N C H W"],
    cols: int = 8,
    *,
    row_labels: Sequence[str] = (),
    scale: int = 2,
    gutter: int = 4,
) -> bytes:
    """Lay images out in rows.

    Args:
        images: Values in [-1, 1], clamped here; one or three channels.
        cols: Images per row.
        row_labels: Text to the left of each row, or none.
        scale: Side of a square that one pixel becomes.
        gutter: White pixels between images.

    Returns:
        A PNG, sharp at any size since pixels are repeated, never interpolated.

    Raises:
        ValueError: No image, a wrong number of channels, or labels that do not match the rows.
    """
    rows = -(-len(images) // cols)
    if row_labels and len(row_labels) != rows:
        raise ValueError(f"{len(row_labels)} row labels for {rows} rows; pass one per row or none")
    tiles = _tiles(images, scale)
    step_y, step_x = tiles.shape[1] + gutter, tiles.shape[2] + gutter
    places = [(gutter + i // cols * step_y, gutter + i % cols * step_x) for i in range(len(tiles))]
    centres = [(gutter + row * step_y + tiles.shape[1] / 2, text) for row, text in enumerate(row_labels)]
    return labelled_png(compose(tiles, places, gutter), centres, tiles.shape[1])


def class_grid(
    images: Float[Tensor, "N C H W"],
    labels: Int[Tensor, " N"],
    classes: Sequence[str],
    *,
    per_class: int = 8,
    scale: int = 2,
) -> bytes:
    """Lay images out with one labelled row per class, the first ``per_class`` of each; missing ones stay white.

    Raises:
        ValueError: A label has no name in ``classes``.
    """
    if len(labels) and (labels.min() < 0 or labels.max() >= len(classes)):
        raise ValueError(f"labels span {labels.min()} to {labels.max()}; there are {len(classes)} class names")
    blank = torch.ones_like(images[:1])
    rows = []
    for c in range(len(classes)):
        row = images[labels.to(images.device) == c][:per_class]
        rows.append(torch.cat([row, blank.expand(per_class - len(row), -1, -1, -1)]))
    return image_grid(torch.cat(rows), per_class, row_labels=classes, scale=scale)


def reconstruction_grid(
    x: Float[Tensor, "N C H W"],
    x_hat: Float[Tensor, "M C H W"],
    cols: int = 8,
    *,
    names: tuple[str, str] = ("input", "output"),
    scale: int = 2,
    gutter: int = 4,
) -> bytes:
    """Lay pairs out: each row of ``x`` directly above its row of ``x_hat``, with a wider gap before the next pair.

    Returns:
        A PNG; arguments and errors as for ``image_grid``.
    """
    if x.shape != x_hat.shape:
        raise ValueError(f"pairs need equal shapes; got {tuple(x.shape)} and {tuple(x_hat.shape)}")
    top, bottom = _tiles(x, scale), _tiles(x_hat, scale)
    height, width = top.shape[1:3]
    pair = 2 * height + gutter + 3 * gutter

    def place(i: int, below: int) -> tuple[int, int]:
        return gutter + i // cols * pair + below * (height + gutter), gutter + i % cols * (width + gutter)

    places = [place(i, below) for below in (0, 1) for i in range(len(x))]
    labels = [(place(i, below)[0] + height / 2, names[below]) for below in (0, 1) for i in range(0, len(x), cols)]
    return labelled_png(compose(np.concatenate([top, bottom]), places, gutter), labels, height)
