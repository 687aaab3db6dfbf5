"""The codes artifact ``tcvq.codes/1``: the grids of code indices that stage 1 hands to stage 2."""

from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from tcvq_data.artifact import read_artifact, write_artifact
from tcvq_data.interface import Artifact, ArtifactError, Codes

SCHEMA = "tcvq.codes/1"


def write_codes(path: str | Path, codes: Codes) -> Codes:
    """Write codes atomically, two bytes per index up to 65,536 codes and four above.

    Args:
        path: The file to make or to replace.
        codes: The codes; their own ``sha256`` is not stored.

    Returns:
        The same codes with the hash of the file.

    Raises:
        ValueError: Shapes do not fit together, or an index or a label is out of range.
        OSError: As `tcvq_data.files.atomic_path`.
    """
    if problem := _problem(codes):
        raise ValueError(f"codes of {codes.dataset}/{codes.split}: {problem}")
    compact = torch.uint16 if codes.n_embed <= 2**16 else torch.int32
    tensors = {"indices": codes.indices.to(compact), "labels": codes.labels.to(torch.int32)}
    meta = {
        "classes": list(codes.classes),
        "dataset": codes.dataset,
        "n_embed": codes.n_embed,
        "split": codes.split,
        "vqvae_sha256": codes.vqvae_sha256,
    }
    return replace(codes, sha256=write_artifact(path, tensors, schema=SCHEMA, meta=meta))


def read_codes(path: str | Path) -> Codes:
    """Read codes and check that they fit together.

    Args:
        path: A file written by `write_codes`.

    Returns:
        The codes, with the hash of the file; indices and labels are int64.

    Raises:
        ArtifactError: As `read_artifact`, or the content is not that of a codes file.
    """
    artifact = read_artifact(path, schema=SCHEMA)
    codes = _codes(artifact)
    if codes is None:
        raise ArtifactError(f"{path}: {SCHEMA} with missing, mistyped or misshapen fields; encode again")
    if problem := _problem(codes):
        raise ArtifactError(f"{path}: {problem}; encode again")
    return codes


def _codes(artifact: Artifact) -> Codes | None:
    """Return the artifact as codes, or None if a field is missing or of another type or shape."""
    match artifact.tensors, artifact.meta:
        case (
            {"indices": Tensor() as indices, "labels": Tensor() as labels},
            {
                "classes": list(classes),
                "dataset": str(dataset),
                "n_embed": int(n_embed),
                "split": str(split),
                "vqvae_sha256": str(vqvae_sha256),
            },
        ) if not (_misshapen(indices, labels) or indices.is_floating_point() or labels.is_floating_point()):
            return Codes(
                indices=indices.long(),
                labels=labels.long(),
                n_embed=n_embed,
                classes=tuple(str(name) for name in classes),
                vqvae_sha256=vqvae_sha256,
                dataset=dataset,
                split=split,
                sha256=artifact.sha256,
            )
    return None


def _misshapen(indices: Tensor, labels: Tensor) -> bool:
    """Return whether the shapes are other than ``(N, H, W)`` and ``(N,)``."""
    return indices.ndim != 3 or labels.shape != indices.shape[:1]


def _problem(codes: Codes) -> str:
    """Return what does not fit together in ``codes``, or an empty string."""
    if _misshapen(codes.indices, codes.labels):
        return f"shapes {tuple(codes.indices.shape)} and {tuple(codes.labels.shape)} are not (N, H, W) and (N,)"
    for what, values, low, size in (
        ("index", codes.indices, 0, codes.n_embed),
        ("label", codes.labels, -1, len(codes.classes)),
    ):
        if values.numel() and not low <= int(values.min()) <= int(values.max()) < size:
            return f"{what} {int(values.min())}..{int(values.max())} outside {low}..{size - 1}"
    return ""
