"""Two processes of one run, started by the command line as a user does, make what one process makes."""

import shutil

import pytest
import torch

from tcvq_runner.curves import read_metrics
from tcvq_runner.samples import read_samples

SHARED = ("codes_test/*", "codes_train/*", "samples.*")  # what processes make in shards
N = 450  # three shards of samples


def contents(folder, *made):
    return {str(file.relative_to(folder)): file.read_bytes() for each in made for file in folder.glob(each)}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """The recipe `debug` in float64, by one process and by two that share its batches."""
    from tcvq_runner.cli import main

    folder = tmp_path_factory.mktemp("runs")
    for n in (1, 2):
        options = ("--precision", "64", "--threads", "1", "--devices", str(n), "--device", "cpu")
        settings = ("checkpoint.every_steps=4", f"sample.n={N}")
        assert main(["run", "debug", *settings, *options, "--out", str(folder / str(n))]) == 0
    return folder / "1", folder / "2"


@pytest.mark.slow
def test_two_processes_have_the_losses_of_one_with_the_same_global_batch(runs):
    one, two = (read_metrics(folder / "metrics.csv") for folder in runs)
    assert [row[:3] for row in one] == [row[:3] for row in two]
    assert {row[0] for row in one} == {"stage1", "stage2"}
    for (stage, step, name, value), (*_, other) in zip(one, two, strict=True):
        assert other == pytest.approx(value, rel=1e-7, abs=1e-8), (stage, step, name)


@pytest.mark.slow
def test_only_the_first_of_two_processes_writes_and_speaks(runs, capfd):
    one, two = runs
    assert {path.name for path in two.iterdir()} == {path.name for path in one.iterdir()}
    (best,) = (two / "checkpoints" / "stage2").iterdir()
    assert {path.name for path in best.iterdir()} == {"manifest.json", "state.pt", "rank-00000.pt", "rank-00001.pt"}


@pytest.mark.slow
def test_two_processes_have_the_codes_and_the_samples_of_one(runs):
    """Weights differ by the rounding of float64, so the files name another VQ-VAE; what they hold is the same."""
    one, two = runs
    rows = ("codes_*/*.arrow", "samples.png", "reconstructions.png")
    assert len(contents(one, *rows)) == 4
    assert contents(one, *rows) == contents(two, *rows)
    first, second = (read_samples(folder / "samples.safetensors") for folder in runs)
    assert len(first.indices) == N
    assert torch.equal(first.indices, second.indices)
    assert torch.equal(first.images, second.images)


@pytest.mark.slow
def test_two_processes_encode_and_draw_with_the_same_models_into_the_same_files_as_one(runs, tmp_path, tcvq):
    again = shutil.copytree(runs[0], tmp_path / "again")
    for name in ("codes_train", "codes_test"):
        shutil.rmtree(again / name)
    (again / "samples.safetensors").unlink()
    (again / "samples.png").unlink()
    assert tcvq("run", again, "--devices", 2, "--device", "cpu", "--threads", 1)[0] == 0
    assert len(contents(again, *SHARED)) == 10
    assert contents(again, *SHARED) == contents(runs[0], *SHARED)
    assert {path.name for path in again.iterdir()} == {path.name for path in runs[0].iterdir()}


def test_a_batch_that_two_processes_cannot_share_is_refused_once_and_leaves_no_folder(tmp_path, capfd):
    from tcvq_runner.cli import main

    status = main(["run", "debug", "stage1.batch_size=15", "--devices", "2", "--out", str(tmp_path / "run")])
    err = capfd.readouterr().err
    assert status == 2
    assert err.count("tcvq: ") == 1
    assert "stage1.batch_size is 15, which cannot be shared by 2 processes" in err
    assert not (tmp_path / "run").exists()


def test_more_machines_are_a_matter_for_torchrun_or_slurm(tmp_path, tcvq):
    status, _, err = tcvq("run", "debug", "--num-nodes", 2, "--devices", 2, "--out", tmp_path / "run")
    assert (status, "started by torchrun or srun" in err) == (2, True)
