"""Statistics: sums over batches, windows and ranks against one count over everything."""

import subprocess
import sys

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from tcvq_codebook import TemporalCodebook, VanillaCodebook, perplexity
from tcvq_codebook.measures import entry_drift, neighbour_counts, temporal_profile
from tcvq_codebook.statistics import CodebookStatistics

K, T = 10, 3


def grids(*shape):
    return torch.randint(K, shape)


def counted(indices):
    return torch.bincount(indices.flatten(), minlength=K)


def test_epoch_counts_are_those_of_all_batches_together():
    statistics = CodebookStatistics(K, T)
    batches = [grids(b, 3, 5) for b in (4, 1, 0, 2)]
    for batch in batches:
        statistics.update(batch)
    report = statistics.compute()
    assert torch.equal(report.counts, counted(torch.cat(batches))[None])
    assert torch.equal(report.window_counts, report.counts)
    statistics.reset()
    after = statistics.compute()
    assert after.counts.sum() == 0
    assert torch.equal(after.window_counts, report.counts)


def test_epoch_perplexity_is_not_the_mean_over_batches():
    statistics = CodebookStatistics(4, T)
    for code in range(4):
        statistics.update(torch.full((1, 2, 2), code))
    logged = statistics.compute().as_dict()
    assert logged["perplexity"] == pytest.approx(4.0)  # each batch alone has perplexity 1
    assert logged["used_fraction"] == 1.0
    assert logged["tokens"] == 16


@pytest.mark.parametrize("sizes", [(3, 3, 3), (1, 1), (20,), (5, 0, 6, 1), (7, 7)])
def test_the_window_holds_the_last_sites_of_any_mix_of_batches(sizes):
    statistics = CodebookStatistics(K, T, window=7)
    batches = [grids(1, 1, n) for n in sizes]
    for batch in batches:
        statistics.update(batch)
    latest = torch.cat([batch.flatten() for batch in batches])[-7:]
    assert torch.equal(statistics.compute().window_counts[0], counted(latest))


def test_dead_codes_are_those_below_a_tenth_of_uniform_use():
    statistics = CodebookStatistics(4, T)
    statistics.update(torch.tensor([0] * 50 + [1] * 47 + [2] * 3).view(1, 10, 10))
    report = statistics.compute()
    assert report.as_dict()["dead_fraction"] == 0.25  # 3 of 100 ≥ 0.1 · 100 / 4
    assert report.as_dict(min_usage=0.2)["dead_fraction"] == 0.5
    assert report.as_dict()["used_fraction"] == 0.75
    assert CodebookStatistics(4, T).compute().as_dict()["dead_fraction"] == 0.0  # nothing was counted


def test_a_vanilla_codebook_has_counts_for_each_step(z):
    codebook = VanillaCodebook(K, 8)
    out = codebook(z)
    statistics = CodebookStatistics(K, 4, n_maps=4, window=10)
    statistics.update(out.indices, z, out.z_q)
    report = statistics.compute()
    assert torch.equal(report.counts, torch.stack([counted(step) for step in out.indices]))
    assert torch.equal(report.window_counts, torch.stack([counted(step.flatten()[-10:]) for step in out.indices]))
    logged = report.as_dict()
    assert logged["perplexity/map_2"] == pytest.approx(perplexity(report.counts[2]).item())
    assert logged["perplexity"] == pytest.approx(perplexity(counted(out.indices)).item())


def test_the_error_of_each_step_is_the_mean_over_all_elements_seen(z, codebook):
    statistics = CodebookStatistics(17, 4)
    codebook.eval()
    for part in z.split([4, 2], dim=1):
        out = codebook(part)
        statistics.update(out.indices, part, out.z_q)
    report = statistics.compute()
    difference = (z - codebook(z).z_q).double().square()
    torch.testing.assert_close(report.error, difference.mean((1, 2, 3, 4)).detach())
    relative = difference.sum((1, 2, 3, 4)) / z.double().square().sum((1, 2, 3, 4))
    torch.testing.assert_close(report.relative_error, relative.detach())
    assert report.as_dict()["error/step_3"] == report.error[3].item()


def test_what_was_not_given_is_not_logged():
    logged = CodebookStatistics(K, T).compute().as_dict(prefix="codebook/")
    usage = {"used_fraction", "dead_fraction", "perplexity", "tokens"}
    assert logged.keys() == {f"codebook/{part}{name}" for part in ("", "window/") for name in usage}
    assert all(isinstance(value, float) for value in logged.values())


