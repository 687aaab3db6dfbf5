"""Pictures: the size that was computed, the pixels that were given, and nothing that changes from run to run."""

import io
import xml.etree.ElementTree as ET

import numpy as np
import pytest
import torch
from matplotlib import image as mpl_image
from PIL import Image

from tcvq_eval import (
    Curve,
    class_grid,
    code_usage_plot,
    event_gif,
    event_strips,
    image_grid,
    loss_curves,
    reconstruction_grid,
)


def pixels(png):
    """Return a PNG's colours as (H, W, 3) integers."""
    return (mpl_image.imread(io.BytesIO(png))[..., :3] * 255).round().astype(int)


def test_a_grid_has_the_size_of_its_tiles_and_gutters(pictures):
    picture = pixels(image_grid(pictures(5), cols=3, scale=2, gutter=4))
    assert picture.shape == (4 + 2 * (56 + 4), 4 + 3 * (56 + 4), 3)


def test_pixels_arrive_unchanged_as_sharp_squares(pictures):
    x = pictures(2)
    picture = pixels(image_grid(x, cols=2, scale=3, gutter=1))
    levels = ((x[1, 0] + 1) * 127.5).round().int().numpy()
    tile = picture[1:85, 86:170]
    assert np.array_equal(tile, np.kron(levels, np.ones((3, 3), int))[..., None].repeat(3, axis=2))
    assert (picture[0] == 255).all()


def test_colour_images_keep_their_channels():
    x = torch.tensor([1.0, -1.0, -1.0]).view(1, 3, 1, 1).expand(1, 3, 6, 6)
    assert pixels(image_grid(x, scale=1, gutter=2))[4, 4].tolist() == [255, 0, 0]


def test_outputs_outside_the_range_are_clamped_and_nan_is_grey():
    x = torch.tensor([9.0, -9.0, float("nan")]).view(3, 1, 1, 1).expand(3, 1, 4, 4)
    picture = pixels(image_grid(x, scale=1, gutter=0))
    assert picture[0, [0, 4, 8], 0].tolist() == [255, 0, 128]


def test_row_labels_widen_the_picture_and_leave_the_tiles_alone(pictures):
    x = pictures(4)
    plain, labelled = pixels(image_grid(x, 2)), pixels(image_grid(x, 2, row_labels=["Coat", "Bag"]))
    assert labelled.shape[0] == plain.shape[0]
    assert np.array_equal(labelled[:, -plain.shape[1] :], plain)
    assert (labelled[:, : -plain.shape[1]] < 128).any()


def test_a_class_grid_puts_each_image_into_the_row_of_its_class():
    x = torch.tensor([0.0, 0.5, -0.5]).view(3, 1, 1, 1).expand(3, 1, 4, 4)
    grid = pixels(class_grid(x, torch.tensor([1, 0, 1]), ["A", "B"], per_class=2, scale=1))
    tiles = grid[:, -(4 + 2 * 8) :]
    assert [tiles[4, 4, 0], tiles[4, 12, 0]] == [191, 255]  # one image of class A, then paper
    assert [tiles[12, 4, 0], tiles[12, 12, 0]] == [128, 64]


def test_a_label_without_a_name_is_refused(pictures):
    with pytest.raises(ValueError, match="labels span 0 to 2; there are 2 class names"):
        class_grid(pictures(3), torch.tensor([0, 1, 2]), ["A", "B"])


def test_pairs_stand_one_above_the_other():
    x = torch.zeros(3, 1, 4, 4)
    grid = pixels(reconstruction_grid(x - 1, x + 0.5, cols=2, scale=1, gutter=2))
    tiles = grid[:, -(2 + 2 * 6) :]
    assert [tiles[2, 2, 0], tiles[8, 2, 0]] == [0, 191]
    assert grid.shape[0] == 2 + 2 * 16 - 4


@pytest.mark.parametrize(
    "call",
    [
        lambda x: image_grid(x[:0]),
        lambda x: image_grid(x.expand(-1, 2, -1, -1)),
        lambda x: image_grid(x, 2, row_labels=["one"]),
        lambda x: reconstruction_grid(x, x[:1]),
    ],
)
def test_pictures_that_cannot_be_drawn_are_refused(call, pictures):
    with pytest.raises(ValueError, match=r"images|row labels|equal shapes"):
        call(pictures(4))


