"""Folders of image files: any of the user's own, and the fifth of LSUN's bedrooms that the paper trains on."""

import os
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import torch

from tcvq_data.images.encoded import EncodedImages, check_split, hash_split, report_empty
from tcvq_data.interface import ArtifactError, DataOptions, MissingDataError
from tcvq_data.layout import data_root, missing_data

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff")
_HELD_OUT = ("test", "val", "valid", "validation")


class ImageFiles(EncodedImages):
    """Samples that are files below one folder; ``files`` holds their paths in it, with ``/`` on every system."""

    def __init__(self, folder: Path, files: Sequence[str], options: DataOptions, *, size: int) -> None:
        """Take the files as they are, up to the limit of the options."""
        self.folder, self.files = folder, tuple(files[: options.limit])
        super().__init__(len(self.files), options, size=size)

    def encoded(self, index: int) -> tuple[Path, str]:
        """Return the path of one image, and that as text."""
        path = self.folder / self.files[index]
        return path, str(path)


class Listing(NamedTuple):
    """The images below a folder: paths of those with content and of those of 0 bytes, both sorted."""

    files: list[str]
    empty: list[str]


def list_images(folder: Path) -> Listing:
    """Find the images below a folder by their suffixes, nested ones too; no file is opened.

    Links are followed, once per folder. What begins with a dot is left out: copies from macOS bring ``._photo.jpg``.
    """
    listing, visited, todo = Listing([], []), set(), [(str(folder), "")]
    while todo:
        directory, prefix = todo.pop()
        status = Path(directory).stat()
        if (status.st_dev, status.st_ino) in visited:
            continue
        visited.add((status.st_dev, status.st_ino))
        with os.scandir(directory) as entries:
            for entry in sorted(entries, key=lambda entry: entry.name, reverse=True):
                if entry.name.startswith("."):
                    continue
                if entry.is_dir():
                    todo.append((entry.path, f"{prefix}{entry.name}/"))
                elif entry.name.lower().endswith(IMAGE_SUFFIXES) and entry.is_file():
                    (listing.files if entry.stat().st_size else listing.empty).append(prefix + entry.name)
    return Listing(sorted(listing.files), sorted(listing.empty))


def open_image_folder(path: str | Path, split: str, options: DataOptions) -> ImageFiles:
    """Open a folder of the user's own images, nested as it may be.

    Folders ``train`` and ``test`` directly in it are the splits (``val``, ``valid`` or ``validation`` serve as test,
    or beside one as val); everything outside them is left out. Otherwise `hash_split` divides the images, those in
    ``train`` if that stands alone. If every image lies in a subfolder, the first level of these are the classes.

    Args:
        path: The folder; ``~`` is expanded.
        split: ``"train"`` or ``"test"``, or ``"val"`` where there is one.
        options: Size (default 64), channels (default 3), limit, and the seed of the split.

    Raises:
        ValueError: The split is unknown.
        MissingDataError: There is no such folder.
        ArtifactError: The folder, or the split, holds no image.
    """
    name, folder = f"image-folder:{path}", Path(path).expanduser().absolute()
    if not folder.is_dir():
        what = "is a file" if folder.exists() else "does not exist"
        raise MissingDataError(f"{name}: {folder} {what}; give the path of a folder that holds images")
    splits = _split_folders(folder)
    check_split(name, split, tuple(splits) if len(splits) > 1 else ("train", "test"))
    part = splits.get(split, splits.get("train", "."))
    files, empty = list_images(folder / part)
    everything = files
    if len(splits) > 1:
        everything = [file for other in splits.values() for file in list_images(folder / other).files]
    if not files:
        raise _no_image(name, folder / part)
    if len(splits) < 2:
        files = [files[i] for i in hash_split(files, split, name=name, seed=options.seed)]
    source = ImageFiles(folder / part, files, options, size=64)
    _add_classes(source, everything)
    report_empty(name, source, empty)
    return source


def open_lsun_bedroom(split: str, options: DataOptions) -> ImageFiles:
    """Open the JPEG tree ``<root>/lsun-bedroom-20``, a random fifth of LSUN's bedrooms, 256×256 and without labels.

    There is no official split; `hash_split` makes one of the paths.

    Raises:
        ValueError: The split is unknown.
        MissingDataError: The folder is missing or holds no image.
    """
    name = "lsun-bedroom-20"
    folder = data_root(options.root) / name
    check_split(name, split, ("train", "test"))
    files, empty = list_images(folder) if folder.is_dir() else Listing([], [])
    if not files:
        raise missing_data(name, folder / "**" / "*.jpg" if folder.is_dir() else folder)
    chosen = [files[i] for i in hash_split(files, split, name=name, seed=options.seed)]
    source = ImageFiles(folder, chosen, options, size=256)
    report_empty(name, source, empty)
    return source


def _split_folders(folder: Path) -> dict[str, str]:
    """Return which subfolder holds which split; empty if there is none named train."""
    present = {entry.name.lower(): entry.name for entry in folder.iterdir() if entry.is_dir()}
    if "train" not in present:
        return {}
    held_out = [present[key] for key in _HELD_OUT if key in present]
    return {"train": present["train"], **dict(zip(("test", "val"), held_out, strict=False))}


def _no_image(name: str, folder: Path) -> ArtifactError:
    """Return the error for a folder with nothing to read."""
    found = ", ".join(sorted(path.name for path in islice(folder.iterdir(), 5))) or "nothing"
    kinds = ", ".join(suffix[1:] for suffix in IMAGE_SUFFIXES)
    return ArtifactError(f"{name}: {folder} holds no image with content (it holds {found}); known kinds: {kinds}")


def _add_classes(source: ImageFiles, everything: Sequence[str]) -> None:
    """Label the images by the first level of folders, if every image of all splits lies in one."""
    if all("/" in file for file in everything):
        source.classes = tuple(sorted({file.split("/", 1)[0] for file in everything}))
        number = {key: i for i, key in enumerate(source.classes)}
        source.labels = torch.tensor([number[file.split("/", 1)[0]] for file in source.files])
