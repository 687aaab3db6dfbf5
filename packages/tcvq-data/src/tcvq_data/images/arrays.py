"""Images held in memory as bytes: the source behind MNIST, CIFAR-10 and a user's own .npz file."""

import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int, Shaped, UInt8
from torch import Tensor

from tcvq_data.images.encoded import check_split, hash_split
from tcvq_data.interface import ArtifactError, DataOptions, MissingDataError, Sample

MAX_CLASSES = 10_000
"""Most classes that unnamed labels may count up to; beyond, they are something else than classes."""

_SPLITS = ("train", "test", "val")


class ArraySource:
    """Images of one size that are kept as uint8 and become float32 in [-1, 1] at each access.

    Attributes:
        classes: Names of the classes, empty where there are no labels.
        labels: Class of every image, -1 where there is none; int64.
        pixels: The images as stored, without padding.
        size: Height and width of the samples, None for those of the images.
        channels: 1 for grey, 3 for colour.
    """

    classes: tuple[str, ...]
    labels: Int[Tensor, " N"]
    pixels: UInt8[Tensor, "N C H W"]

    def __init__(
        self,
        images: Shaped[np.ndarray, "..."],
        labels: Shaped[np.ndarray, "..."] | None = None,
        classes: tuple[str, ...] = (),
        options: DataOptions | None = None,
        *,
        name: str = "images",
    ) -> None:
        """Take the images, up to the limit of the options.

        Args:
            images: uint8 ``(N, H, W)``, ``(N, H, W, C)`` or ``(N, C, H, W)`` with C = 1 or 3.
            labels: Integers ``(N,)`` in [-1, number of classes); None for no labels.
            classes: Names of the classes; if empty, the labels' numbers serve.
            options: Size (larger ones pad with black), channels and limit.
            name: What to call the images in errors.

        Raises:
            ArtifactError: The arrays are not as described.
            ValueError: The size is smaller than the images are.
        """
        options = options or DataOptions()
        pixels = _channels_first(images, name)
        numbers = np.full(len(pixels), -1) if labels is None else _checked_labels(labels, len(pixels), classes, name)
        self.classes = classes or tuple(str(k) for k in range(int(numbers.max()) + 1))
        pixels = np.ascontiguousarray(pixels[: options.limit])
        if options.channels == 1 and pixels.shape[1] == 3:
            pixels = to_grey(pixels)
        self.pixels = torch.from_numpy(pixels if pixels.flags.writeable else pixels.copy())
        self.labels = torch.from_numpy(numbers[: options.limit].astype(np.int64))
        self.size, self.channels = options.size, options.channels or pixels.shape[1]
        check_size(self.pixels, self.size, name)

    def __len__(self) -> int:
        """Number of images."""
        return len(self.labels)

    def __getitem__(self, index: int) -> Sample:
        """Return one image ``(C, S, S)`` and its label."""
        index = range(len(self))[index]
        return Sample(self._floats(self.pixels[index : index + 1])[0], self.labels[index])

    def batch(self, index: list[int]) -> Sample:
        """Return the samples at some positions, stacked: ``Sample((B, C, S, S), (B,))``."""
        return Sample(self._floats(self.pixels[index]), self.labels[index])

    def _floats(self, pixels: UInt8[Tensor, "B C H W"]) -> Float[Tensor, "B K S1 S2"]:
        images = pad_black(pixels.float().div_(127.5).sub_(1), self.size)
        return images if images.shape[1] == self.channels else images.repeat(1, self.channels, 1, 1)


def check_size(images: Shaped[Tensor, "*B H W"], size: int | None, name: str) -> None:
    """Raise a ValueError if images of this size cannot be padded to ``size``."""
    height, width = images.shape[-2:]
    if size is not None and size < max(height, width):
        raise ValueError(
            f"size={size} of {name} is smaller than its {height}x{width} images, which are padded, never scaled; take "
            f"{max(height, width)} or more"
        )


