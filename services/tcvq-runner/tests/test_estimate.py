"""`tcvq doctor --recipe` and shell completion."""

import subprocess

import pytest
import torch
from click.shell_completion import BashComplete

from tcvq_runner import estimate as estimating
from tcvq_runner.cli import cli, main
from tcvq_runner.estimate import estimate, estimate_lines
from tcvq_runner.layers import builtin_recipes
from tcvq_runner.probe import probe
from tcvq_runner.recipe import load_recipe
from tcvq_runner.wiring import Compute

CPU = Compute(device=torch.device("cpu"), precision="32-true", threads=1)


class Silent:
    def task(self, *_, **__):
        from contextlib import nullcontext
        from types import SimpleNamespace

        return nullcontext(SimpleNamespace(update=lambda *_: None))


def estimated(recipe, monkeypatch, fake):
    monkeypatch.setattr(estimating, "_probe", fake)
    return estimate(recipe, CPU, Silent())


def test_time_and_memory_of_a_large_batch_follow_from_two_small_ones(monkeypatch):
    asked = []

    def fake(recipe, stage, batch, compute):
        asked.append(batch)
        return 10.0 + 5.0 * batch, 1e12 + 1e11 * batch  # far more than there is: the whole batch is not tried

    found = estimated(load_recipe("debug"), monkeypatch, fake)
    assert asked == [1, 2, 1, 2]
    assert [(s.seconds, s.memory, s.batch) for s in found.stages] == [(90.0, 2.6e12, 16)] * 2
    assert found.stages[0].how == "extrapolated from batches of 1 and 2"
    assert any("does not fit: set stage1.accumulate higher" in text for _, text in estimate_lines(found))


def test_batches_grow_as_long_as_the_next_one_is_worth_it(monkeypatch):
    asked = []

    def fake(recipe, stage, batch, compute):
        asked.append(batch)
        return 1.0 + 0.5 * batch - 0.2 * (batch > 1), 1e6  # 16 takes 5 times 8.8 s, 64 would take 5 times 33

    found = estimated(load_recipe("celeba"), monkeypatch, fake)
    assert asked == [1, 4, 16] * 2
    assert [stage.seconds for stage in found.stages] == [pytest.approx(32.8)] * 2
    assert [stage.how for stage in found.stages] == [
        "extrapolated from batches of 4 and 16, without LPIPS",
        "extrapolated from batches of 4 and 16",
    ]


def test_a_batch_that_fits_is_measured_itself_and_accumulation_counts_as_time(monkeypatch):
    asked = []

    def fake(recipe, stage, batch, compute):
        asked.append((stage, batch))
        return 0.1 * batch, 1e6

    found = estimated(load_recipe("debug", ["stage1.accumulate=4"]), monkeypatch, fake)
    stage1, stage2 = found.stages
    assert asked == [("stage1", 1), ("stage1", 4), ("stage2", 1), ("stage2", 16)]
    assert (stage1.batch, stage1.seconds, stage1.how) == (4, pytest.approx(1.6), "measured")
    assert (stage2.batch, stage2.seconds) == (16, pytest.approx(1.6))
    assert (stage1.steps_per_epoch, stage1.steps) == (12, 10)  # 200 images


def test_epochs_become_steps_and_missing_data_are_said_with_the_way_to_get_them(monkeypatch, tmp_path):
    found = estimated(
        load_recipe("celeba", [f"data.root={tmp_path}"]), monkeypatch, lambda *_: "batch 1: out of memory"
    )
    assert found.n_images == 162_770
    assert found.stages[0].steps == 100 * (162_770 // 64)
    text = dict(estimate_lines(found))
    assert "MISSING" in text["data"]
    assert "tcvq data download celeba64" in text["data"]
    assert text["stage1"] == "not measured: batch 1: out of memory"


def test_a_probe_that_the_system_ends_is_no_traceback(monkeypatch):
    def killed(*_, **__):
        return subprocess.CompletedProcess([], -9, "", "")

    monkeypatch.setattr(subprocess, "run", killed)
    assert estimating._probe(load_recipe("debug"), "stage1", 2, CPU) == "batch 2: the system ended it: out of memory"


@pytest.mark.parametrize("stage", ["stage1", "stage2"])
def test_a_few_steps_are_measured_for_real(stage):
    found = probe(load_recipe("debug"), stage, 1, CPU)
    assert found["seconds"] > 0
    assert found["bytes"] > 1e8  # the whole process


def test_settings_without_a_recipe_and_an_unknown_recipe_are_refused(capsys):
    assert main(["doctor", "seed=3"]) == main(["doctor", "--recipe", "dbug"]) == 2
    assert "did you mean debug?" in capsys.readouterr().err


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_completion_script_names_the_command(shell, capsys):
    assert main(["completion", shell]) == 0
    assert "_TCVQ_COMPLETE" in capsys.readouterr().out


def test_a_shell_is_offered_commands_and_recipes():
    def offered(*words):
        return [item.value for item in BashComplete(cli, {}, "tcvq", "_X").get_completions([*words[:-1]], words[-1])]

    assert offered("ru") == ["run", "runs"]
    assert offered("run", "fashion-m") == [name for name in builtin_recipes() if name.startswith("fashion-m")]
    assert "--threads" in offered("run", "--th")
