"""Checkpoints of the paper's released code become our artifacts; nothing in such a file is ever run."""

import pickle
import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from tcvq_runner.layers import ConfigError

if TYPE_CHECKING:
    from torch import Tensor

    from tcvq_prior import CodeTransformer
    from tcvq_vqvae import SpikingVQVAE

CODEC_PREFIXES = ("", "first_stage_model.")
PRIOR_PREFIXES = ("", "transformer.")


@dataclass(frozen=True, kw_only=True, slots=True)
class Guess:
    """What no shape in a checkpoint shows.

    Attributes:
        image_size: Side of the images that the VQ-VAE was trained on.
        encoding: Still images or event frames; None is events for two channels.
        vanilla_steps: SNN steps T of a codebook of single steps; None is a temporal codebook, whose rows show T.
        n_head: Attention heads of the prior.
        snn_steps: SNN steps of the prior.
        vqvae: The artifact of the VQ-VAE whose codes the prior models, where the checkpoint does not hold it.
    """

    image_size: int | None = None
    encoding: Literal["direct", "event"] | None = None
    vanilla_steps: int | None = None
    n_head: int = 16
    snn_steps: int = 2
    vqvae: Path | None = None


def read_state(path: Path) -> dict[str, "Tensor"]:
    """Return the tensors of a ``.ckpt`` or ``.safetensors`` file by name, running no code from it.

    Raises:
        ConfigError: If it is no such file, holds no tensors, or would have to run code.
    """
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # on pickle protocols that the reader may refuse: it says so itself
            stored = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ConfigError(
            f"{path} holds more than tensors and was not read, since that would run code from it "
            f"({_reason(error)}); where you trust it, save its state_dict alone as .safetensors"
        ) from error
    except (SafetensorError, RuntimeError, EOFError, ValueError, KeyError) as error:
        raise ConfigError(f"{path} is no checkpoint that can be read: {_reason(error)}") from error
    state = stored.get("state_dict", stored) if isinstance(stored, dict) else {}
    if not state or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise ConfigError(f"{path} holds no state_dict, a mapping of names to tensors")
    return dict(state)


def import_reference(path: Path, out: Path, guess: Guess) -> list[Path]:
    """Write ``vqvae.safetensors``, ``prior.safetensors`` or both into a folder, whatever the checkpoint holds.

    Raises:
        ConfigError: If the file is no checkpoint of the released code, or something that no shape shows is missing.
        ArtifactError: If the named VQ-VAE cannot be read.
        FileExistsError: If the folder holds such a file already.
    """
    from tcvq_prior import save_prior
    from tcvq_vqvae import load_vqvae, save_vqvae

    state = read_state(path)
    codec = next((p for p in CODEC_PREFIXES if f"{p}quantize.embedding.weight" in state), None)
    prior = next((p for p in PRIOR_PREFIXES if f"{p}tok_emb.weight" in state), None)
    if codec is None and prior is None:
        raise ConfigError(
            f"{path} is no checkpoint of the released code: missing quantize.embedding.weight (stage 1) and "
            "tok_emb.weight (stage 2)"
        )
    meta: dict[str, object] = {"imported": path.name}
    written = []
    model, vqvae = None, guess.vqvae
    if codec is not None:
        model = _codec(path, state, codec, guess)
        vqvae = _free(out / "vqvae.safetensors")
    if prior is not None and vqvae is None:
        raise ConfigError(f"{path} holds a prior alone; name the artifact of its VQ-VAE with --vqvae FILE")
    known = None if model is not None or vqvae is None else load_vqvae(vqvae)
    config = model.config if model is not None else known.model.config if known is not None else None
    if prior is not None:
        assert config is not None
        transformer = _prior(path, state, prior, guess, config.grid)
        if transformer.config.n_embed != config.n_embed:
            raise ConfigError(
                f"{path}: the prior knows {transformer.config.n_embed} codes but its VQ-VAE has {config.n_embed}; name "
                "the right one with --vqvae FILE"
            )
        target = _free(out / "prior.safetensors")
    out.mkdir(parents=True, exist_ok=True)
    sha256 = known.sha256 if known is not None else ""
    if model is not None and vqvae is not None:
        sha256 = save_vqvae(vqvae, model, meta=meta)
        written.append(vqvae)
    if prior is not None:
        save_prior(target, transformer, codes_sha256="", vqvae_sha256=sha256, meta=meta)
        written.append(target)
    return written


def _codec(path: Path, state: Mapping[str, "Tensor"], prefix: str, guess: Guess) -> "SpikingVQVAE":
    from tcvq_vqvae import from_reference

    if guess.image_size is None:
        raise ConfigError(f"{path}: no shape shows the side of the images; give it with --image-size")
    try:
        return from_reference(
            state,
            image_size=guess.image_size,
            encoding=guess.encoding,
            vanilla_steps=guess.vanilla_steps,
            prefix=prefix,
        )
    except ValueError as error:
        raise ConfigError(f"{path}: {error}") from error


def _prior(
    path: Path, state: Mapping[str, "Tensor"], prefix: str, guess: Guess, grid: tuple[int, int]
) -> "CodeTransformer":
    from tcvq_prior import from_reference

    try:
        return from_reference(state, n_head=guess.n_head, n_steps=guess.snn_steps, grid=grid, prefix=prefix)
    except ValueError as error:
        raise ConfigError(f"{path}: {error}") from error


def _free(target: Path) -> Path:
    if target.exists():
        raise FileExistsError(f"{target} exists; choose another folder with --out")
    return target


def _reason(error: Exception) -> str:
    """Return the first sentence of a long complaint."""
    text = " ".join(str(error).split()) or type(error).__name__
    found = re.search(r"Unsupported global: GLOBAL (\S+)", text)
    return f"it names {found[1]}" if found else text.split(". ")[0][:200]
