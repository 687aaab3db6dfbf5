"""Datasets, data module and safe artifacts for temporal-codebook spiking generators."""

from importlib.metadata import version
from typing import TYPE_CHECKING

from tcvq_data.artifact import config_from_meta, read_artifact, write_artifact
from tcvq_data.codes import read_codes, write_codes
from tcvq_data.embedded import FashionMini
from tcvq_data.files import atomic_path, sha256_file, write_bytes, write_json, write_text
from tcvq_data.interface import INTERFACE_VERSION, Artifact, ArtifactError, Codes, ImageSource, Sample
from tcvq_data.registry import dataset_names, open_dataset

if TYPE_CHECKING:
    from tcvq_data.datamodule import CodesDataModule, ImageDataModule

__all__ = [
    "INTERFACE_VERSION",
    "Artifact",
    "ArtifactError",
    "Codes",
    "CodesDataModule",
    "FashionMini",
    "ImageDataModule",
    "ImageSource",
    "Sample",
    "atomic_path",
    "config_from_meta",
    "dataset_names",
    "open_dataset",
    "read_artifact",
    "read_codes",
    "sha256_file",
    "write_artifact",
    "write_bytes",
    "write_codes",
    "write_json",
    "write_text",
]
__version__ = version("tcvq-data")


def __getattr__(name: str) -> object:
    """Import the data modules on first use, because Lightning takes seconds to import."""
    if name in ("CodesDataModule", "ImageDataModule"):
        from tcvq_data import datamodule

        return getattr(datamodule, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