def pad_black(images: Float[Tensor, "*B H W"], size: int | None) -> Float[Tensor, "*B S1 S2"]:
    """Return images in the middle of black squares of ``size``, an odd pixel right and below; None changes nothing."""
    if size is None or images.shape[-2:] == (size, size):
        return images
    down, across = size - images.shape[-2], size - images.shape[-1]
    return F.pad(images, (across // 2, across - across // 2, down // 2, down - down // 2), value=-1.0)


def to_grey(pixels: UInt8[np.ndarray, "N 3 H W"]) -> UInt8[np.ndarray, "N 1 H W"]:
    """Return the luma of ITU-R 601, .299 R + .587 G + .114 B, rounded in fixed point as Pillow does."""
    red, green, blue = (pixels[:, k : k + 1].astype(np.uint32) for k in range(3))
    return ((19595 * red + 38470 * green + 7471 * blue + 0x8000) >> 16).astype(np.uint8)


def index_split(n: int, split: str, *, name: str, seed: int, remedy: str) -> list[int]:
    """Return the positions of a split of ``n`` samples that have only their number: `hash_split` of that.

    Raises:
        ValueError: The split is unknown.
        ArtifactError: No sample falls into the split; the message ends with ``remedy``.
    """
    check_split(name, split, ("train", "test"))
    try:
        return hash_split([str(i) for i in range(n)], split, name=name, seed=seed)
    except ArtifactError:
        raise ArtifactError(f"{name}: none of its {n} images falls into the {split} split; {remedy}") from None


def open_npz(path: str | Path, split: str, options: DataOptions) -> ArraySource:
    """Open a user's own ``.npz`` file.

    It holds ``images``, uint8 ``(N, H, W)`` or ``(N, H, W, C)``, which the hash of (seed, number) divides into train
    and test, 9 to 1; or ``train_images`` and ``test_images``, and maybe ``val_images``. ``labels``, or
    ``train_labels`` and so on, are integers; ``classes`` are their names. Only labels and classes may be left out.

    Args:
        path: The file; ``~`` is expanded.
        split: ``"train"`` or ``"test"``, or ``"val"`` where there is one.
        options: Size (default: that of the images), channels, limit, and the seed of the split.

    Raises:
        ValueError: The split is unknown, or the size smaller than the images.
        MissingDataError: There is no such file.
        ArtifactError: It is damaged, or its arrays are not as described.
    """
    name, file = f"npz:{path}", Path(path).expanduser()
    check_split(name, split, _SPLITS)
    if not file.is_file():
        what = "a folder" if file.exists() else "no such file"
        raise MissingDataError(f"{name}: {what}: {file.absolute()}; give the path of a .npz file with images")
    arrays = _arrays(file, split, name)
    images, labels = arrays["images"], arrays.get("labels")
    if "whole" in arrays:
        remedy = "add images, change the seed, or save train_images and test_images"
        rows = index_split(len(images), split, name=name, seed=options.seed, remedy=remedy)
        if labels is not None:
            _checked_labels(labels, len(images), (), name)
        images, labels = images[rows], None if labels is None else labels[rows]
    return ArraySource(images, labels, classes=_class_names(arrays, name), options=options, name=name)


def _arrays(file: Path, split: str, name: str) -> dict[str, Shaped[np.ndarray, "..."]]:
    """Return images, labels and classes of a split, ``every_*`` labels, and ``whole`` if it has still to be split."""
    try:
        with file.open("rb") as stream:
            archive = np.load(stream, allow_pickle=False)
            if not isinstance(archive, np.lib.npyio.NpzFile):
                raise ArtifactError(f"{name}: holds one unnamed array; save it with numpy.savez(path, images=array)")
            wanted = _wanted(archive.files, split, name)
            found = {key: archive[stored] for key, stored in wanted.items()}
    except ArtifactError:
        raise
    except (OSError, ValueError, EOFError, KeyError, NotImplementedError, zlib.error, zipfile.BadZipFile) as error:
        text = f"{type(error).__name__}: {error}".splitlines()[0]
        raise ArtifactError(f"{name}: damaged, or not an .npz file of plain arrays ({text}); save it again") from None
    if found["images"].ndim == 0:
        raise ArtifactError(f"{name}: {wanted['images']} is a single number, not an array of images")
    return found


def _wanted(stored: list[str], split: str, name: str) -> dict[str, str]:
    """Return which stored array plays which part."""
    if "images" in stored:
        parts = {"images": "images", "labels": "labels", "every_labels": "labels", "whole": "images"}
    elif {"train_images", "test_images"} <= set(stored):
        check_split(name, split, [known for known in _SPLITS if f"{known}_images" in stored])
        parts = {"images": f"{split}_images", "labels": f"{split}_labels"}
        parts |= {f"every_{known}": f"{known}_labels" for known in _SPLITS}
    else:
        raise ArtifactError(
            f"{name}: lacks images, or train_images and test_images; it holds {', '.join(stored) or 'nothing'} "
            "(labels, or train_labels and test_labels, and classes may be left out)"
        )
    parts["classes"] = "classes"
    return {key: array for key, array in parts.items() if array in stored}


def _class_names(arrays: Mapping[str, Shaped[np.ndarray, "..."]], name: str) -> tuple[str, ...]:
    """Return the stored names, else the numbers up to the largest label of all splits."""
    names = arrays.get("classes")
    if names is None:
        every = [a for key, a in arrays.items() if key.startswith("every_") and a.size and a.dtype.kind in "iu"]
        return tuple(str(k) for k in range(max((int(a.max()) for a in every), default=-1) + 1))
    if names.ndim != 1 or names.dtype.kind != "U" or len(set(names.tolist())) != len(names):
        raise ArtifactError(f"{name}: classes {names.shape} {names.dtype} must be a list of different texts")
    return tuple(names.tolist())


def _channels_first(images: Shaped[np.ndarray, "..."], name: str) -> UInt8[np.ndarray, "N C H W"]:
    """Return a view of images with axes N C H W."""
    if images.dtype != np.uint8:
        raise ArtifactError(f"{name}: images are {images.dtype}, not uint8; save them as 0 (black) to 255 (white)")
    if images.size == 0:
        raise ArtifactError(f"{name}: images have shape {images.shape}; there must be at least one, with pixels")
    if images.ndim == 3:
        return images[:, None]
    if images.ndim == 4 and images.shape[3] in (1, 3):
        return images.transpose(0, 3, 1, 2)
    if images.ndim == 4 and images.shape[1] in (1, 3):
        return images
    raise ArtifactError(
        f"{name}: images have shape {images.shape}, not (N, 1 or 3, H, W), (N, H, W, 1 or 3) or (N, H, W)"
    )


def _checked_labels(
    labels: Shaped[np.ndarray, "..."], n: int, classes: tuple[str, ...], name: str
) -> Int[np.ndarray, " N"]:
    """Return the labels as int64."""
    if labels.dtype.kind not in "iu" or labels.shape != (n,):
        raise ArtifactError(f"{name}: labels are {labels.dtype} {labels.shape}, not one integer for each of {n} images")
    low, high, most = int(labels.min()), int(labels.max()), len(classes) or MAX_CLASSES
    if low < -1 or high >= most:
        raise ArtifactError(f"{name}: labels span {low} to {high}, with {most} classes; -1 stands for none")
    return labels.astype(np.int64)
