"""Two processes agree on codes, averages and counts, whatever each of them sees."""

import copy
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.distributed as dist

from tcvq_codebook import TemporalCodebook
from tcvq_codebook.composite import ResidualCodebook
from tcvq_codebook.distributed import rows_of_all_ranks
from tcvq_codebook.init import kmeans, sample_sites

K, T, D = 6, 2, 3
STEPS = 3
CODES = (torch.arange(K).view(K, 1, 1) / K).expand(K, T, D)
BATCHES = {  # sites of both ranks at each step
    "even": [(8, 8), (8, 8), (8, 8)],
    "uneven": [(9, 2), (3, 7), (1, 12)],
    "one rank empty": [(0, 9), (0, 5), (4, 0)],
    "none at first": [(0, 0), (2, 1), (3, 4)],
}


def latents(n, seed):
    return torch.randn(T, n, D, 1, 1, generator=torch.Generator().manual_seed(seed))


def part(rank, step, sizes):
    """The sites of one rank: a slice of those of the step."""
    whole = latents(sum(sizes), 100 + step)
    return whole[:, : sizes[0]] if rank == 0 else whole[:, sizes[0] :]


def train(codebook, batch):
    """Run all steps on the batches ``batch(step)``, revive at the end, and return the state after each."""
    states = []
    for step in range(STEPS):
        codebook(batch(step))
        states.append(copy.deepcopy(codebook.state_dict()))
    codebook.revive(batch(STEPS - 1), min_usage=0.9)
    return [*states, copy.deepcopy(codebook.state_dict())]


def rank_main(rank, folder):
    store = dist.FileStore(str(folder / "store"), 2)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=2)
    found = {}
    for name, sizes in BATCHES.items():
        for update in ("gradient", "ema"):
            for init in ("kmeans", "data", "uniform"):
                torch.manual_seed(10)  # alike at first, as DistributedDataParallel makes them
                codebook = TemporalCodebook(K, D, T, update=update, init=init, decay=0.5)
                if init == "uniform":
                    codebook.assign(CODES)
                torch.manual_seed(10 + rank)  # ranks draw differently
                found[name, update, init] = train(codebook, lambda step, sizes=sizes: part(rank, step, sizes[step]))
    torch.manual_seed(20)
    residual = ResidualCodebook(K, D, T, n_levels=2, update="ema")
    torch.manual_seed(20 + rank)
    found["residual"] = train(residual, lambda step: part(rank, step, BATCHES["uneven"][step]))
    sites = part(rank, 7, (40, 25)).movedim(1, 0).flatten(1)
    found["kmeans"] = kmeans(sites, 5)
    torch.manual_seed(30 + rank)
    found["seeded"] = kmeans(sites, 2), sample_sites(sites, 20), sample_sites(sites, 90)
    found["sample"] = sample_sites(sites, 50), sample_sites(sites[: 3 * rank], 9)
    found["rows"] = rows_of_all_ranks(torch.full((3 * rank, 2), float(rank)))
    errors = []
    try:
        sample_sites(sites[:0], 3)
    except ValueError as error:
        errors.append(str(error))
    if rank == 0:  # evaluation on one rank alone communicates nothing
        codebook.eval()(latents(5, 0))
        codebook.encode(latents(5, 0))
    torch.save({"found": found, "errors": errors}, folder / f"rank{rank}.pt")
    dist.barrier()
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ranks")
    command = [sys.executable, __file__, str(folder)]
    processes = [subprocess.Popen([*command, str(rank)], stderr=subprocess.PIPE, text=True) for rank in range(2)]
    try:
        errors = [process.communicate(timeout=120)[1] for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] == [0, 0], "\n".join(errors)
    return [torch.load(folder / f"rank{rank}.pt") for rank in range(2)]


def assert_equal_states(first, second):
    for a, b in zip(first, second, strict=True):
        assert all(torch.equal(value, b[name]) for name, value in a.items())


@pytest.mark.parametrize("init", ["kmeans", "data", "uniform"])
@pytest.mark.parametrize("update", ["gradient", "ema"])
@pytest.mark.parametrize("name", BATCHES)
def test_both_ranks_hold_the_same_codebook_after_every_step_and_revival(ranks, name, update, init):
    first, second = (rank["found"][name, update, init] for rank in ranks)
    assert_equal_states(first, second)
    assert bool(first[-1]["initted"])


def test_both_ranks_hold_the_same_residual_codebook(ranks):
    assert_equal_states(*(rank["found"]["residual"] for rank in ranks))


@pytest.mark.parametrize("update", ["gradient", "ema"])
@pytest.mark.parametrize("name", BATCHES)
def test_two_ranks_learn_what_one_process_learns_from_both_batches(ranks, name, update):
    codebook = TemporalCodebook(K, D, T, update=update, init="uniform", decay=0.5)
    codebook.assign(CODES)
    alone = train(codebook, lambda step: latents(sum(BATCHES[name][step]), 100 + step))
    together = ranks[0]["found"][name, update, "uniform"]
    for one, two in zip(alone[:STEPS], together[:STEPS], strict=True):
        assert torch.equal(one["counts"], two["counts"])
        for key in one:
            torch.testing.assert_close(two[key], one[key], rtol=1e-5, atol=1e-6)


def test_codes_are_initialised_when_all_ranks_together_have_enough_sites(ranks):
    flags = [bool(state["initted"]) for state in ranks[0]["found"]["none at first", "gradient", "data"]]
    assert flags == [False, False, True, True]  # 0, 3, 10 sites for 6 codes


def test_codes_come_from_the_sites_of_both_ranks(ranks):
    drawn, few = ranks[0]["found"]["sample"]
    whole = latents(65, 107).movedim(1, 0).flatten(1)
    source = (drawn[:, None] == whole).all(2)
    assert source.any(1).all()
    assert len(drawn.unique(dim=0)) == 50
    assert source[:, :40].any()
    assert source[:, 40:].any()
    assert few.shape == (9, 6)
    for mine, other in zip(ranks[0]["found"]["sample"], ranks[1]["found"]["sample"], strict=True):
        assert torch.equal(mine, other)


def test_two_ranks_draw_and_cluster_as_one_process_with_all_sites_does(ranks):
    whole = latents(65, 107).movedim(1, 0).flatten(1)
    torch.manual_seed(30)  # the first rank's
    alone = kmeans(whole, 2), sample_sites(whole, 20), sample_sites(whole, 90)
    for rank in ranks:
        for mine, theirs in zip(rank["found"]["seeded"], alone, strict=True):
            assert torch.equal(mine, theirs)


def test_clusters_of_two_ranks_are_means_of_the_sites_of_both(ranks):
    codes = ranks[0]["found"]["kmeans"]
    assert torch.equal(codes, ranks[1]["found"]["kmeans"])
    whole = latents(65, 107).movedim(1, 0).flatten(1)
    again = kmeans(whole, 5)  # another start, so other clusters, but of the same quality
    errors = [torch.cdist(whole, found).min(1).values.square().sum().item() for found in (codes, again)]
    assert errors[0] < 1.2 * errors[1]


def test_rows_of_both_ranks_keep_their_order_and_an_empty_rank_adds_none(ranks):
    for rank in ranks:
        assert rank["found"]["rows"].tolist() == [[1.0, 1.0]] * 3


def test_drawing_from_no_site_anywhere_is_the_same_error_on_both_ranks(ranks):
    assert [rank["errors"] for rank in ranks] == [
        ["cannot draw 3 codes from 0 sites; pass a batch with at least one site"]
    ] * 2


if __name__ == "__main__":
    rank_main(int(sys.argv[2]), Path(sys.argv[1]))
