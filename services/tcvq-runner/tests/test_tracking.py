"""Following a run: event files that TensorBoard reads, trackers that need an extra, the log of a run, a profile."""

import errno
import importlib.util
import json
import os
import struct

import pytest
from tensorboardX.proto.event_pb2 import Event

from tcvq_runner import board as boards
from tcvq_runner.board import Board
from tcvq_runner.cli import main
from tcvq_runner.curves import Curves
from tcvq_runner.logbook import NAME, logged
from tcvq_runner.recipe import load_recipe
from tcvq_runner.run_dir import RunFolder
from tcvq_runner.tracking import open_tracker


def events(folder):
    """Read the records of the only event file, by the published format of TFRecord."""
    (path,) = folder.iterdir()
    data, found = path.read_bytes(), []
    while data:
        (n,) = struct.unpack("<Q", data[:8])
        found.append(Event.FromString(data[12 : 12 + n]))
        assert data[8:12] == boards._masked(data[:8])
        assert data[12 + n : 16 + n] == boards._masked(data[12 : 12 + n])
        data = data[16 + n :]
    return found


def test_the_checksum_is_that_of_a_record_which_tensorflow_wrote():
    # The first 12 bytes of every event file of TensorFlow whose first record has 24 bytes.
    assert boards._record(b"x" * 24)[:12] == bytes.fromhex("1800000000000000a37f4b22")


def test_what_goes_into_the_curves_goes_into_an_event_file_with_stage_and_step(tmp_path):
    with open_tracker(RunFolder(tmp_path), load_recipe("debug"), "stage1") as log:
        curves = Curves(stage="stage1", listener=log)
        curves.add(5, {"train/l1": 0.5})
        curves.add(10, {"train/l1": 0.25})
    first, recipe, *values = events(tmp_path / "tensorboard")
    assert first.file_version == "brain.Event:2"
    assert b"n_embed: 32" in recipe.summary.value[0].tensor.string_val[0]
    assert [(e.step, e.summary.value[0].tag, e.summary.value[0].simple_value) for e in values] == [
        (5, "stage1/train/l1", 0.5),
        (10, "stage1/train/l1", 0.25),
    ]


def test_a_disk_that_refuses_ends_the_event_file_and_nothing_else(tmp_path, monkeypatch):
    board = Board(tmp_path / "tensorboard", "stage1")

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    board.log_metrics({"loss": 1.0}, 1)
    monkeypatch.undo()
    board.log_metrics({"loss": 1.0}, 2)
    assert len(events(tmp_path / "tensorboard")) == 1
    board.finalize("success")
    Board(tmp_path / "none" / "none", "stage1").log_metrics({"loss": 1.0}, 1)


@pytest.mark.parametrize("name", ["wandb", "mlflow"])
def test_a_tracker_that_is_not_installed_is_refused_before_anything_starts(name, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(importlib.util, "find_spec", lambda package, *_: None)
    assert main(["run", "debug", f"track.{name}=true", "--out", str(tmp_path / "run")]) == 2
    said = capsys.readouterr().err
    assert said.startswith(
        f"tcvq: track.{name} is true but {name} is not installed; install the extra tcvq-runner[{name}]"
    )
    assert len(said.splitlines()) == 1
    assert not (tmp_path / "run").exists()


@pytest.mark.extra
def test_wandb_offline_keeps_the_run_in_the_folder(tmp_path):
    pytest.importorskip("wandb", reason="needs the extra wandb")
    with open_tracker(
        RunFolder(tmp_path), load_recipe("debug", ["track.wandb=true", "track.offline=true"]), "s"
    ) as log:
        log(1, {"loss": 1.0})
    assert list(tmp_path.glob("wandb/offline-run-*/*.wandb"))


@pytest.mark.extra
def test_mlflow_offline_keeps_the_run_in_the_folder_and_continues_it(tmp_path):
    pytest.importorskip("mlflow", reason="needs the extra mlflow")
    recipe = load_recipe("debug", ["track.mlflow=true", "track.offline=true"])
    for step in (1, 2):
        with open_tracker(RunFolder(tmp_path), recipe, "stage1") as log:
            log(step, {"loss": 1.0 / step})
    (metric,) = tmp_path.glob("mlflow/*/*/metrics/stage1/loss")
    assert [line.split()[1:] for line in metric.read_text().splitlines()] == [["1.0", "1"], ["0.5", "2"]]


class Recorder:
    def __init__(self):
        self.notes = []

    def task(self, *_, **__):
        from contextlib import nullcontext
        from types import SimpleNamespace

        return nullcontext(SimpleNamespace(update=lambda *_: None))

    def note(self, text):
        self.notes.append(text)


def test_the_log_tells_what_was_typed_what_happened_and_how_it_ended(tmp_path):
    shown = Recorder()
    with logged(tmp_path, shown, ["tcvq", "run", "my recipe"]) as reporter, reporter.task("stage1", 3, "step"):
        reporter.note("continues")
    with pytest.raises(ValueError, match="wrong"), logged(tmp_path, shown, ["tcvq", "eval"]):
        raise ValueError("something\nis wrong")
    lines = [line.partition(" ")[2] for line in (tmp_path / NAME).read_text("utf-8").splitlines()]
    assert lines[0] == "began: tcvq run 'my recipe'"
    assert "continues" in lines[1]
    assert lines[2].startswith("stage1: 3 steps  done")
    assert lines[3:] == ["ended: done", "began: tcvq eval", "ended: something is wrong"]
    assert shown.notes == ["continues"]


def test_a_log_that_cannot_be_written_stops_nothing(tmp_path):
    shown = Recorder()
    with logged(tmp_path / "none", shown, ["tcvq"]) as reporter:
        assert reporter is shown


def test_profiling_leaves_a_trace_and_a_screen_that_names_the_operators(tmp_path, capsys):
    command = ["train", "stage1", "debug", "stage1.max_steps=5", "--profile", "--threads", "1"]
    assert main([*command, "--out", str(tmp_path / "run")]) == 0
    shown = capsys.readouterr().out
    text = (tmp_path / "run" / "profile" / "stage1.txt").read_text("utf-8")
    assert text in shown
    assert text.startswith("stage1: 3 steps in")
    assert "convolution" in text
    assert len(text.splitlines()) < 24
    trace = json.loads((tmp_path / "run" / "profile" / "stage1.json").read_text("utf-8"))
    assert any("convolution" in event.get("name", "") for event in trace["traceEvents"])