def test_neighbours_are_counted_to_the_right_and_below():
    grid = torch.tensor([[[0, 1], [0, 2]]])
    right, below = neighbour_counts(grid, 3)
    assert {tuple(pair) for pair in right.nonzero().tolist()} == {(0, 1), (0, 2)}
    assert {tuple(pair) for pair in below.nonzero().tolist()} == {(0, 0), (1, 2)}
    statistics = CodebookStatistics(3, T, cooccurrence=True)
    statistics.update(grid)
    statistics.update(grid)
    report = statistics.compute()
    assert torch.equal(report.neighbours, 2 * torch.stack([right, below]))
    assert report.as_dict()["same_as_below"] == 0.5
    assert report.as_dict()["same_as_right"] == 0.0


def test_pairs_do_not_cross_the_edge_of_a_grid():
    indices = grids(3, 2, 4, 5)
    right, below = neighbour_counts(indices, K)
    assert right.sum() == 3 * 2 * 4 * 4
    assert below.sum() == 3 * 2 * 3 * 5
    assert neighbour_counts(grids(2, 1, 1), K).sum() == 0


def test_tables_of_neighbours_are_bounded():
    CodebookStatistics(2048, T, cooccurrence=True)
    with pytest.raises(ValueError, match=r"neighbours of 2049 codes would take 64 MiB, more than 64"):
        CodebookStatistics(2049, T, cooccurrence=True)


def test_the_temporal_profile_by_hand():
    entries = torch.tensor([[[3.0, 4.0], [3.0, 4.0]], [[1.0, 0.0], [-1.0, 0.0]]])
    profile = temporal_profile(entries, torch.tensor([1, 3]))
    assert profile.norm.tolist() == [2.0, 2.0]  # (1·5 + 3·1) / 4
    assert profile.change.tolist() == [1.5]  # (1·0 + 3·2) / 4
    assert profile.variance_share.item() == pytest.approx(6 / 56)  # (1·0 + 3·2) / (1·50 + 3·2)
    assert torch.equal(temporal_profile(entries).change, torch.tensor([1.0], dtype=torch.float64))
    assert temporal_profile(entries, torch.zeros(2)).change.tolist() == [1.0]


def test_one_step_has_neither_change_nor_temporal_variance():
    profile = temporal_profile(torch.randn(4, 1, 3))
    assert profile.change.shape == (0,)
    assert profile.variance_share == 0


def test_drift_is_the_movement_since_the_mark_relative_to_the_size_then():
    codebook = torch.zeros(2, 1, 2)
    codebook[0, 0] = torch.tensor([3.0, 4.0])
    codebook[1, 0] = torch.tensor([0.0, 5.0])
    statistics = CodebookStatistics(2, 1)
    assert statistics.compute(codebook).drift is None
    statistics.mark(codebook)
    codebook[1, 0, 0] = 10.0  # what was marked is a copy
    assert statistics.compute(codebook).drift.tolist() == [0.0, 2.0]
    assert statistics.compute(codebook).as_dict()["drift/mean"] == 1.0
    assert entry_drift(codebook, codebook).tolist() == [0.0, 0.0]


def test_the_profile_is_weighted_by_use(codebook, z):
    statistics = CodebookStatistics(17, 4)
    statistics.update(codebook.encode(z))
    report = statistics.compute(codebook.codebook)
    expected = temporal_profile(codebook.codebook, report.counts[0])
    torch.testing.assert_close((report.norm, report.change, report.variance_share), tuple(expected))
    assert [key for key in report.as_dict() if key.startswith("change")] == [f"change/step_{t}" for t in (1, 2, 3)]


def test_a_saved_state_goes_on_where_it_was(z, codebook, tmp_path):
    def feed(statistics, seed):
        latents = torch.randn(z.shape, generator=torch.Generator().manual_seed(seed))
        out = codebook(latents)
        statistics.update(out.indices, latents, out.z_q)

    codebook.eval()
    first, second = (CodebookStatistics(17, 4, window=100, cooccurrence=True) for _ in range(2))
    feed(first, 1)
    first.mark(codebook.codebook)
    torch.save(first.state_dict(), tmp_path / "state.pt")
    second.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    for statistics in (first, second):
        feed(statistics, 2)
    codebook.codebook.data += 1
    assert first.compute(codebook.codebook).as_dict() == second.compute(codebook.codebook).as_dict()
    assert torch.equal(first.compute().window_counts, second.compute().window_counts)


def test_a_state_of_other_sizes_is_refused_and_nothing_is_taken_over():
    statistics = CodebookStatistics(K, T)
    with pytest.raises(ValueError, match=r"hold \(1, 11\) as 'counts', but this object needs \(1, 10\)"):
        statistics.load_state_dict(CodebookStatistics(11, T).state_dict())
    with pytest.raises(ValueError, match=r"hold nothing as 'neighbours'"):
        CodebookStatistics(K, T, cooccurrence=True).load_state_dict(statistics.state_dict())


