"""The processes of one run: who this one is among them, how they find each other, and what they agree on.

Every process does every step. Which part of a step is its own follows from `process_rank`; only the first one writes
files of the run, talks to the user and holds the lock.
"""

import ctypes
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

T = TypeVar("T")
PARENT = "TCVQ_PARENT"  # process that started this one, and whose end ends it
_PATIENCE = timedelta(hours=1)  # of a process that waits for another one, which may be building a cache
_SET_PARENT_DEATH_SIGNAL = 1  # PR_SET_PDEATHSIG of prctl(2)


class PeerEndedError(RuntimeError):
    """Another process of the run ended and has said why."""


class ChildrenEnded(BaseException):
    """The processes that did the work have ended.

    Attributes:
        status: Their exit status.
    """

    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status


@dataclass(frozen=True, kw_only=True, slots=True)
class Place:
    """Where a process stands.

    Attributes:
        rank: Its number among all.
        world_size: Number of all.
        local_rank: Its number on this machine.
        local_size: Number on this machine.
    """

    rank: int
    world_size: int
    local_rank: int
    local_size: int


def process_rank() -> tuple[int, int]:
    """Return the number of this process and how many there are, 0 and 1 without a process group."""
    if "torch" not in sys.modules:  # then nobody can have opened a group, and asking would cost seconds
        return 0, 1
    import torch.distributed as dist

    if dist.is_available() and dist.is_initialized():
        return dist.get_rank(), dist.get_world_size()
    return 0, 1


def place_of(environment: Mapping[str, str]) -> Place | None:
    """Return the place that torchrun, SLURM or our own launcher gave to this process, None if it stands alone."""
    if "RANK" in environment and int(environment.get("WORLD_SIZE", 1)) > 1:
        size = int(environment["WORLD_SIZE"])
        return Place(
            rank=int(environment["RANK"]),
            world_size=size,
            local_rank=int(environment.get("LOCAL_RANK", environment["RANK"])),
            local_size=int(environment.get("LOCAL_WORLD_SIZE", size)),
        )
    if int(environment.get("SLURM_NTASKS", 1)) > 1 and "SLURM_PROCID" in environment:
        size, nodes = int(environment["SLURM_NTASKS"]), int(environment.get("SLURM_NNODES", 1))
        return Place(
            rank=int(environment["SLURM_PROCID"]),
            world_size=size,
            local_rank=int(environment["SLURM_LOCALID"]),
            local_size=size // nodes,
        )
    return None


def join(place: Place) -> None:
    """Meet the other processes; a process that was started by another one ends with it.

    Raises:
        PeerEndedError: The process that started this one has ended.
        RuntimeError: The others do not come.
    """
    import torch
    import torch.distributed as dist

    if parent := os.environ.get(PARENT):
        ctypes.CDLL(None).prctl(_SET_PARENT_DEATH_SIGNAL, signal.SIGKILL)
        if os.getppid() != int(parent):
            raise PeerEndedError("the process that started this one has ended")
    os.environ |= {
        "RANK": str(place.rank),
        "WORLD_SIZE": str(place.world_size),
        "LOCAL_RANK": str(place.local_rank),
        "LOCAL_WORLD_SIZE": str(place.local_size),
        "GROUP_RANK": str(place.rank // place.local_size),
    }
    if "MASTER_ADDR" not in os.environ:
        os.environ |= _slurm_address(os.environ)
    if torch.cuda.is_available():
        torch.cuda.set_device(place.local_rank)
    dist.init_process_group("cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo", timeout=_PATIENCE)


def leave() -> None:
    """Close the process group if there is one."""
    if process_rank()[1] > 1:
        import torch.distributed as dist

        dist.destroy_process_group()


def barrier() -> None:
    """Wait until all processes are here."""
    if process_rank()[1] > 1:
        import torch.distributed as dist

        dist.barrier()


def send_to_all(value: Any) -> None:
    """Send a value from the first process to all others, which call `receive_from_first`; None says that it failed."""
    if process_rank()[1] > 1:
        import torch.distributed as dist

        dist.broadcast_object_list([value], src=0)


def receive_from_first() -> Any:
    """Return what the first process sends.

    Raises:
        PeerEndedError: It sent None: it failed.
    """
    import torch.distributed as dist

    box: list[Any] = [None]
    dist.broadcast_object_list(box, src=0)
    if box[0] is None:
        raise PeerEndedError("the first process ended")
    return box[0]


def on_first(make: Callable[[], T]) -> T | None:
    """Call a function on the first process only, while the others wait; return its result there, None elsewhere."""
    result = make() if process_rank()[0] == 0 else None
    barrier()
    return result


def end_alone(make: Callable[[], object]) -> None:
    """Close the process group and call a function on the first process only: the last thing that a run does.

    Models of a process group work together, and the function would wait for others that do not call it.
    """
    rank = process_rank()[0]
    barrier()
    leave()
    if rank == 0:
        make()


def agreed(decide: Callable[[], T]) -> T:
    """Return what the first process decides, on all of them."""
    if process_rank()[0] > 0:
        result: T = receive_from_first()[0]
        return result
    result = decide()
    send_to_all((result,))
    return result


def lost_a_peer(error: BaseException) -> bool:
    """Return whether an error only says that another process is gone."""
    gone = re.compile(r"Connection (closed|reset) by peer|Broken pipe|gloo.*(timed out|Timeout)|NCCL.*(abort|remote)")
    several = process_rank()[1] > 1
    return isinstance(error, PeerEndedError) or (
        several and isinstance(error, RuntimeError) and bool(gone.search(str(error)))
    )


def _slurm_address(environment: Mapping[str, str]) -> dict[str, str]:
    """Return where the first process of a SLURM job listens: its first machine, a port that follows from the job."""
    nodes = environment.get("SLURM_STEP_NODELIST", environment.get("SLURM_NODELIST", "127.0.0.1"))
    asked = subprocess.run(["scontrol", "show", "hostnames", nodes], capture_output=True, text=True, check=False)
    first = asked.stdout.split()[0] if asked.returncode == 0 and asked.stdout.split() else nodes
    return {"MASTER_ADDR": first, "MASTER_PORT": str(15000 + int(environment.get("SLURM_JOB_ID", 0)) % 10000)}
