"""The features of a set of images: computed batch by batch, kept with their Gaussian, and cached on disk."""

import hashlib
import json
import os
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from .fingerprint import extractor_facts
from .gaussian import Gaussian, fit_gaussian, gather_gaussian
from .interface import FeatureExtractor
from .sources import Source, content_sha256

SCHEMA = "tcvq.features/1"
BATCH = 64
Progress = Callable[[int, int], None]


@dataclass(frozen=True, kw_only=True, slots=True)
class FeatureSet:
    """What is known of a set of images in the space of an extractor.

    Attributes:
        name: Name of the set.
        n: Number of images; 0 where a published file does not say.
        gaussian: Their Gaussian.
        features: Their features, float32; None where only the Gaussian was kept or is published.
        logits: Class scores; None if the extractor has none.
        sha256: Hash of the images' content; empty if unknown.
        facts: What the extractor says of itself, see `extractor_facts`.
    """

    name: str
    n: int
    gaussian: Gaussian
    features: Float[Tensor, "N F"] | None
    logits: Float[Tensor, "N K"] | None = None
    sha256: str = ""
    facts: Mapping[str, str] = field(default_factory=dict)

    def take(self, rows: Tensor) -> "FeatureSet":
        """Return some of the images; needs features.

        Raises:
            ValueError: Only the Gaussian is known.
        """
        if self.features is None:
            raise ValueError(f"{self.name} holds a mean and a covariance only, which cannot be divided")
        part = self.features[rows]
        logits = None if self.logits is None else self.logits[rows]
        return FeatureSet(
            name=self.name,
            n=len(part),
            gaussian=fit_gaussian(part),
            features=part,
            logits=logits,
            sha256=self.sha256,
            facts=self.facts,
        )


def extract_features(
    source: Source,
    extractor: FeatureExtractor,
    *,
    keep: bool = True,
    store: Path | None = None,
    batch: int = BATCH,
    progress: Progress | None = None,
) -> FeatureSet:
    """Compute the features of a set, one batch of images in memory at a time.

    Args:
        source: The images.
        extractor: The feature space.
        keep: Keep every feature vector, which subsets and neighbours need; False keeps mean and covariance alone, in
            constant memory.
        store: An empty file to keep the vectors in instead of memory.
        batch: Images per batch.
        progress: Called with the number of images done and of all.

    Raises:
        ValueError: There is no image, or the extractor rejects one or returns something else than it promised.
    """
    if not source.n:
        raise ValueError(f"{source.name} holds no images")
    width, done, total = extractor.num_features, 0, None
    vectors = _storage(source.n, width, store) if keep else None
    logits: list[Tensor] = []
    scores = getattr(extractor, "logits_of", None)
    digest: Callable[[], str] = str
    for images, digest in content_sha256(source.batches(batch)):  # noqa: B007  # the last one is read below
        features = extractor(images).float().cpu()
        if features.shape != (len(images), width):
            raise ValueError(
                f"the extractor returned {tuple(features.shape)} for {len(images)} images of width {width}"
            )
        part = fit_gaussian(features)
        total = part if total is None else total.merge(part)
        if vectors is not None:
            vectors[done : done + len(images)] = features
            if scores is not None:
                logits.append(scores(features).float().cpu())
        done += len(images)
        if progress is not None:
            progress(done, source.n)
    assert total is not None
    return FeatureSet(
        name=source.name,
        n=done,
        gaussian=total,
        features=vectors,
        logits=torch.cat(logits) if logits else None,
        sha256=digest(),
        facts=extractor_facts(extractor),
    )


def gather_features(part: FeatureSet) -> FeatureSet:
    """Return the features of the images of all processes of a distributed run, in the order of ranks.

    Without a process group this is ``part`` itself. Gaussians add up, so with ``keep=False`` the memory stays constant.
    """
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return part
    parts: list[Any] = [None] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(parts, (part.n, part.features, part.logits, part.sha256))
    counts, features, logits, hashes = zip(*parts, strict=True)
    return FeatureSet(
        name=part.name,
        n=sum(counts),
        gaussian=gather_gaussian(part.gaussian),
        features=None if part.features is None else torch.cat(features),
        logits=None if part.logits is None else torch.cat(logits),
        sha256=hashlib.sha256("".join(hashes).encode()).hexdigest(),
        facts=part.facts,
    )


