"""Processes that build parts, started as programs of their own: a script needs no ``if __name__ == "__main__"``.

A worker gets a pickled job and then numbers of parts on its standard input, and answers each number on its standard
output. It ends when its input does, so it does not outlive a process that was killed.
"""

import os
import pickle
import selectors
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress

from tcvq_data.frames.parts import Job, write_part


def build_in_processes(job: Job, numbers: list[int], n_workers: int) -> Iterator[int]:
    """Build parts in ``n_workers`` processes, and yield the number of each one that is done.

    Raises:
        OSError: Writing failed, or a worker died.
        Exception: Whatever else a worker met.
    """
    todo = iter(numbers)
    with ExitStack() as stack, selectors.DefaultSelector() as answers:
        for _ in range(min(n_workers, len(numbers))):
            worker = stack.enter_context(_started(job))
            assert worker.stdout is not None
            if _give(worker, next(todo, None)):
                answers.register(worker.stdout, selectors.EVENT_READ, worker)
        while answers.get_map():
            for key, _ in answers.select():
                worker = key.data
                number = _answer(worker)
                yield number
                if not _give(worker, next(todo, None)):
                    answers.unregister(key.fileobj)


def main() -> None:
    """Build the parts that are asked for; the program of a worker."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the process that asks ends us
    answers = os.dup(sys.stdout.fileno())
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # whatever prints must not answer
    job: Job = pickle.load(sys.stdin.buffer)
    with suppress(BrokenPipeError):  # the process that asks was killed
        while (line := sys.stdin.buffer.readline()).endswith(b"\n"):
            answer: int | Exception = int(line)
            try:
                write_part(job, int(line))
            except Exception as error:  # handed over to the process that asks
                answer = error
            os.write(answers, pickle.dumps(answer))


@contextmanager
def _started(job: Job) -> Iterator[subprocess.Popen[bytes]]:
    """Start a worker and hand it its job; end it when the block ends, whatever it does then."""
    path = os.pathsep.join(entry for entry in sys.path if entry)
    worker = subprocess.Popen(
        [sys.executable, "-P", "-c", f"from {__name__} import main; main()"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
    )
    assert worker.stdin is not None and worker.stdout is not None  # noqa: PT018
    try:
        with suppress(BrokenPipeError):
            worker.stdin.write(pickle.dumps(job))
        yield worker
    finally:
        worker.terminate()  # parts appear whole or not at all
        with suppress(BrokenPipeError):
            worker.stdin.close()
        worker.stdout.close()
        worker.wait()


def _give(worker: subprocess.Popen[bytes], number: int | None) -> bool:
    """Ask a worker for a part, unless there is none left."""
    if number is None:
        return False
    assert worker.stdin is not None
    with suppress(BrokenPipeError):  # its death shows when the answer is read
        worker.stdin.write(f"{number}\n".encode())
        worker.stdin.flush()
    return True


def _answer(worker: subprocess.Popen[bytes]) -> int:
    """Return the number of the part that a worker has built, or raise what it met."""
    assert worker.stdout is not None
    try:
        answer = pickle.load(worker.stdout)
    except (EOFError, pickle.UnpicklingError):
        code = worker.wait()
        raise OSError(
            f"a process that reads recordings ended with code {code} (-9 is lack of memory); "
            "what is done is kept: run again, with fewer workers"
        ) from None
    if isinstance(answer, Exception):
        raise answer
    return int(answer)
