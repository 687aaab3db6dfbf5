"""One finished run of the recipe `debug` for all tests, and copies of it to damage."""

import shutil

import pytest
import torch

from tcvq_runner.cli import main


@pytest.fixture(scope="session", autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
    torch.use_deterministic_algorithms(False)


@pytest.fixture(scope="session")
def finished(tmp_path_factory):
    """The folder of a finished run; not to be changed."""
    out = tmp_path_factory.mktemp("runs") / "finished"
    assert main(["run", "debug", "--out", str(out), "--threads", "1", "--debug"]) == 0
    return out


@pytest.fixture(scope="session")
def event_study(tmp_path_factory):
    """The folder of the study temporal-vs-vanilla on a few simulated recordings; not to be changed."""
    out = tmp_path_factory.mktemp("events")
    few = ("stage1.max_steps=4", "stage1.unquantized_steps=2", "stage2.max_steps=2", f"data.root={out / 'data'}")
    command = ["study", "temporal-vs-vanilla", "debug-events", *few, "--out", str(out / "study"), "--threads", "1"]
    assert main(command) == 0
    return out / "study"


@pytest.fixture(scope="session")
def event_run(event_study, tmp_path_factory):
    """The folder of a finished run of recordings; not to be changed."""
    out = tmp_path_factory.mktemp("runs") / "events"
    shutil.copytree(next((event_study / "runs").glob("temporal-*")), out)
    assert main(["sample", str(out)]) == main(["eval", str(out), "--threads", "1"]) == 0
    return out


@pytest.fixture(scope="session")
def other_vqvae(tmp_path_factory):
    """The VQ-VAE of the same recipe with another seed."""
    out = tmp_path_factory.mktemp("runs") / "other"
    assert main(["train", "stage1", "debug", "seed=1", "--out", str(out), "--threads", "1"]) == 0
    return out / "vqvae.safetensors"


@pytest.fixture
def copied(finished, tmp_path):
    """A copy of the finished run that a test may change."""
    return shutil.copytree(finished, tmp_path / "copy")


@pytest.fixture
def tcvq(capsys):
    """Runs a command on one thread and returns its status, its output and its error output."""

    def run(*arguments):
        capsys.readouterr()
        status = main([*map(str, arguments)])
        return status, *capsys.readouterr()

    return run
