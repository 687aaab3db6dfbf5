"""A run that was interrupted anywhere ends as if it had not been; what cannot be continued is refused or named."""

import itertools
import json
import os
import shutil
import signal
import subprocess
import sys

import pytest

from tcvq_data.testing import write_image_folder
from tcvq_runner import pipeline
from tcvq_runner.checkpoints import CheckpointStore
from tcvq_runner.failures import Interrupted
from tcvq_runner.training import Watcher

OFTEN = "checkpoint.every_steps=2"
MADE = ("codes_test/*", "codes_train/*", "*.safetensors", "*.png", "*.csv")


def contents(folder):
    return {str(file.relative_to(folder)): file.read_bytes() for made in MADE for file in folder.glob(made)}


class Killed(BaseException):
    """Ends the process without giving anything time to clean up, as far as one process can play that."""


def kill_at_checkpoint(monkeypatch, number):
    """Die right after the checkpoint of this number is complete."""
    count, commit = itertools.count(1), CheckpointStore.commit

    def deadly(self, *arguments):
        commit(self, *arguments)
        if next(count) == number:
            raise Killed

    monkeypatch.setattr(CheckpointStore, "commit", deadly)


def kill_in_step(monkeypatch, name):
    """Die when the work of a step is done and nobody knows it yet."""

    def deadly(*arguments):
        step(*arguments)
        record = arguments[0].status
        tree = json.loads(record.read_text("utf-8"))
        del tree["steps"][name]
        record.write_text(json.dumps(tree), "utf-8")
        raise Killed

    step = pipeline.STEPS[name]
    monkeypatch.setitem(pipeline.STEPS, name, deadly)


@pytest.fixture
def interrupted(tmp_path, tcvq, monkeypatch):
    """Interrupts a new run and returns its folder."""

    def run(kill, where, *settings):
        with monkeypatch.context() as patch:
            kill(patch, where)
            assert tcvq("run", "debug", OFTEN, *settings, "--out", tmp_path / "run", "--threads", 1)[0] == 1
        return tmp_path / "run"

    return run


@pytest.mark.parametrize(
    ("kill", "where", "line"),
    [
        (kill_at_checkpoint, 1, "stage1: goes on after step 2"),
        (kill_at_checkpoint, 4, "stage1: goes on after step 8"),
        (kill_in_step, "encode", "(stage1 done)"),
        (kill_at_checkpoint, 6, "stage2: goes on after step 4"),
    ],
)
def test_an_interrupted_run_ends_in_the_files_of_one_that_was_not(finished, interrupted, tcvq, kill, where, line):
    folder = interrupted(kill, where)
    (folder / ".tmp-0123-vqvae.safetensors").write_bytes(b"half")
    status, _, err = tcvq("run", "debug", OFTEN, "--out", folder, "--threads", 1)
    assert status == 0
    assert err.startswith(f"continues {folder} (")
    assert line in err
    assert contents(folder) == contents(finished)
    assert {path.name for path in folder.iterdir()} - {"checkpoints"} == {path.name for path in finished.iterdir()}
    assert len(json.loads((folder / "env.json").read_text("utf-8"))["resumed"]) == 1