@pytest.mark.parametrize("shape", [(3, 2, 4, 4), (2, 4), (4, 4)])
def test_a_wrong_number_of_maps_is_refused(shape):
    with pytest.raises((ValueError, TypeError), match=r"do not hold 1 maps|indices"):
        CodebookStatistics(K, T).update(grids(*shape))


def test_latents_of_another_length_or_without_their_codes_are_refused(z):
    statistics = CodebookStatistics(K, T)
    with pytest.raises(ValueError, match=r"latents have 4 steps, but these statistics are for 3"):
        statistics.update(grids(6, 3, 5), z, z)
    with pytest.raises(ValueError, match=r"pass both or none"):
        statistics.update(grids(6, 3, 5), z)


class NoWaiting(TorchDispatchMode):
    """Fails on what reads a value back from the device: item, bool, nonzero and copies to the CPU."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        assert func.__name__.split(".")[0] not in {"_local_scalar_dense", "nonzero", "equal", "unique_dim"}, func
        return func(*args, **(kwargs or {}))


def wide(device):
    statistics = CodebookStatistics(K, T, n_maps=2, window=7, cooccurrence=True, device=device)
    z = torch.randn(T, 4, 8, 3, 5).bfloat16().to(device)
    return statistics, (grids(2, 4, 3, 5).to(device), z, z)


def test_updates_do_not_wait_for_the_device():
    statistics, batch = wide("cpu")
    with NoWaiting():
        statistics.update(*batch)
    assert statistics.compute().counts.sum() == 2 * 4 * 3 * 5


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="asks CUDA itself whether anything waited; needs a GPU")
def test_updates_do_not_wait_for_cuda():
    statistics, batch = wide("cuda")
    statistics.update(*batch)
    torch.cuda.set_sync_debug_mode("error")
    try:
        statistics.update(*batch)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert statistics.compute().as_dict()["tokens"] == 2 * 2 * 4 * 3 * 5


def test_levels_of_a_residual_codebook_are_measured_each_and_averaged():
    statistics = CodebookStatistics(4, T, n_maps=2, shared=False)
    statistics.update(torch.stack([torch.zeros(1, 2, 2, dtype=torch.int64), torch.arange(4).view(1, 2, 2)]))
    logged = statistics.compute().as_dict()
    assert (logged["perplexity/map_0"], logged["perplexity/map_1"]) == pytest.approx((1.0, 4.0))
    assert (logged["perplexity"], logged["used_fraction"], logged["tokens"]) == pytest.approx((2.5, 0.625, 4))
    with pytest.raises(ValueError, match="neighbours in 2 maps of different codebooks do not add up"):
        CodebookStatistics(4, T, n_maps=2, shared=False, cooccurrence=True)
    with pytest.raises(ValueError, match="cannot be weighted by 2 maps"):
        statistics.compute(torch.ones(4, T, 2))


RANK = """
import sys, torch, torch.distributed as dist
from tcvq_codebook.statistics import CodebookStatistics
rank, store, out = int(sys.argv[1]), sys.argv[2], sys.argv[3]
dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
statistics = CodebookStatistics(6, 2, window=5, cooccurrence=True)
for batch in range(3 * rank):  # rank 0 has no site at all
    z = torch.arange(48.0).view(2, 1, 2, 3, 4) + batch
    statistics.update((torch.arange(12) % 6).view(1, 3, 4), z, z.round(decimals=-1))
torch.save([statistics.compute().as_dict(), statistics.compute().as_dict()], out)
dist.destroy_process_group()
"""


def test_two_ranks_with_different_numbers_of_sites_report_their_sum(tmp_path):
    ranks = [
        subprocess.Popen([sys.executable, "-c", RANK, str(rank), str(tmp_path / "store"), str(tmp_path / f"{rank}.pt")])
        for rank in range(2)
    ]
    assert [rank.wait(timeout=120) for rank in ranks] == [0, 0]
    alone = CodebookStatistics(6, 2, window=5, cooccurrence=True)
    for batch in range(3):
        z = torch.arange(48.0).view(2, 1, 2, 3, 4) + batch
        alone.update((torch.arange(12) % 6).view(1, 3, 4), z, z.round(decimals=-1))
    expected = alone.compute().as_dict()
    for rank in range(2):
        assert torch.load(tmp_path / f"{rank}.pt") == [expected, expected]  # twice: computing leaves the state alone


def test_temporal_and_reported_use_agree(z):
    codebook = TemporalCodebook(17, 8, 4)
    statistics = CodebookStatistics(17, 4)
    for _ in range(3):
        out = codebook(z)
        statistics.update(out.indices)
    assert torch.equal(statistics.compute().counts[0], codebook.counts)
