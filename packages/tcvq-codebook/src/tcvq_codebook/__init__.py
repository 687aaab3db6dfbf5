"""Temporal codebook: vector quantisation of whole trajectories, one index per site."""

from importlib.metadata import version

from tcvq_codebook.interface import INTERFACE_VERSION, Quantized, Quantizer
from tcvq_codebook.nearest import nearest
from tcvq_codebook.straight_through import straight_through
from tcvq_codebook.temporal import TemporalCodebook
from tcvq_codebook.usage import code_counts, perplexity, used_fraction
from tcvq_codebook.vanilla import StepwiseQuantized, VanillaCodebook

__version__ = version("tcvq-codebook")

__all__ = [
    "INTERFACE_VERSION",
    "Quantized",
    "Quantizer",
    "StepwiseQuantized",
    "TemporalCodebook",
    "VanillaCodebook",
    "code_counts",
    "nearest",
    "perplexity",
    "straight_through",
    "used_fraction",
]
