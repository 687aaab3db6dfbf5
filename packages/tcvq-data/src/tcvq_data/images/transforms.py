"""Encoded images to pixels: decoding to grey or colour, and the square crop that all photo datasets share."""

from io import BytesIO
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor

from tcvq_data.interface import ArtifactError

MAX_ASPECT = 64
"""Longest over shortest side of an image that `decode` still crops; a longer strip would explode when scaled up."""

_GREY16 = ("I;16", "I;16L", "I;16B", "I;16N", "I")
_GREY = ("1", "L", "LA", *_GREY16)
_ORIENTATION = 0x0112
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def crop(image: Image.Image, size: int) -> Image.Image:
    """Return the centre of an image as a square of ``size`` pixels.

    Halves both sides (rounded down, box filter) while the shorter is at least twice ``size``; scales the shorter to
    ``size`` (bicubic, the longer rounded); cuts the centre out, an odd pixel being lost on the right and below. A
    CelebA image goes 178×218 → 89×109 → 64×78 → 64×64.

    Args:
        image: Of mode L or RGB; of any size, smaller than ``size`` too.
        size: Height and width of the result S.

    Raises:
        ValueError: ``size`` is not positive.
    """
    if size < 1:
        raise ValueError(f"size={size} of a crop must be positive")
    while min(image.size) >= 2 * size:
        image = image.resize((image.width // 2, image.height // 2), Image.Resampling.BOX)
    scale = size / min(image.size)
    image = image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.BICUBIC)
    left, top = (image.width - size) // 2, (image.height - size) // 2
    return image.crop((left, top, left + size, top + size))


def decode(
    data: bytes | Path | Image.Image, *, size: int | None, channels: int | None, name: str
) -> UInt8[np.ndarray, "C H W"]:
    """Return the pixels of an encoded image, after `crop` if a size is given.

    Everything that Pillow reads becomes 8 bit grey or colour: palettes and CMYK are expanded, transparency lies over
    black, 16 bit grey is divided by 257 and rounded, an EXIF orientation is applied, and of a moving image the first
    frame is taken.

    Args:
        data: The bytes of an image file, the path of one, or an image that Pillow has opened.
        size: Height and width S of the result, None for those of the image.
        channels: 1 for grey, 3 for colour, None for what the image has.
        name: What to call the image in errors, such as its path.

    Raises:
        ArtifactError: The image is missing, empty, damaged, a decompression bomb, a strip longer than `MAX_ASPECT`
            times its width, or has values that are no pixels.
        ValueError: ``channels`` is neither 1, 3 nor None, or ``size`` is not positive.
    """
    if channels not in (None, 1, 3):
        raise ValueError(f"channels={channels} of an image must be 1 (grey), 3 (colour) or None")
    if isinstance(data, Path):
        data = _read(data, name)
    if data == b"":
        raise _undecodable(name, "it has 0 bytes")
    try:
        image = _eight_bit(_upright(data if isinstance(data, Image.Image) else Image.open(BytesIO(data))), channels)
    except Exception as error:  # Pillow's readers raise whatever a damaged header leads to, bomb warnings too
        raise _undecodable(name, f"{type(error).__name__}: {error}".replace("\n", " ")) from None
    if size is not None:
        if max(image.size) > MAX_ASPECT * min(image.size):
            raise _undecodable(name, f"{image.width}×{image.height} pixels are no picture to cut a square from")
        image = crop(image, size)
    pixels = np.array(image)
    return pixels[None] if pixels.ndim == 2 else np.ascontiguousarray(pixels.transpose(2, 0, 1))


def to_floats(pixels: UInt8[np.ndarray, "*shape"]) -> Float[Tensor, "*shape"]:
    """Return pixels v as float32 in [-1, 1], v / 127.5 - 1; ``pixels`` stays as it is."""
    return torch.from_numpy(pixels).float().div_(127.5).sub_(1)


def _read(path: Path, name: str) -> bytes:
    """Return the bytes of a file."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise _undecodable(name, error.strerror or str(error)) from None


def _upright(image: Image.Image) -> Image.Image:
    """Load an image and turn it as its EXIF orientation says; a damaged EXIF block says nothing."""
    image.load()
    try:
        orientation = image.getexif().get(_ORIENTATION)
    except Exception:  # as above; the pixels are fine, so the image is
        return image
    return image.transpose(_UPRIGHT[orientation]) if orientation in _UPRIGHT else image


def _eight_bit(image: Image.Image, channels: int | None) -> Image.Image:
    """Return an image as mode L or RGB."""
    if image.mode == "F":
        raise ValueError("floating point grey has no agreed range; save it with 8 or 16 bits")
    if channels is None:
        channels = 1 if image.mode in _GREY else 3
    if image.mode in _GREY16:
        values = np.asarray(image).astype(np.int64)
        if values.min() < 0 or values.max() > 65535:
            raise ValueError(f"grey values {values.min()} … {values.max()} leave the 16 bit range")
        image = Image.fromarray(((values + 128) // 257).astype(np.uint8))
    elif image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "black"), image)
    elif image.mode not in ("1", "L", "RGB"):
        image = image.convert("RGB")
    return image.convert("L" if channels == 1 else "RGB")


def _undecodable(name: str, why: str) -> ArtifactError:
    """Return the error for an image that cannot be used."""
    return ArtifactError(
        f"{name}: not a readable image ({why}); replace or remove it, tcvq data verify lists all such images"
    )
