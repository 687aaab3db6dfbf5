"""Saving and loading a trained VQ-VAE as a `tcvq.vqvae/1` artifact: tensors and JSON, never code."""

from dataclasses import asdict, dataclass
from pathlib import Path

from tcvq_data import ArtifactError, config_from_meta, read_artifact, write_artifact
from tcvq_vqvae.config import VQVAEConfig
from tcvq_vqvae.model import SpikingVQVAE

SCHEMA = "tcvq.vqvae/1"


@dataclass(frozen=True, kw_only=True, slots=True)
class LoadedVQVAE:
    """A VQ-VAE read from disk.

    Attributes:
        model: The network, in evaluation mode.
        sha256: Hash of the file, by which codes and priors name it.
        meta: What was stored beside the weights.
    """

    model: SpikingVQVAE
    sha256: str
    meta: dict[str, object]


def save_vqvae(path: Path, model: SpikingVQVAE, *, meta: dict[str, object] | None = None) -> str:
    """Write weights and configuration; the file appears whole or not at all.

    Returns:
        The hash of the file.
    """
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    return write_artifact(path, state, schema=SCHEMA, meta={"config": asdict(model.config), **(meta or {})})


def load_vqvae(path: Path) -> LoadedVQVAE:
    """Read a VQ-VAE.

    Raises:
        ArtifactError: If the file is missing, damaged, of another schema, or its weights do not fit its configuration.
    """
    artifact = read_artifact(path, schema=SCHEMA)
    config = config_from_meta(path, artifact.meta, VQVAEConfig)
    model = SpikingVQVAE(config)
    try:
        model.load_state_dict(artifact.tensors)
    except RuntimeError as error:
        reason = " ".join(str(error).split())
        raise ArtifactError(f"{path}: the weights do not fit the stored configuration: {reason}") from error
    return LoadedVQVAE(model=model.eval(), sha256=artifact.sha256, meta=artifact.meta)