def _storage(n: int, width: int, store: Path | None) -> Tensor:
    """Return room for the vectors, in memory or in a file that is mapped into it."""
    if store is None:
        return torch.empty(n, width)
    return torch.from_file(str(store), shared=True, size=n * width, dtype=torch.float32).reshape(n, width)


def save_features(path: Path, features: FeatureSet) -> None:
    """Write features as a safetensors file, schema ``tcvq.features/1``, which appears whole or not at all.

    Raises:
        OSError: The file cannot be written.
    """
    tensors = {"mean": features.gaussian.mean, "scatter": features.gaussian.scatter}
    for name, value in (("features", features.features), ("logits", features.logits)):
        if value is not None:
            tensors[name] = value.contiguous()
    head = {
        "schema": SCHEMA,
        "name": features.name,
        "n": features.n,
        "sha256": features.sha256,
        "facts": dict(features.facts),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    os.close(handle)
    try:
        save_file(tensors, temporary, metadata={"tcvq": json.dumps(head, sort_keys=True)})
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def load_features(path: Path) -> FeatureSet:
    """Read features that `save_features` wrote, or the ``mu`` and ``sigma`` of a published npz file.

    Raises:
        ValueError: The file is missing, damaged or another one.
    """
    if not path.is_file():
        raise ValueError(f"{path} does not exist")
    if path.suffix == ".npz":
        return _published(path)
    try:
        with safe_open(path, "pt") as file:
            head = json.loads((file.metadata() or {}).get("tcvq", "{}"))
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # not a mapping
    except (SafetensorError, json.JSONDecodeError, OSError) as error:
        raise ValueError(f"{path} is damaged or no safetensors file ({error}); delete it and measure again") from error
    if head.get("schema") != SCHEMA:
        raise ValueError(f"{path} holds {head.get('schema')!r}; features are {SCHEMA}: delete it and measure again")
    n = int(head["n"])
    return FeatureSet(
        name=head["name"],
        n=n,
        gaussian=Gaussian(n=n, mean=tensors["mean"], scatter=tensors["scatter"]),
        features=tensors.get("features"),
        logits=tensors.get("logits"),
        sha256=head["sha256"],
        facts=head["facts"],
    )


def _published(path: Path) -> FeatureSet:
    """Read the mean and covariance that pytorch-fid, clean-fid and ADM publish; they do not say of how many images."""
    with np.load(path, allow_pickle=False) as arrays:
        if not {"mu", "sigma"} <= set(arrays.files):
            raise ValueError(f"{path} holds {', '.join(arrays.files)}; reference statistics are mu and sigma")
        mean, covariance = (torch.from_numpy(arrays[name]).double() for name in ("mu", "sigma"))
    digest = hashlib.sha256(mean.numpy().tobytes() + covariance.numpy().tobytes()).hexdigest()
    fitted = Gaussian(n=2, mean=mean, scatter=covariance)  # n - 1 = 1: the covariance as it is
    return FeatureSet(name=str(path), n=0, gaussian=fitted, features=None, sha256=digest)


def cached_features(
    folder: Path, source: Source, extractor: FeatureExtractor, *, batch: int = BATCH, progress: Progress | None = None
) -> FeatureSet:
    """Return the features of a reference set from a cache, after computing and storing them the first time.

    The name of the file is a hash of the images' content and of all that the extractor says of itself, so that other
    images, weights, layers or resizes never meet. A damaged file is made again.

    Args:
        folder: The cache; made if missing.
        source: The images; all are read for their hash.
        extractor: The feature space.
        batch: Images per batch.
        progress: Called with the number of images done and of all, while features are computed.

    Raises:
        ValueError: As `extract_features`.
    """
    digest: Callable[[], str] = str
    for _, digest in content_sha256(source.batches(batch)):  # noqa: B007  # the last one is read below
        pass
    key = json.dumps({"schema": SCHEMA, "images": digest(), **extractor_facts(extractor)}, sort_keys=True)
    path = folder / f"{hashlib.sha256(key.encode()).hexdigest()[:32]}.safetensors"
    if path.is_file():
        try:
            return load_features(path)
        except ValueError:
            path.unlink()
    made = extract_features(source, extractor, batch=batch, progress=progress)
    save_features(path, made)
    return made
