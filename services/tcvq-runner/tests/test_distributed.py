"""Processes of one run: where each stands, what starts them, and that the end of one is the end of all."""

import os
import signal
import subprocess
import sys
import time

import pytest

from tcvq_runner import launching
from tcvq_runner.distributed import PeerEndedError, Place, agreed, lost_a_peer, on_first, place_of, process_rank
from tcvq_runner.launching import requeue, run_processes


@pytest.mark.parametrize(
    ("environment", "place"),
    [
        ({}, None),
        ({"RANK": "0", "WORLD_SIZE": "1"}, None),
        ({"SLURM_NTASKS": "1", "SLURM_PROCID": "0"}, None),
        (
            {"RANK": "5", "WORLD_SIZE": "8", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "4"},
            Place(rank=5, world_size=8, local_rank=1, local_size=4),
        ),
        (
            {"SLURM_NTASKS": "8", "SLURM_PROCID": "6", "SLURM_LOCALID": "2", "SLURM_NNODES": "2"},
            Place(rank=6, world_size=8, local_rank=2, local_size=4),
        ),
    ],
)
def test_the_place_of_a_process_is_what_torchrun_or_slurm_says(environment, place):
    assert place_of(environment) == place


def test_a_process_alone_is_the_first_of_one_and_agrees_with_itself():
    assert process_rank() == (0, 1)
    assert agreed(lambda: None) is None
    assert on_first(lambda: 3) == 3


def test_only_the_loss_of_another_process_is_taken_for_one():
    assert lost_a_peer(PeerEndedError())
    assert not lost_a_peer(RuntimeError("Connection closed by peer"))  # there is no other process here


def child(monkeypatch, code):
    """Let the launcher start this code in place of the command."""
    code = f"import os, sys, time\nrank = os.environ['RANK']\n{code}"
    monkeypatch.setattr(launching, "COMMAND", (sys.executable, "-c", code))


def test_the_launcher_tells_each_process_its_place(monkeypatch, tmp_path):
    child(monkeypatch, "open(os.path.join(sys.argv[1], rank), 'w').write(os.environ['WORLD_SIZE'])")
    assert run_processes(2, [str(tmp_path)]) == 0
    assert sorted((path.name, path.read_text()) for path in tmp_path.iterdir()) == [("0", "2"), ("1", "2")]


def test_the_first_that_fails_decides_the_status_and_is_heard(monkeypatch, capfd):
    monkeypatch.setattr(launching, "GRACE_SECONDS", 0.2)
    child(monkeypatch, "if rank == '0': time.sleep(60)\nprint('noise\\ntcvq: no data', file=sys.stderr); sys.exit(2)")
    started = time.monotonic()
    assert run_processes(2, []) == 2
    assert time.monotonic() - started < 30
    assert capfd.readouterr().err == "tcvq: no data\n"


def test_a_killed_process_is_named_and_ends_the_others(monkeypatch, capfd):
    monkeypatch.setattr(launching, "GRACE_SECONDS", 0.2)
    child(monkeypatch, "time.sleep(60) if rank == '0' else os.kill(os.getpid(), 9)")
    assert run_processes(2, []) == 128 + signal.SIGKILL
    assert capfd.readouterr().err == "tcvq: process 1 of 2 ended by SIGKILL\n"


COUNTING = """
import signal
path, heard = os.path.join(sys.argv[1], rank), []
signal.signal(signal.SIGTERM, lambda *_: heard.append(1))
open(path, "w").close()
while not heard: time.sleep(0.01)
time.sleep(0.3)
open(path, "w").write(str(len(heard)))
"""


def test_a_signal_reaches_all_processes_once(tmp_path):
    code = f"import os, sys, time\nrank = os.environ['RANK']{COUNTING}"
    script = "import sys; from tcvq_runner import launching\n"
    script += f"launching.COMMAND = (sys.executable, '-c', {code!r})\n"
    script += "sys.exit(launching.run_processes(2, [sys.argv[1]]))"
    with subprocess.Popen([sys.executable, "-c", script, str(tmp_path)]) as process:
        while len(list(tmp_path.iterdir())) < 2:
            assert process.poll() is None
            time.sleep(0.01)
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=60) == 0
    assert {path.read_text() for path in tmp_path.iterdir()} == {"1"}


def test_several_machines_need_a_launcher_that_reaches_them():
    with pytest.raises(ValueError, match="--num-nodes 2: processes on other machines are started by torchrun or srun"):
        run_processes(4, [], num_nodes=2)


def test_a_slurm_job_is_put_back_into_the_queue(monkeypatch, tmp_path):
    said = tmp_path / "said"
    scontrol = tmp_path / "scontrol"
    scontrol.write_text(f"#!/bin/sh\necho $@ >> {said}\n", "utf-8")
    scontrol.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    assert requeue({}) is None
    assert requeue({"SLURM_JOB_ID": "17"}) == "17"
    assert requeue({"SLURM_JOB_ID": "18", "SLURM_ARRAY_JOB_ID": "17", "SLURM_ARRAY_TASK_ID": "3"}) == "17_3"
    assert said.read_text().splitlines() == ["requeue 17", "requeue 17_3"]
