"""Streaming statistics equal one batch and one process; the distance has its closed form."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tcvq_eval import extract_features, fit_gaussian, frechet_distance, gather_features, gaussian_distance, gaussian_of
from tcvq_eval.frozen import ModuleFeatures
from tcvq_eval.sources import tensor_source


def sample(n, width, generator, scale=1.0, move=0.0):
    return torch.randn(n, width, generator=generator, dtype=torch.float64) * scale + move


def test_two_gaussians_have_the_closed_form_of_their_parameters(generator):
    x = sample(4000, 4, generator)
    x = (x - x.mean(0)) @ torch.linalg.inv(torch.linalg.cholesky(x.T.cov()).T)
    sigma, mu = torch.tensor([1.0, 2.0, 3.0, 0.5]).double(), torch.tensor([1.0, 0.0, -2.0, 0.0]).double()
    value = gaussian_distance(fit_gaussian(x), fit_gaussian(x * sigma + mu))
    assert value == pytest.approx((mu.square().sum() + (sigma - 1).square().sum()).item(), rel=1e-10)


def test_a_stream_of_batches_equals_one_batch(generator):
    x, y = sample(1000, 12, generator, move=50.0), sample(900, 12, generator, scale=2.0, move=51.0)
    whole, parts = fit_gaussian(x), gaussian_of(x.split(37))
    torch.testing.assert_close(parts.mean, whole.mean, rtol=1e-13, atol=0)
    torch.testing.assert_close(parts.scatter, whole.scatter, rtol=1e-10, atol=1e-9)
    assert gaussian_distance(parts, gaussian_of(y.split(100))) == pytest.approx(frechet_distance(x, y), rel=1e-9)


def test_the_distance_of_a_set_to_itself_is_zero(generator):
    x = sample(200, 16, generator)
    assert gaussian_distance(fit_gaussian(x), fit_gaussian(x)) < 1e-9


def test_an_empty_stream_and_nan_are_refused(generator):
    with pytest.raises(ValueError, match="at least one batch"):
        gaussian_of([])
    with pytest.raises(ValueError, match="not finite"):
        fit_gaussian(sample(3, 2, generator) / 0)


def test_sets_of_other_extractors_are_refused(generator):
    with pytest.raises(ValueError, match="4 and 5 features"):
        gaussian_distance(fit_gaussian(sample(9, 4, generator)), fit_gaussian(sample(9, 5, generator)))


def rank_main(rank, folder):
    store = torch.distributed.FileStore(str(folder / "store"), 2)
    torch.distributed.init_process_group("gloo", store=store, rank=rank, world_size=2)
    x = torch.load(folder / "x.pt")
    mine = x[:300] if rank == 0 else x[300:]  # of unequal size
    gathered = gather_features(extract_features(tensor_source(mine), pixels(), batch=64))
    torch.save(
        (gathered.n, gathered.features, gathered.gaussian.mean, gathered.gaussian.scatter), folder / f"{rank}.pt"
    )
    torch.distributed.destroy_process_group()


def pixels():
    return ModuleFeatures(torch.nn.Flatten(), name="pixels/1", num_features=6)


def test_two_processes_add_up_to_one(tmp_path, generator):
    x = torch.rand(450, 1, 2, 3, generator=generator) * 2 - 1
    torch.save(x, tmp_path / "x.pt")
    command = [sys.executable, __file__, str(tmp_path)]
    processes = [subprocess.Popen([*command, str(rank)], stderr=subprocess.PIPE, text=True) for rank in range(2)]
    errors = [process.communicate(timeout=120)[1] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], "\n".join(errors)
    whole = extract_features(tensor_source(x), pixels())
    for rank in range(2):
        n, features, mean, scatter = torch.load(tmp_path / f"{rank}.pt")
        assert n == whole.n
        assert torch.equal(features, whole.features)
        torch.testing.assert_close(mean, whole.gaussian.mean, rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(scatter, whole.gaussian.scatter, rtol=1e-9, atol=1e-9)


if __name__ == "__main__":
    rank_main(int(sys.argv[2]), Path(sys.argv[1]))
