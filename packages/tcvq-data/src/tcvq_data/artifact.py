"""The one container of this project's own files: safetensors with a checked JSON header; reading one runs no code.

A file holds named tensors and, under the metadata key ``tcvq``, the JSON object ``{"content_sha256", "meta",
"schema"}``. The hash covers schema, meta and every tensor's name, dtype, shape and bytes, so that damage anywhere is
noticed. The same content always gives the same bytes.
"""

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any, TypeVar, cast

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from tcvq_data.files import write_bytes
from tcvq_data.interface import Artifact, ArtifactError

C = TypeVar("C")

_KEY = "tcvq"
_SCHEMA = re.compile(r"[a-z][a-z0-9_.-]*/[1-9][0-9]*")


def write_artifact(
    path: str | Path, tensors: Mapping[str, Tensor], *, schema: str, meta: Mapping[str, object] | None = None
) -> str:
    """Write an artifact atomically.

    Args:
        path: The file to make or to replace. Its folder must exist.
        tensors: Arrays by name, of any shape; copied to the CPU. Tied tensors are stored once per name.
        schema: Name and version of the layout, such as ``tcvq.codes/1``.
        meta: Everything else, as JSON types; tuples come back as lists.

    Returns:
        The SHA-256 of the file, as 64 hexadecimal digits.

    Raises:
        ValueError: ``schema`` is not ``name/version``, or ``meta`` holds NaN or infinity.
        TypeError: ``meta`` holds something that is not a JSON type.
        OSError: As `tcvq_data.files.atomic_path`.
    """
    if not _SCHEMA.fullmatch(schema):
        raise ValueError(f"schema {schema!r} is not name/version, such as 'tcvq.codes/1'")
    plain = {
        name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format) for name, tensor in tensors.items()
    }
    meta = dict(meta or {})
    header = {"content_sha256": _content_hash(schema, meta, plain), "meta": meta, "schema": schema}
    data = save(plain, metadata={_KEY: _canonical(header)})  # one key: safetensors does not order several
    write_bytes(path, data)
    return hashlib.sha256(data).hexdigest()


def read_artifact(path: str | Path, *, schema: str) -> Artifact:
    """Read an artifact and verify that it is whole and of the wanted schema.

    Args:
        path: A file written by `write_artifact`.
        schema: The schema that the caller understands, such as ``tcvq.codes/1``.

    Returns:
        The artifact, with the hash of the file; tensors are on the CPU.

    Raises:
        ArtifactError: The file is missing, unreadable, damaged, not one of ours, or of another schema or version.
    """
    path = Path(path)
    data = _read_bytes(path)
    try:
        tensors = load(data)
        metadata = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")]).get("__metadata__", {})
    except (SafetensorError, ValueError, RecursionError) as error:
        reason = " ".join(str(error).split())
        raise ArtifactError(f"{path}: not a safetensors file, or damaged ({reason}); make or copy it again") from None
    found, meta, content = _header(path, metadata)
    _check_schema(path, found=found, wanted=schema)
    if _content_hash(found, meta, tensors) != content:
        raise ArtifactError(f"{path}: damaged, its content does not match its checksum; make or copy it again")
    return Artifact(schema=found, tensors=tensors, meta=meta, sha256=hashlib.sha256(data).hexdigest())


def config_from_meta(path: str | Path, meta: Mapping[str, object], config_type: type[C]) -> C:
    """Build the configuration dataclass that an artifact's metadata holds under ``config``.

    Args:
        path: Where the artifact came from, for the error.
        meta: The artifact's metadata.
        config_type: A dataclass whose fields are plain values and tuples.

    Raises:
        ArtifactError: There is no such configuration, or it has fields or values that ``config_type`` refuses.
    """
    stored = meta.get("config")
    known = {f.name for f in fields(cast(Any, config_type))}
    if not isinstance(stored, dict) or not set(stored) <= known:
        raise ArtifactError(f"{path}: holds no {config_type.__name__} that this version knows; make the file again")
    try:
        return config_type(**{name: tuple(v) if isinstance(v, list) else v for name, v in stored.items()})
    except (TypeError, ValueError) as error:
        raise ArtifactError(f"{path}: bad {config_type.__name__}: {error}; make the file again") from error


def _read_bytes(path: Path) -> bytes:
    """Return the bytes of ``path``, with every failure as an `ArtifactError`."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise ArtifactError(f"{path}: no such file; check the path, or run the step that makes it") from None
    except OSError as error:
        raise ArtifactError(f"{path}: cannot be read: {error.strerror}") from None


def _header(path: Path, metadata: dict[str, str]) -> tuple[str, dict[str, object], str]:
    """Return schema, meta and content hash from the safetensors metadata."""
    if _KEY not in metadata:
        raise ArtifactError(f"{path}: a safetensors file, but not one of this project (no {_KEY!r} in its metadata)")
    try:
        header = json.loads(metadata[_KEY])
    except (ValueError, RecursionError) as error:
        raise ArtifactError(f"{path}: damaged, its header is not JSON ({error}); make or copy it again") from None
    match header:
        case {"schema": str(schema), "meta": dict(meta), "content_sha256": str(content)} if _SCHEMA.fullmatch(schema):
            return schema, meta, content
    raise ArtifactError(f"{path}: damaged, its header lacks schema, meta or content_sha256; make or copy it again")


def _check_schema(path: Path, *, found: str, wanted: str) -> None:
    """Raise `ArtifactError` unless the file has the wanted schema."""
    if found == wanted:
        return
    (name, version), (wanted_name, wanted_version) = found.rsplit("/", 1), wanted.rsplit("/", 1)
    if name != wanted_name:
        raise ArtifactError(f"{path}: holds {found}, but {wanted} is needed here; check which file you gave")
    if int(version) > int(wanted_version):
        raise ArtifactError(f"{path}: holds {found}, but this software reads {wanted}; upgrade it to read this file")
    raise ArtifactError(f"{path}: holds {found}, but this software reads {wanted}; make the file again")


def _canonical(obj: object) -> str:
    """Return ``obj`` as the one JSON text that stands for it."""
    return json.dumps(obj, sort_keys=True, separators=(",", ":"), allow_nan=False)


def _content_hash(schema: str, meta: Mapping[str, object], tensors: Mapping[str, Tensor]) -> str:
    """Return the SHA-256 over schema, meta and all contiguous CPU tensors in the order of their names."""
    digest = hashlib.sha256(_canonical([schema, meta]).encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(_canonical([name, str(tensor.dtype), list(tensor.shape)]).encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
