"""Temporal codebook: vector quantisation of whole trajectories, one index per site."""

from importlib.metadata import version

from tcvq_codebook.composite import MultiHeadCodebook, ResidualCodebook, StackedQuantized
from tcvq_codebook.config import CodebookConfig
from tcvq_codebook.container import CodebookFileError
from tcvq_codebook.factorised import FactorisedCodebook
from tcvq_codebook.interface import INTERFACE_VERSION, Quantized, Quantizer
from tcvq_codebook.measures import TemporalProfile, entry_drift, neighbour_counts, temporal_profile
from tcvq_codebook.nearest import nearest
from tcvq_codebook.operators import TimeOperator, time_operator
from tcvq_codebook.rebuild import compact_codebook, resize_codebook
from tcvq_codebook.remap import CodeMap, code_map
from tcvq_codebook.report import CodebookReport
from tcvq_codebook.resize import Resize, resize_entries
from tcvq_codebook.saving import load_codebook, load_codebook_into, reference_entries, save_codebook
from tcvq_codebook.statistics import CodebookStatistics
from tcvq_codebook.straight_through import rotate, straight_through
from tcvq_codebook.temporal import TemporalCodebook
from tcvq_codebook.trajectories import (
    Paths,
    Raster,
    Tuning,
    entry_activity,
    normalise,
    permute_within_units,
    principal_paths,
    raster,
    slice_similarity,
    tuning,
    unit_activity,
)
from tcvq_codebook.usage import code_counts, dead_fraction, perplexity, used_fraction
from tcvq_codebook.vanilla import StepwiseQuantized, VanillaCodebook

__version__ = version("tcvq-codebook")

__all__ = [
    "INTERFACE_VERSION",
    "CodeMap",
    "CodebookConfig",
    "CodebookFileError",
    "CodebookReport",
    "CodebookStatistics",
    "FactorisedCodebook",
    "MultiHeadCodebook",
    "Paths",
    "Quantized",
    "Quantizer",
    "Raster",
    "ResidualCodebook",
    "Resize",
    "StackedQuantized",
    "StepwiseQuantized",
    "TemporalCodebook",
    "TemporalProfile",
    "TimeOperator",
    "Tuning",
    "VanillaCodebook",
    "code_counts",
    "code_map",
    "compact_codebook",
    "dead_fraction",
    "entry_activity",
    "entry_drift",
    "load_codebook",
    "load_codebook_into",
    "nearest",
    "neighbour_counts",
    "normalise",
    "permute_within_units",
    "perplexity",
    "principal_paths",
    "raster",
    "reference_entries",
    "resize_codebook",
    "resize_entries",
    "rotate",
    "save_codebook",
    "slice_similarity",
    "straight_through",
    "temporal_profile",
    "time_operator",
    "tuning",
    "unit_activity",
    "used_fraction",
]
