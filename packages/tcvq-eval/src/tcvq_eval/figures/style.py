"""The look that all pictures share, and how a figure becomes bytes."""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from matplotlib.figure import Figure

INK, MUTED, RULE, PAPER = "#1d2430", "#6b7484", "#e3e6eb", "#ffffff"
PALETTE = ("#2f5fd0", "#d9652b", "#2a9173", "#8a4fbf", "#b8862b", "#c23b62")
DPI = 100
STYLE: dict[Any, object] = {
    "font.family": "DejaVu Sans",
    "font.size": 10,
    "text.color": INK,
    "axes.labelcolor": MUTED,
    "axes.edgecolor": RULE,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.xmargin": 0.02,
    "axes.axisbelow": True,
    "axes.titlelocation": "left",
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
    "axes.titlepad": 12,
    "grid.color": RULE,
    "grid.linewidth": 0.8,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "legend.frameon": False,
    "figure.facecolor": PAPER,
    "svg.hashsalt": "tcvq",  # element ids that do not change from run to run
}


@contextmanager
def blank_figure(width: float, height: float) -> "Iterator[Figure]":
    """Yield an empty figure of this size in inches, in the house style, without pyplot's global state."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    with mpl.rc_context(STYLE):
        yield Figure(figsize=(width, height), dpi=DPI, facecolor=PAPER)


def figure_bytes(figure: "Figure", kind: Literal["png", "svg"]) -> bytes:
    """Return a figure's bytes, without the date and the version that would make equal pictures differ."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format=kind, metadata={"Software": None} if kind == "png" else {"Date": None})
    return buffer.getvalue()
