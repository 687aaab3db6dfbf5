"""Plots as SVG or PNG: training curves and the use of a codebook."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from .style import INK, PALETTE, blank_figure, figure_bytes


@dataclass(frozen=True, kw_only=True, slots=True)
class Curve:
    """One line of a plot.

    Attributes:
        name: What the legend says.
        steps: Horizontal positions, increasing.
        values: Values at these steps; not-a-number leaves a gap.
        panel: Curves of one panel share an axis; the panel's title.
        log: Draw the panel on a logarithmic scale (if all of its values are positive).
    """

    name: str
    steps: Sequence[int | float]
    values: Sequence[int | float]
    panel: str = ""
    log: bool = False


def _smooth(values: np.ndarray, window: int) -> np.ndarray:
    """Return the running mean over ``window`` values, shorter at both ends; gaps stay out of the means."""
    kernel, known = np.ones(window), np.isfinite(values)
    count = np.convolve(known, kernel, mode="same")
    total = np.convolve(np.where(known, values, 0.0), kernel, mode="same")
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def loss_curves(curves: Sequence[Curve], *, kind: Literal["png", "svg"] = "svg") -> bytes:
    """Draw curves against training steps, one panel per ``Curve.panel`` in order of first appearance.

    Curves of more than 100 points are drawn faintly, with their running mean in full colour on top.

    Raises:
        ValueError: There is no curve, or a curve's steps and values differ in number.
    """
    if not curves:
        raise ValueError("loss_curves needs at least one curve")
    for curve in curves:
        if len(curve.steps) != len(curve.values):
            raise ValueError(f"curve {curve.name!r} has {len(curve.steps)} steps but {len(curve.values)} values")
    panels = list(dict.fromkeys(curve.panel for curve in curves))
    columns = min(2, len(panels))
    rows = -(-len(panels) // columns)
    with blank_figure(4.6 * columns, 2.9 * rows) as figure:
        for i, panel in enumerate(panels):
            axes = figure.add_subplot(rows, columns, i + 1)
            _draw_panel(axes, panel, [curve for curve in curves if curve.panel == panel])
        figure.tight_layout(pad=1.2)
        return figure_bytes(figure, kind)


def _draw_panel(axes: Any, title: str, curves: Sequence[Curve]) -> None:
    """Draw the curves of one panel on matplotlib's axes."""
    axes.set_title(title)
    axes.set_xlabel("step")
    for colour, curve in zip(PALETTE * len(curves), curves, strict=False):
        values = np.asarray(curve.values, dtype=float)
        if len(values) > 100:
            axes.plot(curve.steps, values, color=colour, alpha=0.22, linewidth=0.8)
            values = _smooth(values, max(3, len(values) // 40))
        axes.plot(curve.steps, values, color=colour, linewidth=1.8, label=curve.name)
    positive = all(v > 0 for curve in curves for v in curve.values if np.isfinite(v))
    if positive and any(curve.log for curve in curves):
        axes.set_yscale("log")
    if len(curves) > 1 or not title.endswith(curves[0].name):
        axes.legend(fontsize=9, handlelength=1.4)


def code_usage_plot(counts: Sequence[int], *, kind: Literal["png", "svg"] = "svg") -> bytes:
    """Draw how often each code is used, most used first, beside the line of equal use.

    Raises:
        ValueError: There is no code, or nothing was counted.
    """
    ranked = np.sort(np.asarray(counts, dtype=float))[::-1]
    if not ranked.sum() > 0:
        raise ValueError("code_usage_plot needs the counts of at least one used code")
    share = 100 * ranked / ranked.sum()
    used = int((ranked > 0).sum())
    with blank_figure(9.2, 2.9) as figure:
        axes = figure.add_subplot()
        axes.set_title(f"{used} of {len(ranked)} codes used")
        axes.fill_between(np.arange(len(ranked)) + 1, share, step="mid", color=PALETTE[0], alpha=0.85, linewidth=0)
        axes.axhline(100 / len(ranked), color=INK, linewidth=1.2, linestyle=(0, (4, 3)), label="equal use")
        axes.set_xlabel("code, most used first")
        axes.set_ylabel("% of all indices")
        axes.set_xlim(0.5, len(ranked) + 0.5)
        axes.set_ylim(bottom=0)
        axes.legend(fontsize=9)
        figure.tight_layout(pad=1.2)
        return figure_bytes(figure, kind)
