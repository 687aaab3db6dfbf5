"""Images and clips in batches: from folders of pictures, from npz files, from tensors, or from any function."""

import hashlib
import zipfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from .comparison import as_saved

IMAGE_SUFFIXES = frozenset({".png", ".bmp", ".jpg", ".jpeg", ".webp", ".tif", ".tiff"})
NPZ_NAMES = ("images", "samples", "arr_0", "x", "data", "frames", "clips")
_RANK_IMAGES, _RANK_CLIPS = 4, 5


@dataclass(frozen=True, kw_only=True, slots=True)
class Source:
    """A set of images or clips that is read in batches, each time from its beginning.

    Attributes:
        name: What it is, such as a path or a split.
        n: Number of items.
        read: Called with a batch size; yields ``(B, *shape)`` float32 in [-1, 1], ``n`` items in all.
    """

    name: str
    n: int
    read: Callable[[int], Iterator[Float[Tensor, "B *shape"]]]

    def batches(self, size: int) -> Iterator[Float[Tensor, "B *shape"]]:
        """Yield the items in batches of at most ``size``, images rounded to 8 bit as pictures are."""
        for batch in self.read(size):
            yield as_saved(batch) if batch.ndim == _RANK_IMAGES else batch.float()


def tensor_source(items: Float[Tensor, "N *shape"], name: str = "tensor") -> Source:
    """Return images or clips in memory as a source."""
    return Source(name=name, n=len(items), read=lambda size: iter(items.split(size)))


def content_sha256(batches: Iterable[Tensor]) -> Iterator[tuple[Tensor, Callable[[], str]]]:
    """Yield each batch with a function that returns the hash of all items so far; it does not depend on batches."""
    digest = hashlib.sha256()
    for batch in batches:
        rows = batch.detach().cpu().float().contiguous()
        for row in rows:
            digest.update(str(tuple(row.shape)).encode() + row.numpy().tobytes())
        yield batch, digest.hexdigest


def open_source(path: Path) -> Source:
    """Open a folder of pictures or an npz file of images or clips.

    A folder is searched with its subfolders, in the order of names. An npz file holds uint8 ``(N, H, W, C)``,
    ``(N, C, H, W)`` or ``(N, H, W)``, or floats in [-1, 1]; clips are ``(N, T, 2, H, W)``.

    Raises:
        ValueError: There is nothing to measure in it; says what was found.
    """
    if path.is_dir():
        return _folder(path)
    if path.suffix == ".npz" and path.is_file():
        return _npz(path)
    what = "is neither a folder of pictures nor an .npz file" if path.exists() else "does not exist"
    raise ValueError(f"{path} {what}; give a folder that holds PNG files, or an .npz file of images")


def _folder(path: Path) -> Source:
    files = sorted(file for file in path.rglob("*") if file.suffix.lower() in IMAGE_SUFFIXES)
    if not files:
        raise ValueError(f"{path} holds no pictures ({', '.join(sorted(IMAGE_SUFFIXES))}); check the folder")

    def read(size: int) -> Iterator[Tensor]:
        for first in range(0, len(files), size):
            yield torch.stack(_same_shape(files[first : first + size])).float() / 127.5 - 1

    return Source(name=str(path), n=len(files), read=read)


def _same_shape(files: list[Path]) -> list[Tensor]:
    """Read pictures, which must be of one size."""
    images = [_picture(file) for file in files]
    for file, image in zip(files, images, strict=True):
        if image.shape != images[0].shape:
            raise ValueError(
                f"{file} is {tuple(image.shape)} (channels, height, width) but {files[0]} is "
                f"{tuple(images[0].shape)}; measure pictures of one size and kind"
            )
    return images


def _picture(file: Path) -> Tensor:
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(file) as opened:
            picture = opened if opened.mode in ("L", "RGB") else opened.convert("RGB")
            array = np.array(picture, dtype=np.uint8)
    except (UnidentifiedImageError, OSError) as error:
        raise ValueError(f"{file} is not a readable picture ({error}); remove it or save it again") from error
    return torch.from_numpy(array[None] if array.ndim == 2 else array.transpose(2, 0, 1).copy())


def npz_member(path: Path) -> str:
    """Return the name of the array of images in an npz file, empty if there is none.

    Raises:
        ValueError: The file is damaged.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            names = [name.removesuffix(".npy") for name in archive.namelist()]
    except (zipfile.BadZipFile, OSError) as error:
        raise ValueError(f"{path} is not an npz file ({error}); save it with numpy.savez") from error
    known = [name for name in NPZ_NAMES if name in names]
    return known[0] if known else (names[0] if len(names) == 1 else "")


def _npz(path: Path) -> Source:
    member = npz_member(path)
    if not member:
        raise ValueError(f"{path} holds no array called {', '.join(NPZ_NAMES)}; save one with numpy.savez(images=...)")
    with zipfile.ZipFile(path) as archive, archive.open(f"{member}.npy") as file:
        shape, order, dtype = _header(file)
    if len(shape) not in (3, 4, 5) or order or not (dtype == np.uint8 or dtype.kind == "f"):
        raise ValueError(
            f"{path}: {member} is {dtype} {shape}; it must be uint8 or floats in [-1, 1], (N, H, W), (N, H, W, C), "
            "(N, C, H, W) or (N, T, C, H, W), in C order"
        )

    def read(size: int) -> Iterator[Tensor]:
        row = int(np.prod(shape[1:])) * dtype.itemsize
        with zipfile.ZipFile(path) as archive, archive.open(f"{member}.npy") as file:
            _header(file)
            for first in range(0, shape[0], size):
                n = min(size, shape[0] - first)
                array = np.frombuffer(file.read(n * row), dtype).reshape(n, *shape[1:])
                yield _as_images(array, path)

    return Source(name=str(path), n=shape[0], read=read)


def _header(file: object) -> tuple[tuple[int, ...], bool, np.dtype]:
    """Read the head of an npy stream: shape, whether in Fortran order, dtype."""
    version = np.lib.format.read_magic(file)  # type: ignore[arg-type]  # any readable file will do
    reader = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    return reader(file)  # type: ignore[arg-type]  # any readable file will do


def _as_images(array: np.ndarray, path: Path) -> Tensor:
    """Return an array as ``(N, C, H, W)`` or ``(N, T, C, H, W)`` in [-1, 1]."""
    x = torch.from_numpy(array.copy())
    if x.ndim == 3:
        x = x[:, None]
    elif x.ndim == _RANK_IMAGES and x.shape[-1] in (1, 3) and x.shape[1] not in (1, 3):
        x = x.permute(0, 3, 1, 2)
    x = x.float() / 127.5 - 1 if array.dtype == np.uint8 else x.float()
    if x.ndim != _RANK_CLIPS and not bool((x.abs() <= 1).all()):
        raise ValueError(f"{path} holds values in [{x.min():.4g}, {x.max():.4g}]; floats must lie in [-1, 1]")
    return x