@pytest.mark.slow
def test_a_process_that_was_really_killed_leaves_a_run_that_continues(finished, tmp_path, tcvq):
    out = tmp_path / "run"
    command = [sys.executable, "-m", "tcvq_runner", "run", "debug", OFTEN, "--out", str(out), "--threads", "1"]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL) as process:
        while not list(out.glob("checkpoints/stage1/[0-9]*")):
            assert process.poll() is None
        process.send_signal(signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    assert tcvq("run", out, "--threads", 1)[0] == 0
    assert contents(out) == contents(finished)


def flip_a_bit(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def truncate(path):
    path.write_bytes(path.read_bytes()[:-100])


def break_newest(folder, name, damage):
    newest = max((folder / "checkpoints" / "stage1").iterdir())
    damage(newest / name)
    return newest / name


@pytest.mark.parametrize(
    ("name", "damage"), [("state.pt", flip_a_bit), ("rank-00000.pt", truncate), ("manifest.json", flip_a_bit)]
)
def test_a_damaged_checkpoint_is_passed_over_and_named(finished, interrupted, tcvq, name, damage):
    folder = interrupted(kill_at_checkpoint, 4)
    path = break_newest(folder, name, damage)
    status, _, err = tcvq("train", "stage1", "debug", OFTEN, "--out", folder, "--threads", 1)
    assert status == 0
    assert "stage1: damaged checkpoint passed over: " in err
    assert str(path.parent) in err
    assert "stage1: goes on after step 6" in err
    assert (folder / "vqvae.safetensors").read_bytes() == (finished / "vqvae.safetensors").read_bytes()


def test_settings_that_decide_the_result_cannot_change_in_between(interrupted, tcvq):
    folder = interrupted(kill_at_checkpoint, 1)
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    for command in (
        ("run", "debug", OFTEN, "seed=1", "stage1.max_steps=12", "--out", folder),
        ("run", folder, "seed=1", "stage1.max_steps=12"),
    ):
        status, out, err = tcvq(*command)
        assert (status, out) == (2, "")
        assert "was started with other settings (seed 0 -> 1, stage1.max_steps 10 -> 12)" in err
        assert f"tcvq run {folder}, or start anew with --fresh" in err
    status, _, err = tcvq("run", folder, "--precision", "64")
    assert status == 2
    assert "-> 64-true); leave --precision out" in err
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


def test_the_newest_unfinished_run_of_the_recipe_is_found(interrupted, tcvq, monkeypatch, tmp_path):
    folder = interrupted(kill_at_checkpoint, 1)
    monkeypatch.chdir(tmp_path)
    there = tmp_path / "runs" / "debug" / "20200101-000000"
    there.parent.mkdir(parents=True)
    folder.rename(there)
    status, _, err = tcvq("run", "debug", OFTEN, "seed=1")
    assert status == 2
    assert "was started with other settings (seed 0 -> 1)" in err
    kill_at_checkpoint(monkeypatch, 1)
    status, _, err = tcvq("run", "debug", "checkpoint.every_steps=3", "--threads", 1)  # decides no result: may change
    assert status == 1
    assert err.startswith("continues runs/debug/20200101-000000 (no step done); --fresh starts anew\n")


def test_a_fresh_run_moves_the_old_one_aside(interrupted, tcvq, monkeypatch):
    folder = interrupted(kill_at_checkpoint, 1)
    kill_at_checkpoint(monkeypatch, 1)
    assert tcvq("run", "debug", OFTEN, "seed=1", "--out", folder, "--fresh", "--threads", 1)[0] == 1
    (aside,) = folder.parent.glob("run.before-*")
    assert "seed: 0" in (aside / "config.yaml").read_text("utf-8")
    assert (aside / "checkpoints" / "stage1" / "00000002").is_dir()
    assert "seed: 1" in (folder / "config.yaml").read_text("utf-8")


def test_a_finished_run_is_left_alone_and_a_missing_file_made_again(copied, finished, tcvq):
    whole = contents(finished)
    (copied / "samples.safetensors").unlink()
    status, out, err = tcvq("run", copied, "--threads", 1)
    assert (status, f"report:  {copied}" in out) == (0, True)
    assert f"sample: done again, because {copied / 'samples.safetensors'} is missing" in err
    assert "stage1:" not in err
    assert contents(copied) == whole


def test_a_signal_in_training_saves_first_and_names_the_command(tmp_path, tcvq, monkeypatch):
    def stop(self, trainer, pl_module, *others):
        if pl_module.batches_seen == 3:
            os.kill(os.getpid(), signal.SIGUSR1)

    monkeypatch.setattr(Watcher, "on_train_batch_start", stop, raising=False)
    status, out, err = tcvq("run", "debug", "--out", tmp_path / "run", "--threads", 1)
    assert (status, out) == (128 + signal.SIGUSR1, "")
    assert err.splitlines()[-1] == (
        f"tcvq: stopped by SIGUSR1 at step 4 of stage1, which is saved; continue with: tcvq run {tmp_path / 'run'}"
    )
    assert [path.name for path in (tmp_path / "run" / "checkpoints" / "stage1").iterdir()] == ["00000004"]


def test_data_that_vanish_in_mid_run_are_named_and_the_run_goes_on_when_they_are_back(tmp_path, tcvq, monkeypatch):
    images = tmp_path / "images"
    write_image_folder(images)
    settings = (
        f"data.name=image-folder:{images}",
        "data.workers=1",
        "vqvae.in_channels=3",
        "vqvae.image_size=32",
        "vqvae.attn_resolutions=[8]",
        "prior.n_classes=0",
        "stage1.batch_size=2",
        "stage2.batch_size=2",
        "stage1.max_steps=12",
        "sample.n=4",
    )

    def vanish(self, trainer, pl_module, *others):
        if pl_module.batches_seen == 3 and images.exists():
            images.rename(tmp_path / "away")

    with monkeypatch.context() as patch:
        patch.setattr(Watcher, "on_train_batch_start", vanish, raising=False)
        status, _, err = tcvq("run", "debug", OFTEN, *settings, "--out", tmp_path / "run", "--threads", 1)
    line = err.splitlines()[-1]
    assert (status, line.startswith("tcvq: ")) == (2, True), err
    assert str(images) in line
    assert "Traceback" not in err
    (tmp_path / "away").rename(images)
    status, _, err = tcvq("run", "debug", OFTEN, *settings, "--out", tmp_path / "run", "--threads", 1)
    assert (status, "stage1: goes on after step" in err) == (0, True), err


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 2 MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if (
        os.getuid()
        or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", folder], check=False).returncode
    ):
        pytest.skip("mounting a small disk needs root and the right to mount")
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


def test_a_full_disk_keeps_the_last_checkpoint_and_the_run_goes_on_when_there_is_space(small_disk, finished, tcvq):
    out = small_disk / "run"
    more = ("checkpoint.keep_last=100",)
    status, _, err = tcvq("run", "debug", "checkpoint.every_steps=1", *more, "--out", out, "--threads", 1)
    assert status == 2, err
    assert err.splitlines()[-1].startswith("tcvq: the disk is full (")
    kept = sorted(path.name for path in (out / "checkpoints" / "stage1").iterdir())
    assert kept
    assert all(name.isdigit() for name in kept)  # nothing half-written
    subprocess.run(["mount", "-o", "remount,size=64m", small_disk], check=True)
    status, _, err = tcvq("run", out, "--threads", 1)
    assert (status, f"goes on after step {int(kept[-1])}\n" in err) == (0, True), err
    assert contents(out) == contents(finished)


def test_a_read_only_folder_is_refused_in_one_line(small_disk, finished, tcvq):
    out = small_disk / "run"
    out.mkdir()
    shutil.copy(finished / "config.yaml", out)
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    for command in (("run", out), ("run", "debug", "--out", small_disk / "other")):
        status, stdout, err = tcvq(*command)
        assert (status, stdout, err.count("\n")) == (2, "", 1)
        assert err.startswith("tcvq: Read-only file system (")


def test_running_out_of_memory_gets_advice_for_the_stage(tmp_path, tcvq, monkeypatch):
    def gluttonous(self, *others):
        raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes")

    monkeypatch.setattr(Watcher, "on_train_batch_start", gluttonous, raising=False)
    status, _, err = tcvq("run", "debug", "--out", tmp_path / "run", "--threads", 1)
    assert status == 2
    assert err.splitlines()[-1].startswith("tcvq: out of memory in stage1; try stage1.grad_checkpoint=true")


def test_an_interruption_is_not_an_error_that_libraries_catch():
    assert not issubclass(Interrupted, Exception)
