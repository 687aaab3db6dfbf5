"""The log file of a run: every command that worked in the folder, what it did, and how it ended."""

import shlex
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from datetime import datetime
from io import RawIOBase
from pathlib import Path
from typing import Any

from tcvq_runner.failures import describe
from tcvq_runner.progress import PlainReporter, Reporter, Task

NAME = "run.log"


@contextmanager
def logged(folder: Path, reporter: Reporter, command: Sequence[str]) -> Iterator[Reporter]:
    """Yield a reporter that also writes to the folder's log, which says how the block began and ended.

    A log that cannot be written, on a full disk for example, is left out: it must not stop a run.

    Args:
        folder: The run folder.
        reporter: Shows the progress elsewhere.
        command: What the user typed, word by word.
    """
    try:
        file = (folder / NAME).open("ab", buffering=0)
    except OSError:
        yield reporter
        return
    with file:
        book = _Stamped(file)
        book.write(f"began: {shlex.join(command)}\n")
        try:
            yield _Both(reporter, PlainReporter(book))  # type: ignore[arg-type]  # it only writes and flushes
        except BaseException as error:
            book.write(f"ended: {' '.join(describe(error).split())}\n")
            raise
        book.write("ended: done\n")


class _Stamped:
    """Writes lines with the time before each; what the disk refuses is dropped."""

    def __init__(self, file: RawIOBase) -> None:
        self._file = file

    def write(self, text: str) -> None:
        now = datetime.now().astimezone().isoformat(timespec="seconds")
        with suppress(OSError):
            self._file.write(f"{now} {text}".encode())

    def flush(self) -> None:
        """Nothing is held back."""


class _Both:
    """Shows every task in two places."""

    def __init__(self, first: Reporter, second: Reporter) -> None:
        self._reporters = (first, second)

    @contextmanager
    def task(self, *arguments: Any, **options: Any) -> Iterator[Task]:
        with ExitStack() as stack:
            yield _Tasks([stack.enter_context(each.task(*arguments, **options)) for each in self._reporters])

    def note(self, text: str) -> None:
        for each in self._reporters:
            each.note(text)


class _Tasks:
    def __init__(self, tasks: list[Task]) -> None:
        self._tasks = tasks

    def update(self, done: int, values: Mapping[str, float] | None = None) -> None:
        for task in self._tasks:
            task.update(done, values)
