"""Telling the user how far a step is: a live bar in a terminal, a plain line every ten seconds elsewhere."""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Protocol, TextIO

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

PLAIN_INTERVAL = 10.0  # seconds
MOST_VALUES = 4


class Task(Protocol):
    """One step that is under way."""

    def update(self, done: int, values: Mapping[str, float] | None = None) -> None:
        """Show that ``done`` units are finished, and the latest values of what is measured."""
        ...


class Reporter(Protocol):
    """Shows tasks, one after another."""

    def task(self, title: str, total: int, unit: str, *, before: int = 0) -> AbstractContextManager[Task]:
        """Open a task of ``total`` units, of which some were done before."""
        ...

    def note(self, text: str) -> None:
        """Show one line."""
        ...


def open_reporter(stream: TextIO) -> Reporter:
    """Return the reporter that suits the stream: live in a terminal, plain lines anywhere else."""
    return LiveReporter(Console(file=stream)) if stream.isatty() else PlainReporter(stream)


@contextmanager
def announced(reporter: Reporter, unit: str) -> Iterator[Callable[[str, int, int], None]]:
    """Yield a function ``(title, done, total)`` that opens a task when it first hears of a title or total.

    For work that may not be needed at all, such as building a cache, or whose size is learnt on the way.
    """
    with ExitStack() as stack:
        current: tuple[str, int] | None = None
        task: Task | None = None

        def progress(title: str, done: int, total: int) -> None:
            nonlocal current, task
            if task is None or current != (title, total):
                stack.close()
                current, task = (title, total), stack.enter_context(reporter.task(title, total, unit))
            task.update(done)

        yield progress


def pace(done: int, total: int, seconds: float, unit: str) -> str:
    """Return rate and remaining time, such as ``12.3 steps/s, 1:05 left``."""
    if not done or seconds <= 0:
        return ""
    rate = done / seconds
    rate_text = f"{rate:.1f} {unit}s/s" if rate >= 1 else f"{1 / rate:.1f} s/{unit}"
    return f"{rate_text}, {clock((total - done) / rate)} left"


def clock(seconds: float) -> str:
    """Return a duration as ``m:ss``, or ``h:mm:ss`` from one hour on."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def brief(values: Mapping[str, float]) -> str:
    """Return the first few values for one line, such as ``l1 0.0432, perplexity 312, val bits 4.1``."""
    shown = list(values.items())[:MOST_VALUES]
    return ", ".join(f"{name.removeprefix('train/').replace('/', ' ')} {value:.4g}" for name, value in shown)


class LiveReporter:
    """Progress bars that redraw in place."""

    def __init__(self, console: Console) -> None:
        self._console = console

    @contextmanager
    def task(self, title: str, total: int, unit: str, *, before: int = 0) -> Iterator[Task]:
        """Open a task of ``total`` units, of which some were done before."""
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[note]}"),
        )
        with Progress(*columns, console=self._console, refresh_per_second=4) as bar:
            row = bar.add_task(f"{title:<8}", total=total, completed=before, note="")
            started = time.monotonic()

            class _Row:
                def update(self, done: int, values: Mapping[str, float] | None = None) -> None:
                    speed = pace(done - before, total - before, time.monotonic() - started, unit)
                    note = f"{speed}  {brief(values or {})}"
                    bar.update(row, completed=done, note=note)

            yield _Row()

    def note(self, text: str) -> None:
        """Show one line."""
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)


class SilentReporter:
    """Says nothing: for all processes of a run but the first."""

    @contextmanager
    def task(self, title: str, total: int, unit: str, *, before: int = 0) -> Iterator[Task]:
        """Open a task that nobody sees."""
        yield self

    def update(self, done: int, values: Mapping[str, float] | None = None) -> None:
        """Take note of nothing."""

    def note(self, text: str) -> None:
        """Write nothing."""


class PlainReporter:
    """Lines for logs: one when a task begins, one every ten seconds, one when it ends."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    @contextmanager
    def task(self, title: str, total: int, unit: str, *, before: int = 0) -> Iterator[Task]:
        """Open a task of ``total`` units; the closing line is left out when the task fails."""
        lines = _PlainTask(self._stream, title, total, unit, before)
        yield lines
        lines.close()

    def note(self, text: str) -> None:
        """Write one line."""
        self._stream.write(f"{text}\n")
        self._stream.flush()


class _PlainTask:
    def __init__(self, stream: TextIO, title: str, total: int, unit: str, before: int) -> None:
        self._stream, self._title, self._total, self._unit, self._before = stream, title, total, unit, before
        self._started = self._shown = time.monotonic()
        self._values: dict[str, float] = {}

    def update(self, done: int, values: Mapping[str, float] | None = None) -> None:
        self._values.update(values or {})
        now = time.monotonic()
        if now - self._shown >= PLAIN_INTERVAL:
            self._shown, before = now, self._before
            self._line(
                f"{done}/{self._total}", pace(done - before, self._total - before, now - self._started, self._unit)
            )

    def close(self) -> None:
        self._line(f"{self._total} {self._unit}s", f"done in {clock(time.monotonic() - self._started)}")

    def _line(self, *parts: str) -> None:
        text = "  ".join([*parts, brief(self._values)]).rstrip()
        self._stream.write(f"{self._title}: {text}\n")
        self._stream.flush()
