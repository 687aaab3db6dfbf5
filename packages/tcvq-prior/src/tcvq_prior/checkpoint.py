"""Saving and loading a trained prior as a `tcvq.prior/1` artifact: tensors and JSON, never code."""

from dataclasses import asdict, dataclass
from pathlib import Path

from tcvq_data import ArtifactError, config_from_meta, read_artifact, write_artifact
from tcvq_prior.config import PriorConfig
from tcvq_prior.transformer import CodeTransformer, build_prior

SCHEMA = "tcvq.prior/1"


@dataclass(frozen=True, kw_only=True, slots=True)
class LoadedPrior:
    """A prior read from disk.

    Attributes:
        model: The network, in evaluation mode.
        sha256: Hash of the file.
        codes_sha256: Hash of the codes it was trained on.
        vqvae_sha256: Hash of the VQ-VAE that made those codes; only this one can decode its samples.
        meta: What was stored beside the weights.
    """

    model: CodeTransformer
    sha256: str
    codes_sha256: str
    vqvae_sha256: str
    meta: dict[str, object]


def save_prior(
    path: Path, model: CodeTransformer, *, codes_sha256: str, vqvae_sha256: str, meta: dict[str, object] | None = None
) -> str:
    """Write weights, configuration and origin; the file appears whole or not at all.

    Returns:
        The hash of the file.
    """
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    origin = {"codes_sha256": codes_sha256, "vqvae_sha256": vqvae_sha256}
    return write_artifact(path, state, schema=SCHEMA, meta={"config": asdict(model.config), **origin, **(meta or {})})


def load_prior(path: Path) -> LoadedPrior:
    """Read a prior.

    Raises:
        ArtifactError: If the file is missing, damaged, of another schema, or its weights do not fit its configuration.
    """
    artifact = read_artifact(path, schema=SCHEMA)
    model = build_prior(config_from_meta(path, artifact.meta, PriorConfig))
    try:
        model.load_state_dict(artifact.tensors)
    except RuntimeError as error:
        reason = " ".join(str(error).split())
        raise ArtifactError(f"{path}: the weights do not fit the stored configuration: {reason}") from error
    return LoadedPrior(
        model=model.eval(),
        sha256=artifact.sha256,
        codes_sha256=str(artifact.meta.get("codes_sha256", "")),
        vqvae_sha256=str(artifact.meta.get("vqvae_sha256", "")),
        meta=artifact.meta,
    )
