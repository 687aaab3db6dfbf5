"""`tcvq data`: what a user types, sees and finds on disk."""

import io

import pytest
from PIL import Image

from tcvq_data.testing import write_cifar10, write_mnist


def opened(path):
    return Image.open(io.BytesIO(path.read_bytes()))


def test_the_list_names_every_dataset_and_where_they_are_looked_for(tcvq, tmp_path, monkeypatch):
    monkeypatch.setenv("TCVQ_DATA", str(tmp_path))
    status, out, _ = tcvq("data", "list")
    assert status == 0
    assert "dvs-cifar10" in out
    assert f"data root: {tmp_path}" in out


def test_show_draws_a_sheet_with_a_row_per_class(tcvq, tmp_path):
    write_cifar10(tmp_path)
    status, out, _ = tcvq("data", "show", "cifar10", "--root", tmp_path, "--out", tmp_path / "sheets")
    assert status == 0
    assert out.splitlines()[0] == "cifar10, train split: 20 samples of 3x32x32"
    picture = opened(tmp_path / "sheets" / "cifar10-train.png")
    assert picture.height > 10 * 96


def test_show_draws_recordings_as_strips_and_gif_with_statistics(tcvq, tmp_path):
    command = ["data", "show", "fashion-mini-events", "-n", "3", "--steps", "4", "--root", tmp_path, "--out", tmp_path]
    status, out, _ = tcvq(*command)
    assert status == 0
    assert "simulated saccades, not the N-MNIST recording" in out
    row = next(line for line in out.splitlines() if line.startswith("n events"))
    assert row.split()[-1] == "4325"
    assert opened(tmp_path / "fashion-mini-events-train.gif").n_frames == 4
    assert opened(tmp_path / "fashion-mini-events-train.png").width > 4 * 34 * 3
    status, out, _ = tcvq("data", "cache", "ls", "--root", tmp_path)
    assert "3x4x2x34x34" in out
    status, out, _ = tcvq("data", "cache", "prune", "--all", "--root", tmp_path)
    assert out.startswith("deleted fashion-mini-events")
    assert tcvq("data", "cache", "ls", "--root", tmp_path)[1] == ""


def test_files_are_put_into_place_and_verified(tcvq, tmp_path):
    raw = write_mnist(tmp_path / "theirs")
    command = ["data", "download", "mnist", "--root", tmp_path / "data", "--from", tmp_path / "theirs"]
    status, out, _ = tcvq(*command)
    assert (status, out.splitlines()[-1]) == (0, "next: tcvq data show mnist")
    assert (tmp_path / "data/MNIST/raw" / raw.glob("*").__next__().name).exists()
    status, out, errors = tcvq("data", "verify", "mnist", "--root", tmp_path / "data", "--deep")
    assert status == 2  # 20 images are not 60,000
    assert "20 samples, all read" in out
    assert errors == "tcvq: mnist: damaged or incomplete; get it again with: tcvq data download mnist\n"


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (["data", "show", "fashon-mini"], "did you mean 'fashion-mini'?"),
        (["data", "show", "fashion-mini", "--split", "dev"], "it has train, test"),
        (["data", "show", "mnist"], "get it with: tcvq data download mnist"),
        (["data", "show", "mnist", "--size", "0"], "0 is not in the range"),
        (["data", "download", "celeba64"], "--from FOLDER"),
        (["data", "download", "imagenet"], "there is no dataset 'imagenet'"),
        (["data", "download", "mnist", "--from", "nowhere"], "does not exist"),
        (["data", "verify", "lsun-church"], "tcvq data download lsun-church"),
        (["train", "stage1", "debug", "data.name=cifar10"], "tcvq data download cifar10"),
        (["train", "stage1", "debug", "data.bin_rule=median"], "data.bin_rule"),
        (["train", "stage1", "debug", "data.workers=-1"], "data.workers is -1"),
    ],
)
def test_a_mistake_gets_one_line_and_leaves_nothing(tcvq, tmp_path, monkeypatch, arguments, error):
    monkeypatch.setenv("TCVQ_DATA", str(tmp_path / "data"))
    monkeypatch.chdir(tmp_path)
    status, _, errors = tcvq(*arguments)
    assert status == 2
    assert error in errors
    assert errors.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_recordings_and_still_images_are_not_mixed_up(tcvq, tmp_path):
    common = ["train", "stage1", "debug", "data.name=fashion-mini-events", "data.limit=20", f"data.root={tmp_path}"]
    status, _, errors = tcvq(*common, "--out", tmp_path / "run")
    assert status == 2
    assert "set vqvae.in_channels=2" in errors.splitlines()[-1]
    status, _, errors = tcvq(*common, "vqvae.in_channels=2", "--out", tmp_path / "run")
    assert status == 2
    assert "set vqvae.encoding=event" in errors
