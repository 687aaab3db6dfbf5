"""The samples artifact ``tcvq.samples/1``: drawn grids of codes, their images, and where both came from."""

from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from tcvq_data import ArtifactError, read_artifact, write_artifact

SCHEMA = "tcvq.samples/1"


@dataclass(frozen=True, kw_only=True, slots=True)
class Samples:
    """A set of generated images.

    Attributes:
        indices: The drawn grid of each image; int64.
        images: Pixel values in [-1, 1], rounded to 8 bits; recordings are ``(N, T, 2, H, W)``.
        labels: The class that was asked for, -1 where the prior has no classes; int64.
        classes: Names of the classes.
        vqvae_sha256: Hash of the VQ-VAE that decoded the grids.
        prior_sha256: Hash of the prior that drew them.
        settings: How they were drawn: seed, temperature and so on.
    """

    indices: Int[Tensor, "N h w"]
    images: Float[Tensor, "N *frames H W"]
    labels: Int[Tensor, " N"]
    classes: tuple[str, ...]
    vqvae_sha256: str
    prior_sha256: str
    settings: dict[str, object]


def to_bytes(images: Float[Tensor, "N *frames H W"]) -> Tensor:
    """Clamp images to [-1, 1] and round them to uint8."""
    return ((images.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)


def from_bytes(images: UInt8[Tensor, "N *frames H W"]) -> Tensor:
    """Return the images that `to_bytes` rounded."""
    return images.float() / 127.5 - 1


def write_samples(path: Path, samples: Samples) -> str:
    """Write samples atomically and return the hash of the file.

    Raises:
        OSError: The file cannot be written.
    """
    tensors = {
        "indices": samples.indices.to(torch.int32),
        "images": to_bytes(samples.images),
        "labels": samples.labels.to(torch.int32),
    }
    meta = {
        "classes": list(samples.classes),
        "vqvae_sha256": samples.vqvae_sha256,
        "prior_sha256": samples.prior_sha256,
        "settings": samples.settings,
    }
    return write_artifact(path, tensors, schema=SCHEMA, meta=meta)


def read_samples(path: Path) -> Samples:
    """Read samples.

    Raises:
        ArtifactError: The file is missing, damaged, or not a samples file.
    """
    artifact = read_artifact(path, schema=SCHEMA)
    match artifact.tensors, artifact.meta:
        case (
            {"indices": Tensor() as indices, "images": Tensor() as images, "labels": Tensor() as labels},
            {
                "classes": list(classes),
                "vqvae_sha256": str(vqvae_sha256),
                "prior_sha256": str(prior_sha256),
                "settings": dict(settings),
            },
        ) if len(indices) == len(images) == len(labels):
            return Samples(
                indices=indices.long(),
                images=from_bytes(images),
                labels=labels.long(),
                classes=tuple(str(name) for name in classes),
                vqvae_sha256=vqvae_sha256,
                prior_sha256=prior_sha256,
                settings=settings,
            )
    raise ArtifactError(f"{path}: {SCHEMA} with missing or wrongly typed fields; sample again")
