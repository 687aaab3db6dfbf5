"""From exceptions and signals to one line on stderr and an exit status."""

import errno
import os
import re
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType

import click

from tcvq_runner.distributed import ChildrenEnded, lost_a_peer, process_rank

USER_ERROR = 2
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)  # SIGUSR1: what SLURM is usually told to send
CLEANUP_SECONDS = 5.0  # removing temporary files and Lightning's teardown take far less
_MEMORY = re.compile(r"out of memory|can't allocate memory|cannot allocate memory|not enough memory", re.IGNORECASE)


class Interrupted(BaseException):
    """A signal asked the process to stop.

    Not a ``KeyboardInterrupt``: Lightning turns that into an exit of its own.

    Attributes:
        signum: The signal.
        where: What was going on, and what of it is kept.
        advice: How to go on.
    """

    def __init__(self, signum: int, where: str = "") -> None:
        super().__init__(signum)
        self.signum = signum
        self.where = where
        self.advice = ""


@dataclass
class StopRequest:
    """A signal that waits until work is at a point where it can stop.

    Attributes:
        signum: The signal, None as long as there is none.
    """

    signum: int | None = None


_waiting: list[StopRequest] = []  # of the blocks under way that stop by themselves; a handler has no other way to know


@contextmanager
def stops_itself() -> Iterator[StopRequest]:
    """Let the first signal wait inside the block, which has to look for it; a second one interrupts as usual.

    Raises:
        Interrupted: At the end of the block, if a signal arrived and nobody looked.
    """
    request = StopRequest()
    _waiting.append(request)
    try:
        yield request
    finally:
        _waiting.remove(request)
    if request.signum is not None:
        raise Interrupted(request.signum)


@contextmanager
def stop_signals() -> Iterator[None]:
    """Raise `Interrupted` on the signals that ask to stop, but not while the one before is being cleaned up after."""
    deaf_until = 0.0

    def stop(signum: int, frame: FrameType | None) -> None:
        nonlocal deaf_until
        if _waiting and _waiting[-1].signum is None:
            _waiting[-1].signum = signum
        elif time.monotonic() >= deaf_until:  # not for ever: a library may have swallowed the exception
            deaf_until = time.monotonic() + CLEANUP_SECONDS
            raise Interrupted(signum)

    before = {each: signal.signal(each, stop) for each in STOP_SIGNALS}
    try:
        yield
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)


def report(error: BaseException, arguments: Sequence[str] = ()) -> int:
    """Print one line about an error to stderr and return the exit status.

    Args:
        error: What ended the command.
        arguments: What the user typed.
    """
    if isinstance(error, ChildrenEnded) or lost_a_peer(error):
        return error.status if isinstance(error, ChildrenEnded) else USER_ERROR  # who is the cause says why
    if isinstance(error, SystemExit):  # click's way to say that a pipe broke, and the end of a shell completion
        return 128 + signal.SIGPIPE if error.code else 0
    if isinstance(error, BrokenPipeError):
        # Whoever read our output has left; keep the interpreter's last flush quiet too.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE
    if isinstance(error, click.exceptions.NoArgsIsHelpError):
        click.echo(error.format_message(), err=True)
        return USER_ERROR
    text = _describe_usage(error, arguments) if isinstance(error, click.ClickException) else describe(error)
    if not (isinstance(error, Interrupted) and process_rank()[0] > 0):  # all processes get the signal; one says so
        click.echo("tcvq: " + " ".join(text.split()), err=True)
    if isinstance(error, Interrupted):
        return 128 + error.signum
    return USER_ERROR if _is_expected(error) else 1


def describe(error: BaseException) -> str:
    """Return what went wrong and what to do, for the person who typed the command."""
    if isinstance(error, Interrupted):
        name = "Ctrl-C" if error.signum == signal.SIGINT else signal.Signals(error.signum).name
        kept = error.where or "; finished steps are kept, nothing is half-written"
        return f"stopped by {name}{' ' if error.where else ''}{kept}{error.advice}"
    if _is_out_of_memory(error):
        return _describe_out_of_memory(error)
    if isinstance(error, OSError):
        return _describe_os_error(error)
    if _is_expected(error):
        return _own_words(error)
    return f"unexpected {type(error).__name__}: {str(error).partition(chr(10))[0]}; add --debug to see where"


def _describe_usage(error: click.ClickException, arguments: Sequence[str]) -> str:
    """Return click's message; settings typed with dashes get the right form."""
    if isinstance(error, click.exceptions.NoSuchOption):
        for typed in arguments:
            option, equals, value = typed.partition("=")
            if option == error.option_name and (equals or "." in option):
                return f"settings are written without dashes: {option.lstrip('-')}={value or 'VALUE'}"
    context = error.ctx if isinstance(error, click.UsageError) else None
    command = context.command_path if context else "tcvq"
    return f"{error.format_message()} (see {command} --help)"


def _is_expected(error: BaseException) -> bool:
    expected = (ValueError, FloatingPointError, OSError, click.ClickException)
    return isinstance(error, expected) or _is_out_of_memory(error)


def _is_out_of_memory(error: BaseException) -> bool:
    return isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and bool(_MEMORY.search(str(error))))


def _own_words(error: BaseException) -> str:
    """Return the message; of an error in a process that reads data, torch has put the whole stack before it."""
    text = str(error).strip()
    if "in DataLoader worker process" in text:
        last = text.rpartition("\n")[2]
        return last.partition(": ")[2] or last
    return text


def _describe_out_of_memory(error: BaseException) -> str:
    """Return what to lower, in the order of what it costs; a stage that ran out has left its name as a note."""
    stage = next((note for note in getattr(error, "__notes__", ()) if note in ("stage1", "stage2")), None)
    if stage is None:
        return "out of memory; lower sample.micro_batch or eval.batch_size, or stage1.batch_size, stage2.batch_size"
    return (
        f"out of memory in {stage}; try {stage}.grad_checkpoint=true (slower, same result) or more --devices; or with "
        f"--fresh a larger {stage}.accumulate (same batch in more parts) or a smaller {stage}.batch_size"
    )


def _describe_os_error(error: OSError) -> str:
    where = f" ({error.filename})" if error.filename else ""
    if error.errno in {errno.ENOSPC, errno.EDQUOT}:
        return f"the disk is full{where}; free some space and run again, nothing is half-written"
    if error.errno is None:
        return _own_words(error)
    return f"{os.strerror(error.errno)}{where}"
