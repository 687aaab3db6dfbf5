"""One line and an exit status for everything that can go wrong."""

import errno
import os
import signal
import subprocess
import sys

import click
import pytest

from tcvq_runner import failures
from tcvq_runner.cli import main
from tcvq_runner.failures import Interrupted, report, stop_signals

FULL = "tcvq: the disk is full (/a/b); free some space and run again, nothing is half-written"
MEMORY = "tcvq: out of memory; lower sample.micro_batch or eval.batch_size, or stage1.batch_size, stage2.batch_size"
STOPPED = "tcvq: stopped by {}; finished steps are kept, nothing is half-written"


@pytest.mark.parametrize(
    ("error", "status", "line"),
    [
        (ValueError("bad\n  value"), 2, "tcvq: bad value"),
        (FloatingPointError("stage 1: the loss is nan"), 2, "tcvq: stage 1: the loss is nan"),
        (OSError(errno.ENOSPC, "x", "/a/b"), 2, FULL),
        (OSError(errno.EACCES, "x", "/a/b"), 2, "tcvq: Permission denied (/a/b)"),
        (OSError("odd"), 2, "tcvq: odd"),
        (MemoryError(), 2, MEMORY),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), 2, MEMORY),
        (RuntimeError("shapes\nmore"), 1, "tcvq: unexpected RuntimeError: shapes; add --debug to see where"),
        (Interrupted(signal.SIGINT), 130, STOPPED.format("Ctrl-C")),
        (Interrupted(signal.SIGTERM), 143, STOPPED.format("SIGTERM")),
        (click.ClickException("hm"), 2, "tcvq: hm (see tcvq --help)"),
    ],
)
def test_every_error_is_one_line_and_a_status(error, status, line, capsys):
    assert report(error) == status
    text = capsys.readouterr().err
    assert text.count("\n") == 1
    assert text == f"{line}\n"


def test_the_first_signal_raises_and_later_ones_wait_for_the_cleaning_up():
    done = []

    def interrupted():
        with stop_signals():
            try:
                os.kill(os.getpid(), signal.SIGINT)
            finally:
                os.kill(os.getpid(), signal.SIGTERM)
                done.append("cleaned")

    with pytest.raises(Interrupted) as caught:
        interrupted()
    assert caught.value.signum == signal.SIGINT
    assert done == ["cleaned"]


def test_a_swallowed_signal_can_be_repeated(monkeypatch):
    monkeypatch.setattr(failures, "CLEANUP_SECONDS", 0.0)
    with stop_signals():
        for _ in range(2):
            with pytest.raises(Interrupted):
                signal.raise_signal(signal.SIGINT)


def test_the_handlers_of_before_are_put_back():
    before = signal.getsignal(signal.SIGINT)
    with stop_signals():
        assert signal.getsignal(signal.SIGINT) is not before
    assert signal.getsignal(signal.SIGINT) is before


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["run", "--vqvae.n_steps=6"], "tcvq: settings are written without dashes: vqvae.n_steps=6"),
        (["run", "--seed=6"], "tcvq: settings are written without dashes: seed=6"),
        (["run", "--vqvae.n_steps", "6"], "tcvq: settings are written without dashes: vqvae.n_steps=VALUE"),
        (["run", "fashon-mini"], "tcvq: unknown recipe 'fashon-mini'; did you mean fashion-mini?"),
        (["run", "debug", "n_steps"], "tcvq: setting 'n_steps' is not of the form section.key=value"),
        (["run", "debug", "data.name=imagenet"], "tcvq: data.name: dataset 'imagenet' is unknown;"),
        (
            ["run", "debug", "prior.n_classes=7"],
            "tcvq: prior.n_classes is 7 but data.name=fashion-mini has 10 classes;",
        ),
        (
            ["run", "debug", "vqvae.in_channels=2"],
            "tcvq: data.name=fashion-mini has images (1, 28, 28) (channels, height, width) but",
        ),
        (["run", "debug", "stage1.batch_size=201"], "tcvq: stage1.batch_size is 201 but there are 200 images"),
        (["rnu"], "tcvq: No such command 'rnu'."),
        (["run", "--device", "tpu"], "tcvq: Invalid value for '--device'"),
        (["run", "--threads", "0"], "tcvq: Invalid value for '--threads'"),
        (["encode", "nowhere"], "tcvq: nowhere does not exist; start a run with: tcvq run"),
        (["sample"], "tcvq: Missing argument 'RUN'."),
    ],
)
def test_a_wrong_command_is_one_line_with_status_2(arguments, line, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    out, err = capsys.readouterr()
    assert err.startswith(line)
    assert err.count("\n") == 1
    assert not out
    assert not list(tmp_path.iterdir())


def test_debug_shows_where():
    with pytest.raises(ValueError, match="unknown recipe"):
        main(["run", "zzz", "--debug"])


def test_help_and_version_are_no_failures(capsys):
    assert main(["--help"]) == main(["--version"]) == main(["train", "stage1", "-h"]) == 0
    assert "Usage: tcvq" in capsys.readouterr().out


def test_no_arguments_print_the_help(capsys):
    assert main([]) == 2
    assert "Usage: tcvq" in capsys.readouterr().err


def test_a_reader_who_leaves_early_is_no_reason_to_complain():
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "wb") as gone:
        command = [sys.executable, "-m", "tcvq_runner", "recipes"]
        done = subprocess.run(command, stdout=gone, stderr=subprocess.PIPE, check=False)
    assert done.returncode == 141
    assert done.stderr == b""
