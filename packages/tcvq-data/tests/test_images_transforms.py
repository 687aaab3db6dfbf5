import struct
import zlib
from contextlib import suppress
from io import BytesIO

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from tcvq_data import ArtifactError
from tcvq_data.images.transforms import crop, decode, to_floats
from tcvq_data.testing.folders import draw_picture, encode_picture


def crop_reference(image, size):
    width, height = image.size
    while width >= 2 * size and height >= 2 * size:
        width, height = width // 2, height // 2
        image = image.resize((width, height), Image.BOX)
    if width < height:
        width, height = size, round(height * size / width)
    else:
        width, height = round(width * size / height), size
    array = np.asarray(image.resize((width, height), Image.BICUBIC))
    y, x = (height - size) // 2, (width - size) // 2
    return array[y : y + size, x : x + size]


def saved(image, kind="PNG", **options):
    stream = BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def png_header(width, height):
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    about = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", about) + chunk(b"IDAT", zlib.compress(b"\0")) + chunk(b"IEND", b"")


def test_a_celeba_image_goes_through_the_documented_sizes(monkeypatch):
    sizes, resize = [], Image.Image.resize
    monkeypatch.setattr(Image.Image, "resize", lambda self, *a: sizes.append((self.size, *a)) or resize(self, *a))
    assert crop(draw_picture(3, width=178, height=218), 64).size == (64, 64)
    box, bicubic = Image.Resampling.BOX, Image.Resampling.BICUBIC
    assert sizes == [((178, 218), (89, 109), box), ((89, 109), (64, 78), bicubic)]


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 150), st.integers(1, 150), st.integers(1, 40), st.sampled_from(["L", "RGB"]))
def test_crop_equals_an_independent_one(width, height, size, mode):
    image = draw_picture(width + height, width=width, height=height).convert(mode)
    assert np.array_equal(np.asarray(crop(image, size)), crop_reference(image, size))


def test_an_image_of_the_right_size_is_kept_and_a_longer_one_loses_its_ends():
    image = draw_picture(0, width=64, height=64)
    assert np.array_equal(np.asarray(crop(image, 64)), np.asarray(image))
    wide = draw_picture(0, width=67, height=64)
    assert np.array_equal(np.asarray(crop(wide, 64)), np.asarray(wide)[:, 1:65])


def test_a_crop_of_no_pixel_is_refused():
    with pytest.raises(ValueError, match="size=0 of a crop must be positive"):
        crop(draw_picture(0), 0)


def test_path_bytes_and_image_give_the_same_pixels(tmp_path):
    (tmp_path / "a.jpg").write_bytes(data := encode_picture(1))
    pixels = decode(data, size=None, channels=None, name="a")
    assert (pixels.shape, pixels.dtype, pixels.flags.c_contiguous) == ((3, 64, 80), np.uint8, True)
    assert np.array_equal(pixels, np.asarray(Image.open(BytesIO(data))).transpose(2, 0, 1))
    assert np.array_equal(pixels, decode(tmp_path / "a.jpg", size=None, channels=3, name="a"))
    assert np.array_equal(pixels, decode(Image.open(BytesIO(data)), size=None, channels=3, name="a"))


@pytest.mark.parametrize(
    ("mode", "native"),
    [("1", 1), ("L", 1), ("LA", 1), ("I", 1), ("I;16", 1), ("P", 3), ("RGB", 3), ("RGBA", 3), ("CMYK", 3)],
)
def test_every_mode_becomes_grey_or_colour(mode, native):
    image = Image.new(mode, (9, 7))
    shapes = [decode(image, size=None, channels=c, name="a").shape[0] for c in (None, 1, 3)]
    assert shapes == [native, 1, 3]


def test_grey_of_16_bits_is_divided_by_257_and_rounded():
    image = Image.fromarray(np.array([[0, 128, 129], [257 * 100, 257 * 100 + 129, 65535]], np.uint16))
    assert decode(saved(image), size=None, channels=1, name="a").tolist() == [[[0, 0, 1], [100, 101, 255]]]


