"""Where codes lie while they are written, and the step that makes the folder of all ranks appear."""

import shutil
from errno import EEXIST, ENOENT
from pathlib import Path
from typing import Any

from tcvq_data.codes.header import Header, header_of
from tcvq_data.codes.manifest import MANIFEST, Manifest, Shard, read_tree, shards_of, write_manifest
from tcvq_data.codes.reader import checked_codes
from tcvq_data.files import write_json
from tcvq_data.interface import ArtifactError, Codes

_FOR_DATASETS = ("state.json", "dataset_info.json")


def finish_codes(path: str | Path) -> Codes:
    """Read back what all ranks have written, write the manifest, and make the folder appear.

    Call it once, when every rank has left the ``with`` block of its `CodesWriter`.

    Args:
        path: The folder to make or to replace, as given to the writers.

    Returns:
        The codes as `read_codes` returns them.

    Raises:
        ArtifactError: A rank has not finished, the ranks disagree, or a shard is damaged.
        OSError: Writing failed.
    """
    path = Path(path)
    check_target(path)
    folder = partial_folder(path)
    header, shards = _all_ranks(folder)
    keep = {shard.file for shard in shards}
    for file in list(folder.iterdir()):
        if file.name not in keep and not file.name.startswith("rank-"):
            file.unlink()
    codes = checked_codes(folder, Manifest(header=header, shards=shards, content_sha256=""))
    for file in list(folder.glob("rank-*.json")):
        file.unlink()
    _write_for_datasets(folder, shards, codes.sha256)
    write_manifest(folder, Manifest(header=header, shards=shards, content_sha256=codes.sha256))
    _replace(folder, path)
    return codes


def rank_file(rank: int) -> str:
    """Return the name of the file that says that a rank is done."""
    return f"rank-{rank:05d}.json"


def partial_folder(path: Path) -> Path:
    """Return where the files lie before they are complete; all ranks must find it."""
    return path.with_name(f".partial-{path.name}")


def check_target(path: Path) -> None:
    """Raise OSError unless ``path`` can be made, or holds nothing but files of codes."""
    if not path.parent.is_dir():
        raise FileNotFoundError(ENOENT, f"cannot write {path.name}, its folder does not exist", str(path.parent))
    if path.exists() and not path.is_dir():
        raise FileExistsError(EEXIST, "cannot write a folder of codes here, the path is a file", str(path))
    for file in path.iterdir() if path.is_dir() else ():
        if file.name not in (MANIFEST, *_FOR_DATASETS) and file.suffix != ".arrow":
            raise FileExistsError(EEXIST, f"cannot replace this folder by codes, it holds {file.name}", str(path))


def _all_ranks(folder: Path) -> tuple[Header, tuple[Shard, ...]]:
    """Return header and shards of all ranks, rank by rank."""
    tree = _rank_tree(folder, 0)
    header, world_size, shards = header_of(tree), tree.get("world_size"), list[Shard]()
    if header is None or not isinstance(world_size, int):
        raise ArtifactError(f"{folder / rank_file(0)}: damaged, a field is missing; encode again")
    for rank in range(world_size):
        tree = _rank_tree(folder, rank)
        theirs = shards_of(tree)
        if theirs is None or (header_of(tree), tree.get("world_size")) != (header, world_size):
            raise ArtifactError(f"{folder}: rank {rank} wrote other codes than rank 0; encode again")
        shards += theirs
    return header, tuple(shards)


def _rank_tree(folder: Path, rank: int) -> dict[str, Any]:
    """Return what a rank wrote when it was done."""
    if not (folder / rank_file(rank)).is_file():
        raise ArtifactError(f"{folder}: rank {rank} has not written all its codes; wait for it, or encode again")
    return read_tree(folder / rank_file(rank))


def _write_for_datasets(folder: Path, shards: tuple[Shard, ...], sha256: str) -> None:
    """Write what `datasets.load_from_disk` reads besides the shards; column types come from the Arrow files."""
    state: dict[str, object] = {
        "_data_files": [{"filename": shard.file} for shard in shards],
        "_fingerprint": sha256[:16],
        "_format_columns": None,
        "_format_kwargs": {},
        "_format_type": None,
        "_output_all_columns": False,
        "_split": None,
    }
    trees: tuple[dict[str, object], ...] = (state, {})
    for name, tree in zip(_FOR_DATASETS, trees, strict=True):
        write_json(folder / name, tree)


def _replace(folder: Path, path: Path) -> None:
    """Move ``folder`` to ``path``, and delete what was there."""
    old = path.with_name(f".old-{path.name}")
    shutil.rmtree(old, ignore_errors=True)
    if path.exists():
        path.rename(old)
    try:
        folder.rename(path)
    except OSError:
        if old.exists():
            old.rename(path)
        raise
    shutil.rmtree(old, ignore_errors=True)
