"""What breaks ends in one line and a status, and leaves every file as it was or whole."""

import errno
import os
import shutil
import signal
import subprocess
import sys
from contextlib import contextmanager

import pytest


def tree(folder):
    """Return every file but the log and the event files, which also tell of what failed."""
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    told = ("run.log", "tensorboard")
    return {path.relative_to(folder): path.read_bytes() for path in files if not {*told} & {*path.parts}}


def assert_refused(result, *fragments, status=2):
    found, out, err = result
    lines = [line for line in err.splitlines() if line.startswith("tcvq: ")]
    assert found == status
    assert not out
    assert err.splitlines()[-1:] == lines
    assert all(fragment in lines[0] for fragment in fragments), lines[0]


def flip_a_bit(path):
    data = bytearray(path.read_bytes())
    data[-100] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize(
    ("name", "command"),
    [
        ("vqvae.safetensors", ("encode",)),
        ("prior.safetensors", ("sample",)),
        ("samples.safetensors", ("eval",)),
    ],
)
def test_a_damaged_foreign_or_missing_artifact_is_named_and_nothing_is_written(copied, tcvq, name, command):
    path = copied / name
    whole = path.read_bytes()
    flip_a_bit(path)
    cases = [
        (path.read_bytes(), "damaged"),
        (whole[: len(whole) // 2], "damaged"),
        (b"hello", "not a safetensors file"),
    ]
    other = "samples.safetensors" if name == "vqvae.safetensors" else "vqvae.safetensors"
    cases.append(((copied / other).read_bytes(), "is needed here"))
    for content, why in cases:
        path.write_bytes(content)
        before = tree(copied)
        assert_refused(tcvq(*command, copied), name, why)
        assert tree(copied) == before
    path.unlink()
    assert_refused(tcvq(*command, copied), f"has no {name}", "try: tcvq ")


def test_damaged_foreign_or_missing_codes_are_named_and_nothing_is_written(copied, tcvq):
    shard, manifest = copied / "codes_train" / "shard-00000-00000.arrow", copied / "codes_train" / "manifest.json"
    for path, content, why in (
        (shard, shard.read_bytes()[:-200], "shard-00000-00000.arrow: damaged"),
        (manifest, manifest.read_bytes().replace(b'"train"', b'"test"'), "codes_train: damaged"),
        (manifest, manifest.read_bytes().replace(b"codes/2", b"codes/3"), "is needed here"),
        (manifest, b"hello", "manifest.json: cannot be read, or damaged"),
    ):
        whole = path.read_bytes()
        path.write_bytes(content)
        before = tree(copied)
        assert_refused(tcvq("train", "stage2", copied), why, "encode again")
        assert tree(copied) == before
        path.write_bytes(whole)
    shutil.rmtree(copied / "codes_train")
    assert_refused(tcvq("train", "stage2", copied), "has no codes_train", "try: tcvq encode")


def test_a_prior_whose_codes_came_from_another_vqvae_draws_nothing(copied, other_vqvae, tcvq):
    shutil.copy(other_vqvae, copied / "vqvae.safetensors")
    before = tree(copied)
    assert_refused(tcvq("sample", copied), "was trained on the codes of another VQ-VAE")
    assert_refused(tcvq("train", "stage2", copied), "was made by another VQ-VAE", f"tcvq encode {copied}")
    assert_refused(tcvq("eval", copied), "was made by another VQ-VAE")
    assert tree(copied) == before


def test_a_setting_that_comes_too_late_is_refused(copied, tcvq):
    assert_refused(tcvq("train", "stage2", copied, "vqvae.n_steps=3"), "vqvae.n_steps is fixed")


def test_an_unknown_class_is_refused(finished, tcvq):
    before = tree(finished)
    assert_refused(tcvq("sample", finished, "--class", "hat"), "--class hat: unknown class", "Ankle boot")
    assert tree(finished) == before


def test_a_folder_that_is_not_empty_is_refused(tmp_path, tcvq):
    (tmp_path / "thesis.txt").write_text("precious", "utf-8")
    before = tree(tmp_path)
    assert_refused(tcvq("run", "debug", "--out", tmp_path), "is not empty; choose another folder with --out")
    assert tree(tmp_path) == before


def test_a_folder_where_files_are_expected_is_refused(copied, tcvq):
    (copied / "samples.png").unlink()
    (copied / "samples.png").mkdir()
    assert_refused(tcvq("sample", copied), "samples.png")


def test_a_loss_that_is_not_a_number_ends_the_run_with_advice(tmp_path, tcvq):
    result = tcvq("run", "debug", "stage1.learning_rate=1e30", "--precision", "32", "--out", tmp_path / "run")
    assert_refused(result, "stage 1: the loss is", "lower stage1.learning_rate")
    kept = {"config.yaml", "env.json", "run.log", "tensorboard"}
    kept.add("debug_batch.safetensors")  # the batch at which it happened
    assert {path.name for path in (tmp_path / "run").iterdir()} == kept


@pytest.mark.parametrize("command", [("encode",), ("train", "stage2"), ("sample",), ("eval",)])
def test_a_full_disk_is_named_and_leaves_every_file_whole(copied, tcvq, monkeypatch, command):
    def full(fd):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    before = tree(copied)
    assert_refused(tcvq(*command, copied), "the disk is full", str(copied))
    assert tree(copied) == before


@contextmanager
def started(out, *settings):
    """A real process; killed if the test fails before it ends."""
    command = [sys.executable, "-m", "tcvq_runner", "run", "debug", *settings, "--out", str(out), "--threads", "1"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def wait_for(process, path):
    while not path.exists():
        assert process.poll() is None, process.stderr.read()


@pytest.mark.slow
def test_ctrl_c_in_training_is_one_line_and_the_folder_is_refused_until_then(tmp_path, tcvq):
    out = tmp_path / "run"
    with started(out, "stage1.max_steps=1000000") as process:
        first = process.stderr.readline()  # ten seconds into the training
        assert first.startswith("stage1: ")
        assert "left" in first
        assert_refused(tcvq("run", "debug", "--out", out), f"output folder in use by process {process.pid}")
        process.send_signal(signal.SIGINT)
        stdout, stderr = process.communicate(timeout=60)
    assert process.returncode == 130
    assert stdout == ""
    lines = [line for line in stderr.splitlines() if not line.startswith("stage1: ")]
    (line,) = lines
    assert line.startswith("tcvq: stopped by Ctrl-C at step ")
    assert line.endswith(f" of stage1, which is saved; continue with: tcvq run {out}")
    assert {path.name for path in out.iterdir()} == {
        *("checkpoints", "config.yaml", "env.json", "metrics.csv"),
        *("run.log", "tensorboard"),
    }
    (saved,) = (out / "checkpoints" / "stage1").iterdir()
    assert {path.name for path in saved.iterdir()} == {"manifest.json", "rank-00000.pt", "state.pt"}


@pytest.mark.slow
def test_sigterm_while_starting_is_one_line_and_leaves_nothing_half_written(tmp_path):
    with started(tmp_path / "run", "stage1.max_steps=1000000") as process:
        wait_for(process, tmp_path / "run" / "run.log")  # opened once the way to go on is known
        process.send_signal(signal.SIGTERM)
        _, stderr = process.communicate(timeout=60)
    assert process.returncode == 143
    kept = "finished steps are kept, nothing is half-written"
    assert stderr == f"tcvq: stopped by SIGTERM; {kept}; continue with: tcvq run {tmp_path / 'run'}\n"
    made = {path.name for path in (tmp_path / "run").iterdir()}
    assert {"config.yaml", "env.json"} <= made <= {"config.yaml", "env.json", "run.log", "tensorboard"}
