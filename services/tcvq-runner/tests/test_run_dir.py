"""Run folders: one process at a time, nothing overwritten, everything recorded."""

import fcntl
import json
import os
import re

import pytest

from tcvq_runner.lock import RunFolderError
from tcvq_runner.recipe import ConfigError, load_recipe
from tcvq_runner.run_dir import new_run, open_run

RECIPE = load_recipe("debug")


@pytest.fixture
def run(tmp_path):
    with new_run(RECIPE, tmp_path / "run", {"a": 1}) as folder:
        pass
    return folder


def test_a_new_run_holds_its_recipe_and_its_environment_and_no_lock_afterwards(run):
    assert sorted(path.name for path in run.path.iterdir()) == ["config.yaml", "env.json"]
    assert run.recipe() == RECIPE
    assert json.loads(run.env.read_text("utf-8")) == {"a": 1}


def test_the_default_folder_is_named_by_recipe_and_time_and_never_reused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with new_run(RECIPE, None, {}) as first, new_run(RECIPE, None, {}) as second:
        assert first.path.parent.as_posix() == "runs/debug"
        assert first.path != second.path


def test_a_folder_that_is_not_empty_is_refused_and_left_alone(tmp_path):
    (tmp_path / "thesis.txt").write_text("precious", "utf-8")
    with pytest.raises(RunFolderError, match=r"is not empty; choose another folder"), new_run(RECIPE, tmp_path, {}):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_a_file_in_place_of_the_folder_is_refused(tmp_path):
    (tmp_path / "f").touch()
    with pytest.raises(RunFolderError, match="is not a folder"), new_run(RECIPE, tmp_path / "f", {}):
        pass


def test_a_folder_in_use_is_refused_by_the_process_that_uses_it(run):
    with (
        open_run(run.path),
        pytest.raises(RunFolderError, match=f"in use by process {os.getpid()}:"),
        open_run(run.path),
    ):
        pass
    with open_run(run.path):  # free again
        pass


def test_a_lock_file_without_a_living_owner_does_not_hold_the_folder(run):
    (run.path / ".lock").write_text("99999", "utf-8")
    with open_run(run.path):
        assert (run.path / ".lock").read_text("utf-8") == str(os.getpid())


def test_a_lock_taken_on_a_removed_file_is_taken_again(run, monkeypatch):
    real, lock, stolen = fcntl.flock, run.path / ".lock", []

    def flock(fd, operation):
        if not stolen:
            stolen.append(lock.unlink())  # the owner before us leaves between our open and our lock
        real(fd, operation)

    monkeypatch.setattr(fcntl, "flock", flock)
    with open_run(run.path):
        assert lock.exists()


def test_what_is_no_run_folder_is_refused(tmp_path):
    with pytest.raises(RunFolderError, match=r"has no config\.yaml"), open_run(tmp_path):
        pass
    with pytest.raises(RunFolderError, match="does not exist"), open_run(tmp_path / "none"):
        pass


def test_a_missing_file_names_the_command_that_makes_it(run):
    for path, command in (
        (run.vqvae, f"tcvq run {run.config}"),
        (run.codes("train"), f"tcvq encode {run.path}"),
        (run.prior, f"tcvq train stage2 {run.path}"),
        (run.samples, f"tcvq sample {run.path}"),
    ):
        with pytest.raises(RunFolderError, match=re.escape(command)):
            run.need(path)


def test_codes_are_a_folder_of_the_run(run):
    run.codes("test").mkdir()
    assert run.need(run.codes("test")) == run.path / "codes_test"


def test_a_step_is_recorded_when_it_ends_well_and_only_then(run):
    with run.step("stage1") as facts:
        facts["vqvae"] = "abc"
    with pytest.raises(OSError, match="full"), run.step("encode"):
        raise OSError("full")
    assert list(run.steps()) == ["stage1"]
    assert run.steps()["stage1"]["vqvae"] == "abc"
    assert json.loads(run.status.read_text("utf-8"))["schema"] == "tcvq.run/1"


@pytest.mark.parametrize("text", ["{", "[]", '{"schema": "tcvq.run/2", "steps": {}}', '{"schema": "tcvq.run/1"}'])
def test_a_damaged_or_foreign_status_is_refused(run, text):
    run.status.write_text(text, "utf-8")
    with pytest.raises(RunFolderError, match=r"run\.json"):
        run.steps()


def test_what_follows_stage_1_may_change_and_is_kept(run):
    changed = run.change(("stage2.max_steps=3",))
    assert changed.stage2.max_steps == 3
    assert run.recipe() == RECIPE
    run.keep(changed)
    assert run.recipe() == changed


def test_what_stage_1_was_trained_with_is_fixed(run):
    with pytest.raises(ConfigError, match=r"stage1\.max_steps is fixed"):
        run.change(("stage1.max_steps=7",))
    assert run.recipe() == RECIPE
