"""What the user sees while a step runs, and what stays of it."""

import io
import math

import pytest
from rich.console import Console

from tcvq_runner import progress
from tcvq_runner.curves import Curves, read_metrics
from tcvq_runner.progress import LiveReporter, PlainReporter, brief, clock, open_reporter, pace


class Clock:
    """Seconds that pass only when told to."""

    now = 0.0

    def monotonic(self):
        return self.now


@pytest.fixture
def clocked(monkeypatch):
    passing = Clock()
    monkeypatch.setattr(progress, "time", passing)
    return passing


def test_pace_gives_rate_and_remaining_time():
    assert pace(20, 100, 10.0, "step") == "2.0 steps/s, 0:40 left"
    assert pace(1, 3, 10.0, "step") == "10.0 s/step, 0:20 left"
    assert pace(0, 3, 10.0, "step") == ""


def test_clock_shows_hours_only_when_there_are_some():
    assert [clock(s) for s in (5, 65, 3661)] == ["0:05", "1:05", "1:01:01"]


def test_brief_shows_the_first_values_with_short_names():
    assert brief({"train/l1": 0.12345, "val/bits": 4.0}) == "l1 0.1235, val bits 4"


def test_plain_lines_come_every_ten_seconds_and_at_the_end(clocked):
    stream = io.StringIO()
    with PlainReporter(stream).task("stage1", 30, "step") as task:
        for step in range(1, 31):
            clocked.now = float(step)
            task.update(step, {"train/l1": 1.0 / step})
    assert stream.getvalue().splitlines() == [
        "stage1: 10/30  1.0 steps/s, 0:20 left  l1 0.1",
        "stage1: 20/30  1.0 steps/s, 0:10 left  l1 0.05",
        "stage1: 30/30  1.0 steps/s, 0:00 left  l1 0.03333",
        "stage1: 30 steps  done in 0:30  l1 0.03333",
    ]


def test_a_failed_task_claims_no_end():
    stream = io.StringIO()
    with pytest.raises(ValueError, match="x"), PlainReporter(stream).task("encode", 5, "image"):
        raise ValueError("x")
    assert stream.getvalue() == ""


def test_a_terminal_gets_a_bar_and_a_file_gets_lines():
    terminal = io.StringIO()
    terminal.isatty = lambda: True
    assert isinstance(open_reporter(terminal), LiveReporter)
    assert isinstance(open_reporter(io.StringIO()), PlainReporter)


def test_the_bar_shows_count_rate_and_values(clocked):
    stream = io.StringIO()
    with LiveReporter(Console(file=stream, force_terminal=True, width=120)).task("stage1", 10, "step") as task:
        clocked.now = 2.0
        task.update(10, {"train/l1": 0.5})
    assert "10/10" in stream.getvalue()
    assert "5.0 steps/s, 0:00 left  l1 0.5" in stream.getvalue()


def test_curves_of_a_stage_replace_its_earlier_ones_and_leave_other_stages(tmp_path):
    path = tmp_path / "metrics.csv"
    for stage, value in (("stage1", 0.5), ("stage2", 4.0), ("stage1", 0.25)):
        curves = Curves(stage=stage)
        curves.add(1, {"train/x": value, "train/y": math.inf})
        curves.write(path)
    assert read_metrics(path) == [
        ("stage2", 1, "train/x", 4.0),
        ("stage2", 1, "train/y", math.inf),
        ("stage1", 1, "train/x", 0.25),
        ("stage1", 1, "train/y", math.inf),
    ]


@pytest.mark.parametrize("text", ["", "a,b\n", "stage,step,metric,value\nstage1,x,y,z\n"])
def test_a_damaged_metrics_file_is_refused_by_name(tmp_path, text):
    (tmp_path / "metrics.csv").write_text(text, "utf-8")
    with pytest.raises(ValueError, match=r"metrics\.csv is damaged"):
        read_metrics(tmp_path / "metrics.csv")
