"""Datasets, data module and safe artifacts for temporal-codebook spiking generators."""

from importlib.metadata import version
from typing import TYPE_CHECKING

from tcvq_data.artifact import config_from_meta, read_artifact, write_artifact
from tcvq_data.batches import read_batch
from tcvq_data.catalog import describe_datasets
from tcvq_data.codes import CodesWriter, finish_codes, read_codes, write_codes
from tcvq_data.download import download
from tcvq_data.embedded import FashionMini
from tcvq_data.events import NMNIST_RECORDING, EmptyRecordingError, event_statistics
from tcvq_data.files import atomic_path, sha256_file, write_bytes, write_json, write_text
from tcvq_data.frames import EventFrames, list_caches, open_recordings, prune_caches
from tcvq_data.interface import (
    INTERFACE_VERSION,
    Artifact,
    ArtifactError,
    Codes,
    DataOptions,
    EventOptions,
    ImageSource,
    MissingDataError,
    Sample,
)
from tcvq_data.registry import dataset_names, is_event_dataset, open_dataset
from tcvq_data.verify import Verification, verify

if TYPE_CHECKING:
    from tcvq_data.datamodule import CodesDataModule, ImageDataModule

__all__ = [
    "INTERFACE_VERSION",
    "NMNIST_RECORDING",
    "Artifact",
    "ArtifactError",
    "Codes",
    "CodesDataModule",
    "CodesWriter",
    "DataOptions",
    "EmptyRecordingError",
    "EventFrames",
    "EventOptions",
    "FashionMini",
    "ImageDataModule",
    "ImageSource",
    "MissingDataError",
    "Sample",
    "Verification",
    "atomic_path",
    "config_from_meta",
    "dataset_names",
    "describe_datasets",
    "download",
    "event_statistics",
    "finish_codes",
    "is_event_dataset",
    "list_caches",
    "open_dataset",
    "open_recordings",
    "prune_caches",
    "read_artifact",
    "read_batch",
    "read_codes",
    "sha256_file",
    "verify",
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
