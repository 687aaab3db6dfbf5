"""`tcvq runs`: what a run is, and whether it is whole."""

import fcntl
import json
import shutil

import pytest


def test_a_finished_run_is_listed_with_its_first_number(finished, tcvq):
    status, out, err = tcvq("runs", "list", finished.parent)
    assert (status, err) == (0, "")
    row = next(line for line in out.splitlines() if str(finished) in line)
    assert all(part in row for part in ("debug", "finished", "5/5"))


def test_the_state_of_a_run_follows_its_record_and_its_lock(copied, tcvq):
    def facts():
        return json.loads(tcvq("runs", "list", copied, "--json")[1])["runs"][0]

    record = json.loads((copied / "run.json").read_text())
    for step in ("eval", "sample"):
        del record["steps"][step]
    (copied / "run.json").write_text(json.dumps(record))
    assert (facts()["state"], facts()["now"], len(facts()["done"])) == ("stopped", "sample", 3)
    with (copied / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert facts()["state"] == "running"
    assert facts()["state"] == "stopped"  # the lock of a process that is gone
    (copied / "run.json").write_text("{")
    assert facts()["state"] == "damaged"


def test_show_says_what_was_made_and_where(finished, tcvq):
    status, out, _ = tcvq("runs", "show", finished)
    assert status == 0
    assert "debug, seed 0, data fashion-mini" in out
    tree = json.loads(tcvq("runs", "show", finished, "--json")[1])
    assert set(tree["steps"]) >= {"stage1", "encode", "stage2", "sample", "eval"}
    assert len(tree["steps"]["stage1"]["vqvae"]) == 64
    assert "git_dirty" in tree["environment"]


def test_a_whole_run_verifies(finished, tcvq):
    status, out, err = tcvq("runs", "verify", finished)
    assert (status, err) == (0, "")
    assert [line.split()[:2] for line in out.splitlines()][:5] == [
        [name, "whole"]
        for name in ("vqvae.safetensors", "codes_train", "codes_test", "prior.safetensors", "samples.safetensors")
    ]


@pytest.mark.parametrize("name", ["vqvae.safetensors", "prior.safetensors", "samples.safetensors", "codes_train"])
def test_one_flipped_bit_in_any_artifact_is_found(copied, tcvq, name):
    path = copied / name
    path = next(path.glob("*.arrow")) if path.is_dir() else path
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    status, out, err = tcvq("runs", "verify", copied)
    assert status == 2
    assert next(line for line in out.splitlines() if line.startswith(name)).split()[1] != "whole"
    assert len(err.splitlines()) == 1
    assert name in err


def test_a_whole_file_that_does_not_belong_here_is_found(copied, other_vqvae, tcvq):
    shutil.copy(other_vqvae, copied / "vqvae.safetensors")
    status, out, err = tcvq("runs", "verify", copied)
    assert status == 2
    assert "is whole but not what the run made" in err
    assert "was made from another vqvae" in out  # the codes


def test_a_missing_artifact_is_found_and_a_folder_that_is_no_run_refused(copied, tcvq, tmp_path):
    (copied / "prior.safetensors").unlink()
    status, _, err = tcvq("runs", "verify", copied)
    assert status == 2
    assert "prior.safetensors" in err
    for command in (("verify", tmp_path), ("show", tmp_path), ("list", tmp_path / "none")):
        status, out, err = tcvq("runs", *command)
        assert (status, out, len(err.splitlines())) == (2, "", 1)
