"""Firing rates of every layer of neurons at every step, and where the energy of an image goes."""

from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np

from .style import INK, PALETTE, blank_figure, figure_bytes


def firing_rate_map(rates: Mapping[str, Sequence[int | float]], *, kind: Literal["png", "svg"] = "svg") -> bytes:
    """Draw the share of neurons that fire, one row per layer and one column per step, the number in every cell.

    Args:
        rates: For each layer its rate at each step, in the order of the network.
        kind: File format.

    Raises:
        ValueError: There is no layer, or two layers differ in their number of steps.
    """
    if not rates or len({len(row) for row in rates.values()}) != 1:
        raise ValueError(f"a map of firing rates needs layers with equally many steps; got {len(rates)} layers")
    values = np.array(list(rates.values()), dtype=float)
    height, width = values.shape
    with blank_figure(2.6 + 0.62 * width, 0.9 + 0.26 * height) as figure:
        axes = figure.add_subplot()
        axes.imshow(values, aspect="auto", cmap="Blues", vmin=0, vmax=max(0.5, values.max()))
        axes.grid(visible=False)
        for (y, x), value in np.ndenumerate(values):
            colour = "white" if value > 0.6 * max(0.5, values.max()) else INK
            axes.text(x, y, f"{value:.2f}", ha="center", va="center", fontsize=7.5, color=colour)
        axes.set_yticks(range(height), list(rates), fontsize=7.5)
        axes.set_xticks(range(width), [str(t + 1) for t in range(width)])
        axes.set_xlabel("step")
        axes.spines[:].set_visible(False)
        figure.tight_layout(pad=0.8)
        return figure_bytes(figure, kind)


def energy_bars(parts: Mapping[str, Sequence[int | float]], *, kind: Literal["png", "svg"] = "svg") -> bytes:
    """Draw the energy of the parts of a network in the three accountings of `tcvq_eval.estimate_energy`.

    Args:
        parts: For each part its energy under ``ac_convention``, ``graded`` and ``ann``, in nanojoules.
        kind: File format.

    Raises:
        ValueError: There is no part.
    """
    if not parts:
        raise ValueError("energy_bars needs at least one part of a network")
    names = ("ac_convention", "graded", "ann")
    with blank_figure(7.2, 2.4) as figure:
        axes = figure.add_subplot()
        left = np.zeros(3)
        for colour, (part, energies) in zip(PALETTE * len(parts), parts.items(), strict=False):
            values = np.array(energies) / 1000
            axes.barh(names, values, left=left, color=colour, height=0.62, label=part)
            left = left + values
        for y, total in enumerate(left):
            axes.text(total, y, f"  {total:.3g} µJ", va="center", fontsize=9, color=INK)
        axes.invert_yaxis()
        axes.grid(visible=True, axis="x")
        axes.grid(visible=False, axis="y")
        axes.set_xlim(0, 1.18 * max(left.max(), 1e-12))
        axes.set_xlabel("µJ per image, arithmetic only")
        axes.legend(fontsize=9, ncols=len(parts), loc="upper center", bbox_to_anchor=(0.5, 1.25), handlelength=1.2)
        figure.tight_layout(pad=0.8)
        return figure_bytes(figure, kind)
