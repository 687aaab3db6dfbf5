"""Reading of codes."""

from pathlib import Path

import torch

from tcvq_data.codes.manifest import Manifest, read_manifest
from tcvq_data.codes.shards import read_shards
from tcvq_data.interface import ArtifactError, Codes


def read_codes(path: str | Path) -> Codes:
    """Read codes, and check that they are as they were written.

    Args:
        path: A folder written by `write_codes`, or by `CodesWriter` and `finish_codes`.

    Returns:
        The codes in the order of the dataset, with the hash of their content; indices are int32, labels int64.

    Raises:
        ArtifactError: The folder is missing, incomplete, damaged or of another schema.
    """
    path = Path(path)
    return checked_codes(path, read_manifest(path))


def checked_codes(folder: Path, manifest: Manifest) -> Codes:
    """Return the codes in a folder; an empty ``content_sha256`` of the manifest is not compared.

    Raises:
        ArtifactError: They are not those that the manifest describes.
    """
    header = manifest.header
    indices, labels = read_shards(folder, manifest.shards, header)
    sha256 = header.content_sha256(indices, labels)
    if manifest.content_sha256 not in ("", sha256):
        raise ArtifactError(f"{folder}: damaged, its content does not match its checksum; encode again")
    return Codes(
        indices=torch.from_numpy(indices).view(-1, *header.grid),
        labels=torch.from_numpy(labels),
        n_embed=header.n_embed,
        classes=header.classes,
        vqvae_sha256=header.vqvae_sha256,
        dataset=header.dataset,
        split=header.split,
        n_steps=header.n_steps,
        sha256=sha256,
    )