def test_transparency_lies_over_black():
    image = Image.new("RGBA", (3, 1), (200, 100, 50, 255))
    image.putpixel((1, 0), (200, 100, 50, 0))
    image.putpixel((2, 0), (200, 100, 50, 51))
    pixels = decode(saved(image), size=None, channels=None, name="a")[:, 0].T.tolist()
    assert pixels == [[200, 100, 50], [0, 0, 0], [40, 20, 10]]


def test_a_transparent_colour_of_a_palette_lies_over_black_too():
    image = Image.new("P", (2, 1))
    image.putpalette([9, 9, 9, 70, 80, 90])
    image.putpixel((1, 0), 1)
    pixels = decode(saved(image, "GIF", transparency=0), size=None, channels=None, name="a")
    assert pixels[:, 0].T.tolist() == [[0, 0, 0], [70, 80, 90]]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_photo_is_turned_as_its_exif_says(orientation):
    image, exif = draw_picture(2, width=12, height=8), Image.Exif()
    exif[0x0112] = orientation
    data = saved(image, exif=exif)
    expected = np.asarray(ImageOps.exif_transpose(Image.open(BytesIO(data)))).transpose(2, 0, 1)
    assert np.array_equal(decode(data, size=None, channels=None, name="a"), expected)


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
def test_a_damaged_exif_block_does_not_spoil_the_image():
    data = saved(draw_picture(2), "JPEG", exif=b"Exif\0\0MM\0*\0\0\0\x08\xff\xff\x01\x12")
    assert decode(data, size=16, channels=3, name="a").shape == (3, 16, 16)


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "0 bytes"),
        (b"hello, not an image", "UnidentifiedImageError"),
        (b"<!DOCTYPE html><html></html>", "UnidentifiedImageError"),
        (encode_picture(0)[:-200], "truncated"),
        (encode_picture(0)[:30], "Error"),
        (saved(draw_picture(0))[:-2000], "truncated"),
        (encode_picture(0, "WEBP")[:-100], "Error"),
        (png_header(10_000, 10_000), "DecompressionBombWarning"),
        (png_header(60_000, 60_000), "DecompressionBombError"),
        (saved(Image.new("F", (4, 4)), "TIFF"), "floating point"),
        (saved(Image.new("L", (1, 300))), "1×300 pixels are no picture"),
        (Image.fromarray(np.full((2, 2), 70_000, np.int32)), "leave the 16 bit range"),
    ],
)
def test_a_damaged_image_is_one_error_that_names_it(data, why):
    with pytest.raises(ArtifactError, match=f"^some/where.jpg: not a readable image .*{why}") as error:
        decode(data, size=8, channels=3, name="some/where.jpg")
    assert "\n" not in str(error.value)


@settings(deadline=None, max_examples=150)
@given(st.sampled_from(["JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP"]), st.data())
def test_flipped_bytes_give_pixels_or_that_error(kind, data):
    content = bytearray(saved(draw_picture(1, width=20, height=20), kind))
    for _ in range(3):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    with suppress(ArtifactError):
        assert decode(bytes(content), size=8, channels=3, name="a").shape == (3, 8, 8)


def test_a_missing_file_is_that_error_too(tmp_path):
    with pytest.raises(ArtifactError, match=r"gone\.png: not a readable image \(No such file or directory\)"):
        decode(tmp_path / "gone.png", size=8, channels=3, name="gone.png")


def test_two_channels_do_not_exist():
    with pytest.raises(ValueError, match="channels=2 of an image"):
        decode(b"", size=8, channels=2, name="a")


def test_floats_span_the_range_and_leave_the_pixels_alone():
    pixels = np.array([[[0, 51, 255]]], np.uint8)
    floats = to_floats(pixels)
    assert floats.dtype == torch.float32
    torch.testing.assert_close(floats, torch.tensor([[[-1, -0.6, 1]]]), rtol=0, atol=1e-7)
    assert pixels.tolist() == [[[0, 51, 255]]]
