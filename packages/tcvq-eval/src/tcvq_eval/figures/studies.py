"""Figures of the studies: what destroying time does, and measures of several variants side by side."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from .style import INK, MUTED, PALETTE, PAPER, blank_figure, figure_bytes

_WIDE = 20  # times the smallest distance, from which on a linear axis hides it


def destruction_plot(
    changes: Mapping[str, Mapping[str, int | float]],
    distances: Mapping[str, int | float],
    noise_floor: int | float | None = None,
    *,
    kind: Literal["png", "svg"] = "svg",
) -> bytes:
    """Draw how much images change in each mode, and where known their distance to real ones.

    Args:
        changes: Mean change for each mode, one mapping per titled set of codes; the modes of the first are shown.
        distances: Fréchet distance for each mode, or nothing.
        noise_floor: The distance of real to real images, a dashed line.
        kind: File format.

    Raises:
        ValueError: There is no set of codes.
    """
    if not changes:
        raise ValueError("destruction_plot needs the changes of at least one set of codes")
    modes = list(next(iter(changes.values())))
    with blank_figure(9.6 if distances else 6.4, 3.2) as figure:
        axes = figure.add_subplot(1, 2 if distances else 1, 1)
        height = 0.8 / len(changes)
        for i, (title, values) in enumerate(changes.items()):
            places = np.arange(len(modes)) + (i - (len(changes) - 1) / 2) * height
            axes.barh(places, [values[mode] for mode in modes], height=height, color=PALETTE[i], label=title)
        _modes_axis(axes, modes, "mean absolute change to none")
        axes.legend(fontsize=9, ncols=len(changes), loc="lower left", bbox_to_anchor=(0, 1), borderaxespad=0.2)
        if distances:
            axes = figure.add_subplot(1, 2, 2)
            widths = [float(distances[mode]) for mode in modes]
            bars = axes.barh(np.arange(len(modes)), widths, height=0.62, color=PALETTE[0])
            axes.bar_label(bars, fmt="%.3g", padding=3, fontsize=8.5, color=INK)
            logarithmic = min(widths) > 0 and max(widths) > _WIDE * min(widths)
            if logarithmic:
                axes.set_xscale("log")
                axes.set_xlim(min([*widths, noise_floor or math.inf]) / 2, 3 * max(widths))
            else:
                axes.margins(x=0.15)
            if noise_floor is not None:
                axes.axvline(noise_floor, color=INK, linewidth=1.2, linestyle=(0, (4, 3)), label="real against real")
                axes.legend(fontsize=9, loc="lower left", bbox_to_anchor=(0, 1), borderaxespad=0.2)
            _modes_axis(axes, modes, f"Fréchet distance{', logarithmic' if logarithmic else ''}")
        figure.tight_layout(pad=1.2)
        return figure_bytes(figure, kind)


def _modes_axis(axes: Any, modes: Sequence[str], label: str) -> None:
    axes.set_yticks(range(len(modes)), modes)
    axes.invert_yaxis()
    axes.grid(visible=True, axis="x")
    axes.grid(visible=False, axis="y")
    axes.set_xlabel(label)


@dataclass(frozen=True, kw_only=True, slots=True)
class Bars:
    """One measure of several variants.

    Attributes:
        title: What is measured, and which direction is better.
        values: For each variant one value per repetition; bars are means, dots the repetitions.
        noise_floor: A dashed line: what real data score against real data.
    """

    title: str
    values: Mapping[str, Sequence[int | float]]
    noise_floor: int | float | None = None


def variants_plot(panels: Sequence[Bars], *, kind: Literal["png", "svg"] = "svg") -> bytes:
    """Draw measures of variants, one panel per measure.

    Raises:
        ValueError: There is no panel.
    """
    if not panels:
        raise ValueError("variants_plot needs at least one measure")
    columns = min(3, len(panels))
    rows = -(-len(panels) // columns)
    with blank_figure(3.3 * columns, 2.8 * rows) as figure:
        for i, panel in enumerate(panels):
            axes = figure.add_subplot(rows, columns, i + 1)
            for x, values in enumerate(panel.values.values()):
                mean = float(np.mean(values)) if len(values) else 0.0
                axes.bar(x, mean, width=0.6, color=PALETTE[x % len(PALETTE)])
                axes.annotate(
                    f"{mean:.3g}",
                    (x, max(mean, *values) if len(values) else mean),
                    xytext=(0, 4),
                    textcoords="offset points",
                    ha="center",
                    fontsize=8.5,
                    color=INK,
                    bbox={"facecolor": PAPER, "edgecolor": "none", "pad": 0.8},
                    zorder=4,  # the dashed line passes under it
                )
                if len(values) > 1:
                    axes.scatter([x] * len(values), values, s=14, color=MUTED, zorder=3)
            if panel.noise_floor is not None:
                axes.axhline(panel.noise_floor, color=INK, linewidth=1.2, linestyle=(0, (4, 3)))
            axes.set_title(panel.title, fontsize=10)
            axes.set_xticks(range(len(panel.values)), list(panel.values), fontsize=8.5)
            axes.margins(y=0.18)
        figure.tight_layout(pad=1.2)
        return figure_bytes(figure, kind)
