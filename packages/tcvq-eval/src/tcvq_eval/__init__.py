"""Measures and figures for spiking image generators: distances, reconstruction, codebook use, energy, reports."""

from importlib.metadata import version

from .backbones import TimmFeatures, VGGFeatures, clip_features, dinov2_features
from .codebook import CodeUsage, StepContributions, StepMeter, code_usage
from .comparison import Fidelity, as_saved, evaluate_fidelity, fd_fashion, fidelity_of_features, halves, noise_floor
from .energy import HOROWITZ_45NM, Energy, EnergyRow, EnergyTable, LayerWork, SideWork, estimate_energy, input_kind
from .event_features import EventClassifier, EventTraining, cached_event_classifier, train_event_classifier
from .event_statistics import CountCheck, StatisticDistance, count_check, event_statistics, statistic_distances
from .event_suite import (
    TELLING_RATIO,
    EventEvaluation,
    TemporalYardstick,
    destroyed,
    evaluate_events,
    temporal_yardsticks,
)
from .feature_set import FeatureSet, cached_features, extract_features, gather_features, load_features, save_features
from .features import FashionFeatures
from .fidelity import (
    DensityCoverage,
    PrecisionRecall,
    density_coverage,
    frechet_distance,
    nearest,
    nearest_in_batches,
    precision_recall,
)
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
from .fingerprint import ENVIRONMENT_FIELDS, MODEL_FIELDS, Fingerprint, extractor_facts, fingerprint_differences
from .frozen import Frozen, ModuleFeatures
from .gaussian import Gaussian, fit_gaussian, gather_gaussian, gaussian_distance, gaussian_of
from .inception import InceptionFeatures
from .interface import INTERFACE_VERSION, FeatureExtractor
from .kernel import KernelDistance, cmmd, kernel_distance, mmd
from .measurement import METRICS, USUAL_METRICS, Measurement, measure, skipped
from .pretrained import KNOWN_WEIGHTS, MissingWeightsError, file_sha256, find_weights, weights_folder
from .reconstruction import Reconstruction, ReconstructionMeter, evaluate_reconstruction, psnr, ssim
from .report import Headline, Picture, Report, ReportFiles, Section, Table, to_json, write_report
from .resampling import fd_infinity, half_spread
from .samples import (
    ClassAgreement,
    Memorisation,
    SampleEvaluation,
    class_agreement,
    evaluate_samples,
    memorisation,
    memorisation_of,
)
from .score import InceptionScore, inception_score
from .sources import Source, npz_member, open_source, tensor_source
from .summary import nearest_section, sample_headlines
from .timecells import TimeCells, evaluate_time_cells
from .tokens import TokenDistances, token_distances

__version__ = version("tcvq-eval")

__all__ = [
    "ENVIRONMENT_FIELDS",
    "HOROWITZ_45NM",
    "INTERFACE_VERSION",
    "KNOWN_WEIGHTS",
    "METRICS",
    "MODEL_FIELDS",
    "TELLING_RATIO",
    "USUAL_METRICS",
    "Bars",
    "ClassAgreement",
    "CodeUsage",
    "CountCheck",
    "Curve",
    "DensityCoverage",
    "Energy",
    "EnergyRow",
    "EnergyTable",
    "EventClassifier",
    "EventEvaluation",
    "EventTraining",
    "FashionFeatures",
    "FeatureExtractor",
    "FeatureSet",
    "Fidelity",
    "Fingerprint",
    "Frozen",
    "Gaussian",
    "Headline",
    "InceptionFeatures",
    "InceptionScore",
    "KernelDistance",
    "LayerWork",
    "Measurement",
    "Memorisation",
    "MissingWeightsError",
    "ModuleFeatures",
    "Picture",
    "PrecisionRecall",
    "Reconstruction",
    "ReconstructionMeter",
    "Report",
    "ReportFiles",
    "SampleEvaluation",
    "Section",
    "SideWork",
    "Source",
    "StatisticDistance",
    "StepContributions",
    "StepMeter",
    "Table",
    "TemporalYardstick",
    "TimeCellPanels",
    "TimeCells",
    "TimmFeatures",
    "TokenDistances",
    "VGGFeatures",
    "__version__",
    "as_saved",
    "cached_event_classifier",
    "cached_features",
    "class_agreement",
    "class_grid",
    "clip_features",
    "cmmd",
    "code_usage",
    "code_usage_plot",
    "count_check",
    "density_coverage",
    "destroyed",
    "destruction_plot",
    "dinov2_features",
    "energy_bars",
    "estimate_energy",
    "evaluate_events",
    "evaluate_fidelity",
    "evaluate_reconstruction",
    "evaluate_samples",
    "evaluate_time_cells",
    "event_gif",
    "event_statistics",
    "event_strips",
    "extract_features",
    "extractor_facts",
    "fd_fashion",
    "fd_infinity",
    "fidelity_of_features",
    "file_sha256",
    "find_weights",
    "fingerprint_differences",
    "firing_rate_map",
    "fit_gaussian",
    "frechet_distance",
    "gather_features",
    "gather_gaussian",
    "gaussian_distance",
    "gaussian_of",
    "half_spread",
    "halves",
    "image_grid",
    "inception_score",
    "input_kind",
    "kernel_distance",
    "load_features",
    "loss_curves",
    "measure",
    "memorisation",
    "memorisation_of",
    "mmd",
    "nearest",
    "nearest_in_batches",
    "nearest_section",
    "noise_floor",
    "npz_member",
    "open_source",
    "precision_recall",
    "psnr",
    "reconstruction_grid",
    "sample_headlines",
    "save_features",
    "skipped",
    "ssim",
    "statistic_distances",
    "temporal_yardsticks",
    "tensor_source",
    "time_cell_figure",
    "to_json",
    "token_distances",
    "train_event_classifier",
    "variants_plot",
    "weights_folder",
    "write_report",
]
