"""One codebook as one file: its tensors in safetensors, its sizes and options as JSON in the header."""

from collections.abc import Mapping
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from jaxtyping import Float
from torch import Tensor

from tcvq_codebook.config import CodebookConfig
from tcvq_codebook.container import CodebookFileError, read_container, write_container
from tcvq_codebook.temporal import TemporalCodebook

SCHEMA = "tcvq.codebook/1"
REFERENCE_KEY = "quantize.embedding.weight"  # in checkpoints of the paper's released code and of VQGAN
_MEANING = ("similarity", "norm", "update")  # options that decide what the tensors mean


def save_codebook(path: str | Path, codebook: TemporalCodebook) -> str:
    """Write entries, averages, use and the initialised flag, with sizes and options, whole or not at all.

    A `VanillaCodebook` is saved through its ``step``, a factorised one through its ``inner`` and its maps.

    Returns:
        The SHA-256 of the file; the same codebook gives the same file.

    Raises:
        OSError: Writing failed; what stood at ``path`` before is untouched.
    """
    return write_container(path, codebook.state_dict(), schema=SCHEMA, meta={"config": asdict(codebook.config)})


def load_codebook(path: str | Path) -> TemporalCodebook:
    """Return the codebook that `save_codebook` wrote: on the CPU, in its dtype, in training mode.

    Raises:
        CodebookFileError: The file is missing, damaged, of another schema, or its tensors and sizes disagree.
    """
    tensors, config = _read(path)
    codebook = TemporalCodebook.from_config(config)
    _check_state(path, codebook, tensors)
    codebook.to(tensors["codebook"].dtype).load_state_dict(tensors)
    return codebook


def load_codebook_into(codebook: TemporalCodebook, path: str | Path) -> None:
    """Take over entries, averages, use and the initialised flag from a file, in place.

    Similarity, norm and update must agree; other options stay those of ``codebook``. A safetensors file of the paper's
    released code, with ``quantize.embedding.weight (K, T·D)``, gives its entries; see `TemporalCodebook.assign`.

    Raises:
        CodebookFileError: The file is missing or damaged, or its codebook has another shape or meaning; says both.
    """
    contents = read_container(path)
    if contents.schema is None and REFERENCE_KEY in contents.tensors:
        rows = contents.tensors[REFERENCE_KEY]
        if rows.shape != codebook.codebook.flatten(1).shape:
            raise CodebookFileError(
                f"{path}: holds entries (K, T·D) = {tuple(rows.shape)}, but this codebook has {_shape(codebook.config)}"
            )
        codebook.assign(reference_entries(contents.tensors, n_steps=codebook.n_steps))
        return
    tensors, config = _read(path)
    if _shape(config) != _shape(codebook.config):
        raise CodebookFileError(
            f"{path}: holds a codebook of {_shape(config)}, but this one has {_shape(codebook.config)}; "
            "use load_codebook, and resize_codebook for another T"
        )
    for name in _MEANING:
        stored, here = getattr(config, name), getattr(codebook.config, name)
        if stored != here:
            raise CodebookFileError(
                f"{path}: holds a codebook with {name}={stored!r}, but this one has {name}={here!r}; use load_codebook"
            )
    _check_state(path, codebook, tensors)
    codebook.load_state_dict(tensors)


def reference_entries(state: Mapping[str, Tensor], *, n_steps: int) -> Float[Tensor, "K T D"]:
    """Return the entries of a checkpoint of the paper's released code: a view of ``quantize.embedding.weight``.

    Args:
        state: The checkpoint's state dict, with rows ``(K, T·D)``, time-major.
        n_steps: T, which such a checkpoint does not say.

    Raises:
        ValueError: If the key is missing, or T does not divide the length of a row.
    """
    if REFERENCE_KEY not in state:
        raise ValueError(f"the state dict has no {REFERENCE_KEY!r}, but {', '.join(sorted(state)[:5]) or 'nothing'}")
    rows = state[REFERENCE_KEY]
    if rows.ndim != 2 or n_steps < 1 or rows.shape[1] % n_steps:
        raise ValueError(f"{REFERENCE_KEY} has shape {tuple(rows.shape)}, which is not (K, T·D) with T = {n_steps}")
    return rows.view(len(rows), n_steps, -1)


def _read(path: str | Path) -> tuple[dict[str, Tensor], CodebookConfig]:
    """Return the tensors and the configuration of a file of our schema."""
    tensors, schema, meta = read_container(path)
    if schema != SCHEMA or meta is None:
        held = f"holds {schema}" if schema else "a safetensors file, but not one of this project"
        raise CodebookFileError(f"{path}: {held}; {SCHEMA} is needed here, check which file you gave")
    stored = meta.get("config")
    known = {field.name for field in fields(CodebookConfig)}
    if not isinstance(stored, dict) or not stored.keys() <= known:
        raise CodebookFileError(f"{path}: holds options that this version does not know; upgrade it to read this file")
    options: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in stored.items()}
    try:
        config = CodebookConfig(**options)
    except (TypeError, ValueError) as error:
        raise CodebookFileError(f"{path}: bad options: {error}; make the file again") from error
    found = tuple(tensors["codebook"].shape) if "codebook" in tensors else "nothing"
    if found != (config.n_embed, config.n_steps, config.embed_dim):
        raise CodebookFileError(f"{path}: damaged, holds {found} as codebook of {_shape(config)}; make the file again")
    return tensors, config


def _check_state(path: str | Path, codebook: TemporalCodebook, tensors: Mapping[str, Tensor]) -> None:
    """Raise unless there is exactly one tensor of the right shape for each of the codebook's."""
    wanted = {name: tuple(tensor.shape) for name, tensor in codebook.state_dict().items()}
    found = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    if wanted != found:
        raise CodebookFileError(
            f"{path}: tensors {found} do not belong to a codebook of {_shape(codebook.config)}, which has {wanted}"
        )


def _shape(config: CodebookConfig) -> str:
    return f"(K, T, D) = ({config.n_embed}, {config.n_steps}, {config.embed_dim})"
