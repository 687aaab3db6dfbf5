"""The manifest of a folder of codes: what they are, which shards hold them, and the hash that identifies them."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tcvq_data.codes.header import SCHEMA, Header, header_of
from tcvq_data.files import write_json
from tcvq_data.interface import ArtifactError

MANIFEST = "manifest.json"


@dataclass(frozen=True, kw_only=True, slots=True)
class Shard:
    """One file of rows.

    Attributes:
        file: Its name.
        rows: How many it holds.
        sha256: Hash of its bytes.
    """

    file: str
    rows: int
    sha256: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Manifest:
    """Content of ``manifest.json``.

    Attributes:
        header: What the grids have in common.
        shards: The files of the folder that hold them.
        content_sha256: Hash of header and content, by which later artifacts name these codes.
    """

    header: Header
    shards: tuple[Shard, ...]
    content_sha256: str


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write ``manifest.json`` atomically."""
    tree = {
        "schema": SCHEMA,
        "content_sha256": manifest.content_sha256,
        **asdict(manifest.header),
        "count": sum(shard.rows for shard in manifest.shards),
        "shards": [asdict(shard) for shard in manifest.shards],
    }
    write_json(folder / MANIFEST, tree)


def read_manifest(folder: Path) -> Manifest:
    """Return the content of ``manifest.json``.

    Raises:
        ArtifactError: There is none, it is damaged, or of another schema.
    """
    tree = read_tree(_existing(folder))
    found = tree.get("schema")
    if found != SCHEMA:
        raise ArtifactError(
            f"{folder}: holds {found}, but {SCHEMA} is needed here; encode again, or upgrade if it is newer"
        )
    header, shards = header_of(tree), shards_of(tree)
    match tree:
        case {"content_sha256": str(sha256), "count": int(n)} if header and shards and n == sum(s.rows for s in shards):
            return Manifest(header=header, shards=shards, content_sha256=sha256)
    raise ArtifactError(f"{folder}: {MANIFEST} with missing, mistyped or contradictory fields; encode again")


def read_tree(path: Path) -> dict[str, Any]:
    """Return the JSON object in a file.

    Raises:
        ArtifactError: It cannot be read, or holds no JSON object.
    """
    try:
        tree = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ArtifactError(f"{path}: cannot be read, or damaged ({error}); encode again") from None
    if not isinstance(tree, dict):
        raise ArtifactError(f"{path}: damaged, not a JSON object; encode again")
    return tree


def shards_of(tree: dict[str, Any]) -> tuple[Shard, ...] | None:
    """Return the list of shards, or None if there is none, or one of them is no file of the folder."""
    shards = []
    for entry in tree.get("shards") or ():
        match entry:
            case {"file": str(file), "rows": int(rows), "sha256": str(sha256)} if rows >= 0 and Path(file).name == file:
                shards.append(Shard(file=file, rows=rows, sha256=sha256))
            case _:
                return None
    return tuple(shards) or None


def _existing(folder: Path) -> Path:
    """Return the path of a folder's manifest if there is one."""
    if folder.is_file():
        raise ArtifactError(f"{folder}: a file, but {SCHEMA} is a folder of Arrow shards; encode again")
    if not folder.is_dir():
        raise ArtifactError(f"{folder}: no such folder; check the path, or run the step that makes it")
    if not (folder / MANIFEST).is_file():
        raise ArtifactError(f"{folder}: has no {MANIFEST}, so it holds no codes, or not all of them; encode again")
    return folder / MANIFEST
