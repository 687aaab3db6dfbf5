"""The time-cell figure: who peaks when (A), along which paths (B), and how strongly codes move (C)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from .style import INK, MUTED, PALETTE, PAPER, blank_figure, figure_bytes

_ROWS = 600  # of a raster, more than a picture can show
_PATHS = 16


@dataclass(frozen=True, kw_only=True, slots=True)
class TimeCellPanels:
    """What the figure shows, as arrays.

    Attributes:
        rasters: Titled activities of sorted units over steps, values in [0, 1]: the trained network, the permuted null,
            a network with random weights.
        peak_counts: Units that peak at each step.
        null_low: Lower end of what permuted steps give.
        null_high: Upper end.
        paths: Entries on their first two principal components, most used first.
        explained: Share of variance along each of the two.
        profiles: Titled values per step, such as quantisation error and norm.
        variance_shares: Temporal variance share of each network by its title.
    """

    rasters: Mapping[str, Float[Tensor, "U T"]]
    peak_counts: Sequence[int | float]
    null_low: Sequence[int | float]
    null_high: Sequence[int | float]
    paths: Float[Tensor, "K T 2"]
    explained: Sequence[int | float]
    profiles: Mapping[str, Sequence[int | float]]
    variance_shares: Mapping[str, int | float]


def time_cell_figure(panels: TimeCellPanels, *, kind: Literal["png", "svg"] = "svg") -> bytes:
    """Draw the three panels, each raster beside its controls.

    Raises:
        ValueError: There is no raster.
    """
    if not panels.rasters:
        raise ValueError("the time-cell figure needs at least one raster")
    columns = max(3, len(panels.rasters))
    with blank_figure(3.5 * columns, 7.4) as figure:
        for i, (title, raster) in enumerate(panels.rasters.items()):
            axes = figure.add_subplot(2, columns, i + 1)
            image = _draw_raster(axes, f"{'A  ' if i == 0 else ''}{title}", raster)
            if i == len(panels.rasters) - 1:
                figure.colorbar(image, ax=axes, fraction=0.05, pad=0.03).outline.set_visible(False)
        _draw_peaks(figure.add_subplot(2, columns, columns + 1), panels)
        _draw_paths(figure.add_subplot(2, columns, columns + 2), panels)
        _draw_profiles(figure.add_subplot(2, columns, columns + 3), panels)
        figure.tight_layout(pad=1.4)
        return figure_bytes(figure, kind)


def _draw_raster(axes: Any, title: str, raster: Tensor) -> Any:
    rows = torch.linspace(0, len(raster) - 1, min(_ROWS, len(raster))).long()
    image = axes.imshow(raster[rows].numpy(), aspect="auto", cmap="viridis", vmin=0, vmax=1, interpolation="nearest")
    axes.set_title(title)
    axes.grid(visible=False)
    axes.set_xticks(range(raster.shape[1]), [str(t + 1) for t in range(raster.shape[1])])
    axes.set_yticks([0, len(rows) - 1], ["1", f"{len(raster):,}"])
    axes.set_xlabel("step")
    axes.set_ylabel("unit, sorted by the other half", labelpad=-14)
    axes.spines[:].set_visible(False)
    return image


def _draw_peaks(axes: Any, panels: TimeCellPanels) -> None:
    steps = np.arange(1, len(panels.peak_counts) + 1)
    axes.bar(steps, panels.peak_counts, width=0.62, color=PALETTE[0])
    low, high = np.asarray(panels.null_low, float), np.asarray(panels.null_high, float)
    axes.errorbar(
        steps,
        (low + high) / 2,
        yerr=(high - low) / 2,
        fmt="none",
        ecolor=PALETTE[1],
        elinewidth=3,
        capsize=9,
        label="steps permuted, 95 %",
    )
    axes.set_title("Units that peak at each step")
    axes.set_xticks(steps)
    axes.set_xlabel("step")
    axes.set_ylim(0, 1.25 * max(*panels.peak_counts, *high, 1))
    axes.legend(fontsize=9)


def _draw_paths(axes: Any, panels: TimeCellPanels) -> None:
    paths = panels.paths[:_PATHS].numpy()
    lengths = [float(np.linalg.norm(np.diff(path, axis=0), axis=1).sum()) for path in paths]
    for i, path in enumerate(paths):
        colour = PALETTE[i % len(PALETTE)]
        axes.plot(path[:, 0], path[:, 1], color=colour, linewidth=1.1, alpha=0.75)
        axes.scatter(path[1:, 0], path[1:, 1], s=8, color=colour, zorder=3)
        axes.scatter(*path[0], s=22, facecolor=PAPER, edgecolor=colour, zorder=3, label="" if i else "step 1")
    for t, place in enumerate(paths[int(np.argmax(lengths))] if len(paths) else ()):  # numbers on all would cover all
        axes.annotate(str(t + 1), place, fontsize=9, color=INK, xytext=(4, 4), textcoords="offset points", zorder=4)
    axes.legend(fontsize=8, loc="best")
    axes.set_title(f"B  Paths of the {len(paths)} most used codes")
    axes.set_xlabel(f"component 1 ({100 * panels.explained[0]:.0f} % of variance)")
    axes.set_ylabel(f"component 2 ({100 * panels.explained[1]:.0f} %)")


def _draw_profiles(axes: Any, panels: TimeCellPanels) -> None:
    for i, (name, values) in enumerate(panels.profiles.items()):
        first = len(panels.peak_counts) - len(values) + 1  # changes begin at the second step
        steps = np.arange(first, first + len(values))
        axes.plot(steps, values, marker="o", markersize=4, color=PALETTE[i], label=name)
    shares = ", ".join(f"{name} {share:.3f}" for name, share in panels.variance_shares.items())
    axes.set_title("C  Per step")
    axes.set_xticks(range(1, len(panels.peak_counts) + 1))
    axes.set_xlabel("step")
    axes.set_ylim(0, 1.5 * max(max(values) for values in panels.profiles.values()))
    axes.legend(fontsize=8, loc="upper left")
    axes.text(0, 1.01, f"variance share ρ: {shares}", transform=axes.transAxes, va="bottom", fontsize=7.5, color=MUTED)
