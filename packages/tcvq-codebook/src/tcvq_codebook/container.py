"""Tensors and JSON in one file: the safetensors format, and in its header this project's checked metadata.

Written out here because this package needs torch, numpy, einops and jaxtyping alone. The format is that of safetensors:
8 bytes with the length of the header, the header as JSON, then the bytes of all tensors without a gap. The metadata key
``tcvq`` holds ``{"content_sha256", "meta", "schema"}``, as in every file of this project; reading runs no code.
"""

import hashlib
import json
import math
import os
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

_KEY = "tcvq"
_DTYPES = {  # in the order in which safetensors writes, the last first, so that every tensor is aligned
    "BOOL": torch.bool,
    "U8": torch.uint8,
    "I8": torch.int8,
    "I16": torch.int16,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I32": torch.int32,
    "F32": torch.float32,
    "F64": torch.float64,
    "I64": torch.int64,
}
_NAMES = {dtype: name for name, dtype in _DTYPES.items()}


class CodebookFileError(ValueError):
    """A file is missing, damaged, or not what is needed; one line that says what to do."""


class Contents(NamedTuple):
    """What a file holds; schema and meta are None in a safetensors file of others."""

    tensors: dict[str, Tensor]
    schema: str | None
    meta: dict[str, object] | None


def write_container(path: str | Path, tensors: Mapping[str, Tensor], *, schema: str, meta: Mapping[str, object]) -> str:
    """Write a file whole or not at all, and return its SHA-256.

    Args:
        path: The file to make or to replace. Its folder must exist.
        tensors: Arrays by name, of any shape; copied to the CPU.
        schema: Name and version of the layout, such as ``tcvq.codebook/1``.
        meta: Everything else, as JSON types.

    Raises:
        ValueError: ``meta`` holds NaN or infinity, or a tensor's dtype has no name in this format.
        TypeError: ``meta`` holds something that is not a JSON type.
        OSError: Writing failed; what stood at ``path`` before is untouched.
    """
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    if unknown := [f"{name} ({t.dtype})" for name, t in plain.items() if t.dtype not in _NAMES]:
        raise ValueError(
            f"cannot write {', '.join(unknown)} to {path}; convert to one of {', '.join(map(str, _NAMES))}"
        )
    content = _content_hash(schema, meta, plain)
    header: dict[str, object] = {
        "__metadata__": {_KEY: _canonical({"content_sha256": content, "meta": meta, "schema": schema})}
    }
    rank = list(_NAMES)
    names = sorted(plain, key=lambda name: (-rank.index(plain[name].dtype), name))
    end = 0
    for name in names:
        start, end = end, end + plain[name].nbytes
        header[name] = {
            "dtype": _NAMES[plain[name].dtype],
            "shape": list(plain[name].shape),
            "data_offsets": [start, end],
        }
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    data = b"".join([len(text).to_bytes(8, "little"), text, *(_bytes(plain[name]) for name in names)])
    _write_whole(Path(path), data)
    return hashlib.sha256(data).hexdigest()


def read_container(path: str | Path) -> Contents:
    """Read a safetensors file, and verify its checksum where it is one of this project.

    Raises:
        CodebookFileError: The file is missing, unreadable, truncated or damaged.
    """
    try:
        data = Path(path).read_bytes()
    except FileNotFoundError:
        raise CodebookFileError(f"{path}: no such file; check the path") from None
    except OSError as error:
        raise CodebookFileError(f"{path}: cannot be read: {error.strerror}") from None
    try:
        tensors, metadata = _parse(data)
        if _KEY not in metadata:
            return Contents(tensors, None, None)
        own = json.loads(metadata[_KEY])
        schema, meta, content = own["schema"], own["meta"], own["content_sha256"]
        if not (isinstance(schema, str) and isinstance(meta, dict)):
            raise ValueError("schema or meta has the wrong type")
        if _content_hash(schema, meta, tensors) != content:
            raise ValueError("its content does not match its checksum")
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        reason = " ".join(str(error).split())
        raise CodebookFileError(
            f"{path}: not a safetensors file, or damaged ({reason}); make or copy it again"
        ) from None
    return Contents(tensors, schema, meta)


def _parse(data: bytes) -> tuple[dict[str, Tensor], Mapping[str, str]]:
    """Return all tensors and the metadata; ValueError, KeyError or TypeError where the bytes break the format."""
    length = int.from_bytes(data[:8], "little")
    if len(data) < 8 or length > len(data) - 8:
        raise ValueError(f"{len(data)} bytes are too few for a header of {length}")
    header = json.loads(data[8 : 8 + length])
    if not isinstance(header, dict):
        raise ValueError("its header is not a JSON object")
    metadata = header.pop("__metadata__", {})
    body = memoryview(data)[8 + length :]
    tensors: dict[str, Tensor] = {}
    end = 0
    for name, entry in sorted(header.items(), key=lambda item: item[1]["data_offsets"]):
        dtype, shape, offsets = _DTYPES[entry["dtype"]], entry["shape"], entry["data_offsets"]
        if not all(type(n) is int and n >= 0 for n in [*shape, *offsets]):
            raise ValueError(f"shape {shape} or offsets {offsets} of {name!r} are not whole numbers")
        start, stop = offsets
        if start != end or stop - start != math.prod(shape) * dtype.itemsize or stop > len(body):
            raise ValueError(f"{name!r} of {entry['dtype']} {shape} is not at bytes {start} to {stop} of {len(body)}")
        tensors[name] = _tensor(body[start:stop], dtype).view(shape)
        end = stop
    if end != len(body):
        raise ValueError(f"{len(body) - end} bytes too many")
    return tensors, metadata


def _tensor(part: memoryview, dtype: torch.dtype) -> Tensor:
    return torch.frombuffer(bytearray(part), dtype=dtype) if len(part) else torch.empty(0, dtype=dtype)


def _bytes(tensor: Tensor) -> bytes:
    return tensor.reshape(-1).view(torch.uint8).numpy().tobytes()


def _canonical(obj: object) -> str:
    """Return ``obj`` as the one JSON text that stands for it."""
    return json.dumps(obj, sort_keys=True, separators=(",", ":"), allow_nan=False)


def _content_hash(schema: str, meta: Mapping[str, object], tensors: Mapping[str, Tensor]) -> str:
    """Return the SHA-256 over schema, meta and all tensors in the order of their names."""
    digest = hashlib.sha256(_canonical([schema, meta]).encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(_canonical([name, str(tensor.dtype), list(tensor.shape)]).encode())
        digest.update(_bytes(tensor))
    return digest.hexdigest()


def _write_whole(path: Path, data: bytes) -> None:
    """Write beside ``path``, flush to disk, then rename; nothing is left behind on failure."""
    temporary = path.with_name(f".tmp-{secrets.token_hex(6)}-{path.name}")
    try:
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
