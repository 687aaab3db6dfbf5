"""A draw that is killed goes on where it was, shared draws give the same files, and no other draw slips in."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch

from tcvq_data import read_codes
from tcvq_data.events import read_nmnist
from tcvq_runner import sampling_job
from tcvq_runner.samples import read_samples

N = 450  # three shards of 200, the last one not full


@pytest.fixture(scope="module")
def whole(finished, tmp_path_factory):
    """The files of a draw that nothing disturbed."""
    from tcvq_runner.cli import main

    out = tmp_path_factory.mktemp("draws") / "whole"
    assert main(["sample", str(finished), "-n", str(N), "--out", str(out), "--threads", "1"]) == 0
    return out


def same_files(a, b):
    return all((a / name).read_bytes() == (b / name).read_bytes() for name in ("samples.safetensors", "samples.png"))


@pytest.fixture
def drawn_shards(monkeypatch):
    """The numbers of the first samples of all shards that this process draws."""
    numbers, draw = [], sampling_job._draw

    def spy(plan, inputs, prior, samples):
        numbers.append(samples.start)
        return draw(plan, inputs, prior, samples)

    monkeypatch.setattr(sampling_job, "_draw", spy)
    return numbers


def test_a_draw_killed_after_any_shard_goes_on_and_gives_the_same_bytes(finished, whole, tmp_path, tcvq, drawn_shards):
    out = tmp_path / "killed"
    command = [sys.executable, "-m", "tcvq_runner", "sample", str(finished), "-n", str(N), "--out", str(out)]
    with subprocess.Popen([*command, "--threads", "1"], stderr=subprocess.DEVNULL) as process:
        while not list(out.glob("samples.part/codes-*")):
            assert process.poll() is None
            time.sleep(0.002)
        process.send_signal(signal.SIGKILL)
    found = {int(path.stem[-5:]) for path in out.glob("samples.part/codes-*")}
    assert 0 < len(found) < 3
    assert not (out / "samples.safetensors").exists()
    assert tcvq("sample", finished, "-n", N, "--out", out, "--threads", 1)[0] == 0
    assert drawn_shards == [200 * number for number in range(3) if number not in found]
    assert same_files(out, whole)
    assert not (out / "samples.part").exists()


def test_parts_drawn_by_several_commands_give_the_files_of_one(finished, whole, tmp_path, tcvq):
    out = tmp_path / "parts"
    for part in ("1/2", "0/2"):
        status, said, _ = tcvq("sample", finished, "-n", N, "--out", out, "--part", part, "--threads", 1)
        assert status == 0
    assert str(out / "samples.safetensors") in said
    assert same_files(out, whole)


def test_workers_share_a_draw_and_give_the_files_of_one(finished, whole, tmp_path, tcvq):
    out = tmp_path / "workers"
    assert tcvq("sample", finished, "-n", N, "--out", out, "--workers", 2, "--threads", 1)[0] == 0
    assert same_files(out, whole)


@pytest.fixture
def begun(finished, tmp_path, tcvq):
    """A draw of which one shard is missing."""
    out = tmp_path / "begun"
    assert tcvq("sample", finished, "-n", N, "--out", out, "--part", "0/2", "--threads", 1)[0] == 0
    return out


def test_a_damaged_shard_is_drawn_again_and_a_whole_one_is_not(begun, finished, whole, tcvq, drawn_shards):
    codes, images = (begun / "samples.part" / f"{kind}-00000.safetensors" for kind in ("codes", "images"))
    for path in (codes, images):
        path.write_bytes(path.read_bytes()[:-1])
    assert tcvq("sample", finished, "-n", N, "--out", begun, "--threads", 1)[0] == 0
    assert drawn_shards == [0, 200]
    assert same_files(begun, whole)


@pytest.mark.parametrize(
    ("options", "what"),
    [(("--temperature", 0.5), "settings"), (("--seed", 3), "seed"), (("--class", 3), "inputs_sha256")],
)
def test_another_draw_does_not_go_on_with_these_shards(begun, finished, tcvq, options, what):
    before = sorted(path.name for path in begun.rglob("*"))
    status, out, err = tcvq("sample", finished, "-n", N, *options, "--out", begun, "--threads", 1)
    assert (status, out) == (2, "")
    assert f"holds the beginning of another draw: its {what} is" in err
    assert "delete the folder" in err.splitlines()[-1]
    assert sorted(path.name for path in begun.rglob("*")) == before


def test_another_prior_does_not_go_on_with_these_shards(begun, copied, tcvq):
    assert tcvq("train", "stage2", copied, "stage2.max_steps=1", "--threads", 1)[0] == 0
    err = tcvq("sample", copied, "-n", N, "--out", begun, "--threads", 1)[2]
    assert "its prior_sha256 is" in err


def test_an_interrupted_draw_in_a_folder_of_its_own_is_found_again(begun, copied, whole, tcvq):
    shutil.move(begun, copied / "samples-20200101-000000")
    assert tcvq("sample", copied, "-n", N, "--threads", 1)[0] == 0
    assert same_files(copied / "samples-20200101-000000", whole)
    assert len(list(copied.glob("samples-*"))) == 1


def test_completed_images_keep_the_codes_that_were_given(finished, tmp_path, tcvq):
    out = tmp_path / "completed"
    assert tcvq("sample", finished, "--complete", "4x3", "--keep", "left:0.4", "--out", out, "--threads", 1)[0] == 0
    samples, codes = read_samples(out / "samples.safetensors"), read_codes(finished / "codes_test")
    assert samples.labels.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3]  # the first images of the first classes
    for i in range(4):
        first = int((codes.labels == i).nonzero()[0])
        ways = samples.indices[3 * i : 3 * i + 3]
        assert (ways[:, :, :3] == codes.indices[first][:, :3]).all()  # 0.4 of 7 columns
        assert len(ways.unique(dim=0)) == 3
    assert (out / "completion.png").read_bytes().startswith(b"\x89PNG")


def test_images_come_in_every_form_that_was_asked_for(finished, tmp_path, tcvq):
    out = tmp_path / "forms"
    options = ("--format", "png", "--format", "npz", "--grid", "2x2", "--gif", "--unfold", "--min-p", 0.1, "--top-k", 5)
    assert tcvq("sample", finished, "-n", 5, *options, "--out", out, "--threads", 1)[0] == 0
    samples = read_samples(out / "samples.safetensors")
    assert samples.images.abs().max() <= 1
    with np.load(out / "samples.npz") as arrays:
        assert arrays["images"].shape == (5, 28, 28, 1)
        assert np.array_equal(arrays["indices"], samples.indices)
        assert torch.equal(torch.from_numpy(arrays["images"][..., 0]) / 127.5 - 1, samples.images[:, 0])
    assert sorted(path.name for path in (out / "images").iterdir()) == [f"{i:06d}.png" for i in range(5)]
    assert (out / "samples.gif").read_bytes().startswith(b"GIF89a")
    assert {path.name for path in out.glob("*.png")} == {"samples.png", "grid.png", "unfolded.png"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--format", "bin"), "--format bin writes event recordings"),
        (("--guidance", 2), "this prior never saw grids without their class"),
        (("--keep", "upper"), "add --complete IMAGES"),
        (("--complete", "two"), "--complete two --keep upper: write such as"),
        (("--complete", "2", "--keep", "top"), "sides are upper, lower, left, right"),
        (("--complete", "2", "-n", 5), "leave -n and --class out"),
        (("--complete", "999"), "the test split has 200 images"),
        (("--part", "0/2"), "--part needs --out"),
        (("--part", "2/2"), "numbered from 0 to 1"),
        (("--grid", "0x2"), "is not of the form AxB"),
        (("--min-p", 2), "min_p is 2"),
    ],
)
def test_wishes_that_cannot_be_fulfilled_are_refused_before_anything_is_drawn(finished, tcvq, options, message):
    before = sorted(finished.rglob("*"))
    status, out, err = tcvq("sample", finished, *options)
    assert (status, out) == (2, "")
    assert message in err
    assert sorted(finished.rglob("*")) == before


def test_a_run_of_events_draws_recordings_and_writes_event_files(tmp_path, tcvq):
    run, out = tmp_path / "run", tmp_path / "drawn"
    settings = ("data.name=fashion-mini-events", "data.limit=20", "data.workers=0", f"data.root={tmp_path}")
    vqvae = ("vqvae.in_channels=2", "vqvae.image_size=32", "vqvae.attn_resolutions=[8]", "vqvae.encoding=event")
    small = ("vqvae.decoding=event", "stage1.max_steps=5", "stage2.max_steps=2", "stage1.batch_size=4")
    small = (*small, "stage2.batch_size=4", "eval.batch_size=5", "sample.n=6")
    command = ("train", "stage1", "debug", *settings, *vqvae, *small, "--out", run)
    assert tcvq(*command, "--threads", 1)[0] == tcvq("encode", run)[0] == tcvq("train", "stage2", run)[0] == 0
    forms = ("--format", "bin", "--format", "npz", "--gif", "--unfold", "--complete", "2x2")
    status, said, err = tcvq("sample", run, *forms, "--out", out, "--threads", 1)
    assert status == 0, err
    samples = read_samples(out / "samples.safetensors")
    assert samples.images.shape == (4, 2, 2, 32, 32)  # N, T, polarity, H, W
    with np.load(out / "samples.npz") as arrays:
        counts = arrays["counts"]
    files = sorted((out / "events").iterdir())
    assert [path.name for path in files] == [f"{i:06d}.bin" for i in range(4)]
    for path, recording in zip(files, counts, strict=True):
        if recording.sum():
            assert len(read_nmnist(path, height=32, width=32)) == recording.sum()
    assert {path.name for path in out.iterdir() if path.suffix in (".png", ".gif")} == {
        "samples.png", "samples.gif", "unfolded.png", "completion.png",
    }  # fmt: skip
    assert json.loads((out / "run.json").read_text())["steps"]["sample"]["samples"]
    assert os.fspath(out / "events") in said
