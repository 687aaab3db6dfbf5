"""Faces: CelebA from its official files, and CelebA-HQ in the forms it is passed on in."""

import re
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from tcvq_data.images.encoded import EncodedImages, check_split, hash_split, report_empty
from tcvq_data.images.folder import ImageFiles, list_images
from tcvq_data.interface import ArtifactError, DataOptions, MissingDataError
from tcvq_data.layout import data_root, missing_data

MAPPING = "CelebA-HQ-to-CelebA-mapping.txt"
SPLITS = ("train", "val", "test")

_FIRST_VAL, _FIRST_TEST = 162_770, 182_637  # positions in CelebA's list_eval_partition.txt
_HQ_FOLDERS = ("CelebAMask-HQ/CelebA-HQ-img", "CelebA-HQ-img", ".")  # beside the first two lie masks of face parts


def open_celeba64(split: str, options: DataOptions) -> ImageFiles:
    """Open CelebA, 64×64, without labels, split as its authors did.

    Reads ``<root>/celeba/list_eval_partition.txt`` and ``<root>/celeba/img_align_celeba/*.jpg``.

    Args:
        split: ``"train"`` (162,770 images in the full set), ``"val"`` (19,867) or ``"test"`` (19,962).
        options: Size (default 64), channels (default 3) and limit.

    Raises:
        ValueError: The split is unknown.
        MissingDataError: A file is missing; for images, the first and how many.
        ArtifactError: The list of the splits is damaged.
    """
    name, folder = "celeba64", data_root(options.root) / "celeba"
    check_split(name, split, SPLITS)
    images, partition = folder / "img_align_celeba", folder / "list_eval_partition.txt"
    for path in (partition, images):
        if not path.exists():
            raise missing_data(name, path)
    files = _read_partition(partition, SPLITS.index(split))[: options.limit]
    there = {path.name for path in images.iterdir()}
    missing = [file for file in files if file not in there]
    if missing:
        raise MissingDataError(
            f"{name}: {len(missing)} of {len(files)} images of the {split} split are missing, the first is "
            f"{images / missing[0]}; unpack img_align_celeba.zip there again, or run: tcvq data download {name}"
        )
    return ImageFiles(images, files, options, size=64)


def _read_partition(path: Path, wanted: int) -> list[str]:
    """Return the files of one split, in the order of the list."""
    files: list[str] = []
    for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), start=1):
        fields = line.split()
        if not fields:
            continue
        if len(fields) != 2 or fields[1] not in ("0", "1", "2"):
            raise ArtifactError(f"{path} line {number}: {line[:60]!r} is not NAME 0, 1 or 2; fetch the file again")
        if fields[1] == str(wanted):
            files.append(fields[0])
    if not files:
        raise ArtifactError(f"{path}: the {SPLITS[wanted]} split has no image; fetch the file again")
    return files


def open_celeba_hq(split: str, options: DataOptions) -> EncodedImages:
    """Open CelebA-HQ from ``<root>/celeba-hq``, 256×256 and without labels.

    It holds images, nested or not, the tree of CelebAMask-HQ, or parquet shards with a column of images. With
    CelebAMask-HQ's `MAPPING` beside images whose names are their numbers, splits are those of CelebA; else, as
    always for shards that do not name their images, `hash_split` makes them.

    Args:
        split: ``"train"`` or ``"test"``, or with the mapping ``"val"``.
        options: Size (default 256), channels (default 3), limit, and the seed of the split.

    Raises:
        ValueError: The split is unknown.
        MissingDataError: The folder is missing or holds neither images nor shards.
        ArtifactError: The mapping or a shard is damaged, or does not fit the names of the images.
    """
    name, folder = "celeba-hq", data_root(options.root) / "celeba-hq"
    if not folder.is_dir():
        raise missing_data(name, folder)
    images = next(path for path in (folder / part for part in _HQ_FOLDERS) if path.is_dir())
    listing = list_images(images)
    if listing.files:
        chosen = _hq_split(name, split, listing.files, (images, images.parent, folder), options.seed)
        source = ImageFiles(images, [listing.files[i] for i in chosen], options, size=256)
        report_empty(name, source, listing.empty)
        return source
    shards = sorted(folder.rglob("*.parquet"))
    if not shards:
        raise missing_data(name, folder / "*.jpg")
    from tcvq_data.images.parquet import ParquetImages, arrow_copy

    path, names = arrow_copy(shards, data_root(options.root) / ".cache", name=name)
    named = [key for key in names if key]
    keys = named if len(set(named)) == len(names) else [f"row {row}" for row in range(len(names))]
    places = (folder,) if keys is named else ()
    return ParquetImages(path, _hq_split(name, split, keys, places, options.seed), options, size=256)


def _hq_split(name: str, split: str, keys: Sequence[str], places: Sequence[Path], seed: int) -> list[int]:
    """Return the positions of a split, by the mapping if it is in one of the places."""
    mapping = next((place / MAPPING for place in places if (place / MAPPING).is_file()), None)
    if mapping is None:
        return hash_split(keys, split, name=name, seed=seed)
    check_split(name, split, SPLITS)
    originals = _read_mapping(mapping)
    positions = []
    for position, key in enumerate(keys):
        number = re.search(r"\d+$", PurePosixPath(key).stem)
        if number is None or int(number[0]) not in originals:
            raise ArtifactError(
                f"{name}: {key!r} does not end in a number that {mapping} lists; move that file away to split by hash"
            )
        original = originals[int(number[0])]
        if SPLITS[(original >= _FIRST_VAL) + (original >= _FIRST_TEST)] == split:
            positions.append(position)
    if not positions:
        raise ArtifactError(f"{name}: none of its {len(keys)} images is in the {split} split of {mapping}")
    return positions


def _read_mapping(path: Path) -> dict[int, int]:
    """Return which position in CelebA each number of CelebA-HQ has."""
    originals = {}
    for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines()[1:], start=2):
        fields = line.split()
        if not fields:
            continue
        if len(fields) != 3 or not (fields[0].isdecimal() and fields[1].isdecimal()):
            raise ArtifactError(f"{path} line {number}: {line[:60]!r} is not NUMBER NUMBER NAME; fetch the file again")
        originals[int(fields[0])] = int(fields[1])
    return originals
