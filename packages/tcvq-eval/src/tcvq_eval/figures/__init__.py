"""Pictures as bytes. The only place that imports matplotlib, and only while it draws."""

from .curves import Curve, code_usage_plot, loss_curves
from .events import event_gif, event_strips
from .grids import class_grid, image_grid, reconstruction_grid
from .rates import energy_bars, firing_rate_map
from .studies import Bars, destruction_plot, variants_plot
from .timecells import TimeCellPanels, time_cell_figure

__all__ = [
    "Bars",
    "Curve",
    "TimeCellPanels",
    "class_grid",
    "code_usage_plot",
    "destruction_plot",
    "energy_bars",
    "event_gif",
    "event_strips",
    "firing_rate_map",
    "image_grid",
    "loss_curves",
    "reconstruction_grid",
    "time_cell_figure",
    "variants_plot",
]
