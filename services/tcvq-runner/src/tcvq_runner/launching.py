"""Starting the processes of a run on this machine, passing signals on to them, and ending all when one fails."""

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from types import FrameType
from typing import IO

from tcvq_runner.distributed import PARENT
from tcvq_runner.failures import STOP_SIGNALS

COMMAND = (sys.executable, "-m", "tcvq_runner")
GRACE_SECONDS = 20.0  # for processes to end by themselves when another one has failed
_POLL_SECONDS = 0.05


def run_processes(n: int, arguments: Sequence[str], *, num_nodes: int = 1) -> int:
    """Run this command in ``n`` processes and return the exit status of the one that failed first, else 0.

    The first process speaks to the user; of the others only the error of one that fails before it is shown.

    Args:
        n: Number of processes.
        arguments: The command's arguments.
        num_nodes: Must be 1: other machines need torchrun or SLURM to be reached.

    Raises:
        ValueError: There are to be several machines.
    """
    if num_nodes > 1:
        raise ValueError(
            f"--num-nodes {num_nodes}: processes on other machines are started by torchrun or srun, "
            "such as: srun tcvq run …, or torchrun --nnodes 2 --nproc-per-node 4 -m tcvq_runner run …"
        )
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    base = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(n), "LOCAL_WORLD_SIZE": str(n)}
    base[PARENT] = str(os.getpid())
    command = [*COMMAND, *arguments]
    with ExitStack() as stack:
        said = [None, *(stack.enter_context(tempfile.TemporaryFile("w+")) for _ in range(n - 1))]
        processes = [
            subprocess.Popen(
                command,
                env=os.environ | base | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
                stdout=subprocess.DEVNULL if rank else None,
                stderr=said[rank],
                start_new_session=True,  # Ctrl-C reaches them through us, once
            )
            for rank in range(n)
        ]

        def pass_on(signum: int, frame: FrameType | None) -> None:
            for process in processes:
                if process.poll() is None:
                    process.send_signal(signum)

        before = {each: signal.signal(each, pass_on) for each in STOP_SIGNALS}
        try:
            return _wait(processes, said)
        finally:
            for process in processes:
                process.kill()
                process.wait()
            for each, handler in before.items():
                signal.signal(each, handler)


def _wait(processes: list[subprocess.Popen[bytes]], said: Sequence[IO[str] | None]) -> int:
    """Wait for all; when one has failed, the others have some seconds to end."""
    first_failed: int | None = None
    deadline = float("inf")
    while (running := [p for p in processes if p.poll() is None]) and time.monotonic() < deadline:
        failed = [rank for rank, process in enumerate(processes) if process.returncode]
        if failed and first_failed is None:
            first_failed, deadline = failed[0], time.monotonic() + GRACE_SECONDS
        running[0].poll()
        time.sleep(_POLL_SECONDS)
    failed = [rank for rank, process in enumerate(processes) if process.returncode]
    if first_failed is None and not failed:
        return 0
    culprit = failed[0] if first_failed is None else first_failed
    status, file, lines = processes[culprit].returncode, said[culprit], list[str]()
    if file is not None:
        file.seek(0)
        lines = [line for line in file.read().splitlines() if line.startswith("tcvq: ")][-1:]
    if status < 0:
        lines = [f"tcvq: process {culprit} of {len(processes)} ended by {signal.Signals(-status).name}"]
    sys.stderr.writelines(f"{line}\n" for line in lines)
    return 128 - status if status < 0 else status


def requeue(environment: Mapping[str, str]) -> str | None:
    """Put the SLURM job that this process belongs to back into the queue, and return its number; None outside of one.

    SLURM does that itself when it preempts a job, but not when the time limit comes near, of which it warns by the
    signal that ``--signal=USR1@90`` asks for.
    """
    array, task = environment.get("SLURM_ARRAY_JOB_ID"), environment.get("SLURM_ARRAY_TASK_ID")
    job = f"{array}_{task}" if array and task else environment.get("SLURM_JOB_ID")
    if not job:
        return None
    try:
        done = subprocess.run(["scontrol", "requeue", job], capture_output=True, check=False)
    except OSError:
        return None
    return job if done.returncode == 0 else None