def curves():
    steps = list(range(300))
    noisy = [1 / (1 + s / 50) + 0.05 * (-1) ** s for s in steps]
    return [
        Curve(name="train", steps=steps, values=noisy, panel="stage 1: loss", log=True),
        Curve(name="validation", steps=steps[::50], values=noisy[::50], panel="stage 1: loss"),
        Curve(name="bits", steps=[0, 1, 2], values=[9.0, float("nan"), 4.0], panel="stage 2: bits"),
    ]


@pytest.mark.parametrize(
    "draw", [lambda kind: loss_curves(curves(), kind=kind), lambda kind: code_usage_plot([5, 0, 2], kind=kind)]
)
def test_plots_come_as_png_and_as_well_formed_svg(draw):
    assert pixels(draw("png")).min() < 128
    assert ET.fromstring(draw("svg")).tag.endswith("svg")


def test_the_same_data_give_the_same_bytes(pictures):
    x = pictures(2)
    assert loss_curves(curves()) == loss_curves(curves())
    assert code_usage_plot([3, 1, 0]) == code_usage_plot([3, 1, 0])
    assert image_grid(x) == image_grid(x)


def test_drawing_leaves_the_settings_of_matplotlib_alone():
    import matplotlib as mpl

    before = dict(mpl.rcParams)
    loss_curves(curves())
    assert dict(mpl.rcParams) == before


def test_plots_without_data_are_refused():
    with pytest.raises(ValueError, match="at least one curve"):
        loss_curves([])
    with pytest.raises(ValueError, match="3 steps but 2 values"):
        loss_curves([Curve(name="train", steps=[1, 2, 3], values=[1, 2])])
    with pytest.raises(ValueError, match="at least one used code"):
        code_usage_plot([0, 0])


def recordings(n=2, steps=3):
    counts = torch.zeros(n, steps, 2, 4, 5, dtype=torch.uint8)
    counts[0, 0, 0, 1, 2] = 4
    counts[0, 1, 1, 1, 2] = 1
    return counts


def test_a_strip_shows_off_blue_and_on_paler_orange_where_there_are_fewer_events():
    picture = pixels(event_strips(recordings(), scale=1, gutter=2))
    assert picture.shape[:2] == (2 + 2 * 6 + 20, 2 + 3 * 7)
    off, on, blank = picture[2 + 1, 2 + 2], picture[2 + 1, 9 + 2], picture[2, 2]
    assert off.tolist() == [0x2F, 0x5F, 0xD0]
    assert on.tolist() == [(255 + 0xD9) // 2, (255 + 0x65 + 1) // 2, (255 + 0x2B) // 2]
    assert blank.tolist() == [255, 255, 255]


def test_a_strip_labels_each_recording():
    plain, labelled = pixels(event_strips(recordings())), pixels(event_strips(recordings(), row_labels=["a", "b"]))
    assert labelled.shape[0] == plain.shape[0]
    assert labelled.shape[1] > plain.shape[1]
    with pytest.raises(ValueError, match="1 row labels for 2 recordings"):
        event_strips(recordings(), row_labels=["a"])


def test_a_gif_has_one_frame_per_step_and_repeats():
    picture = Image.open(io.BytesIO(event_gif(recordings(), frame_ms=100)))
    assert (picture.n_frames, picture.info["duration"], picture.info["loop"]) == (3, 100, 0)
    first = np.asarray(picture.convert("RGB"))
    assert [0x2F, 0x5F, 0xD0] in first[: 4 + 4 * 4].reshape(-1, 3).tolist()


@pytest.mark.parametrize("draw", [event_gif, event_strips])
def test_recordings_without_an_event_stay_white_and_none_at_all_are_refused(draw):
    assert draw(torch.zeros(1, 2, 2, 3, 3))
    with pytest.raises(ValueError, match="recording"):
        draw(recordings()[:0])
