"""Measures and figures for spiking image generators: reconstruction, codebook use, Frechet distance, reports."""

from importlib.metadata import version

from .codebook import CodeUsage, code_usage
from .comparison import Fidelity, as_saved, evaluate_fidelity, fd_fashion, noise_floor
from .energy import (
    HOROWITZ_45NM,
    Energy,
    EnergyRow,
    EnergyTable,
    LayerWork,
    SideWork,
    estimate_energy,
    input_kind,
)
from .features import FashionFeatures
from .fidelity import PrecisionRecall, frechet_distance, nearest, precision_recall
from .figures import (
    Bars,
    Curve,
    TimeCellPanels,
    class_grid,
    code_usage_plot,
    destruction_plot,
    energy_bars,
    event_gif,
    event_strips,
    firing_rate_map,
    image_grid,
    loss_curves,
    reconstruction_grid,
    time_cell_figure,
    variants_plot,
)
from .interface import INTERFACE_VERSION, FeatureExtractor
from .reconstruction import Reconstruction, evaluate_reconstruction, psnr, ssim
from .report import Headline, Picture, Report, ReportFiles, Section, Table, write_report
from .samples import (
    ClassAgreement,
    Memorisation,
    SampleEvaluation,
    class_agreement,
    evaluate_samples,
    memorisation,
)
from .summary import nearest_section, sample_headlines
from .timecells import TimeCells, evaluate_time_cells

__version__ = version("tcvq-eval")

__all__ = [
    "HOROWITZ_45NM",
    "INTERFACE_VERSION",
    "Bars",
    "ClassAgreement",
    "CodeUsage",
    "Curve",
    "Energy",
    "EnergyRow",
    "EnergyTable",
    "FashionFeatures",
    "FeatureExtractor",
    "Fidelity",
    "Headline",
    "LayerWork",
    "Memorisation",
    "Picture",
    "PrecisionRecall",
    "Reconstruction",
    "Report",
    "ReportFiles",
    "SampleEvaluation",
    "Section",
    "SideWork",
    "Table",
    "TimeCellPanels",
    "TimeCells",
    "__version__",
    "as_saved",
    "class_agreement",
    "class_grid",
    "code_usage",
    "code_usage_plot",
    "destruction_plot",
    "energy_bars",
    "estimate_energy",
    "evaluate_fidelity",
    "evaluate_reconstruction",
    "evaluate_samples",
    "evaluate_time_cells",
    "event_gif",
    "event_strips",
    "fd_fashion",
    "firing_rate_map",
    "frechet_distance",
    "image_grid",
    "input_kind",
    "loss_curves",
    "memorisation",
    "nearest",
    "nearest_section",
    "noise_floor",
    "precision_recall",
    "psnr",
    "reconstruction_grid",
    "sample_headlines",
    "ssim",
    "time_cell_figure",
    "variants_plot",
    "write_report",
]
