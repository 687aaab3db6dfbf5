"""Entries as moving averages: the recurrence by hand, its invariant, and when it runs."""

import pytest
import torch

from tcvq_codebook import TemporalCodebook, nearest
from tcvq_codebook.ema import code_sums, ema_update
from tcvq_codebook.testing import check_quantizer


def latents(*sites):
    """Sites with two steps of width one, as latents (2, n, 1, 1, 1)."""
    return torch.tensor(sites).t().reshape(2, -1, 1, 1, 1)


def rows(z):
    return z.permute(1, 3, 4, 0, 2).flatten(3).flatten(0, 2)


def assert_invariant(codebook):
    torch.testing.assert_close(codebook.ema_sums, codebook.codebook * codebook.ema_counts[:, None, None])


@pytest.fixture
def ema(z):
    codebook = TemporalCodebook(17, 8, 4, update="ema")
    codebook(z)
    return codebook


def test_two_updates_by_hand():
    codebook = TemporalCodebook(3, 1, 2, update="ema", decay=0.5, eps=0.1)
    codebook.assign(torch.tensor([[0.0, 0.0], [4.0, 4.0], [9.0, 9.0]]).unsqueeze(2))
    codebook(latents([1.0, 0.0], [1.0, 2.0], [4.0, 6.0]))  # two sites to entry 0, one to entry 1, none to entry 2
    n = torch.tensor([1.5, 1.0, 0.5])  # ½·1 + ½·(2, 1, 0)
    m = torch.tensor([[1.0, 1.0], [4.0, 5.0], [4.5, 4.5]])  # ½·e + ½·((2, 2), (4, 6), 0)
    torch.testing.assert_close(codebook.ema_counts, n)
    torch.testing.assert_close(codebook.ema_sums.squeeze(2), m)
    smooth = (n + 0.1) / (3.0 + 0.3) * 3.0
    torch.testing.assert_close(codebook.codebook.squeeze(2), m / smooth[:, None])
    codebook(latents([1.0, 1.0]))  # to entry 0
    n, m = torch.tensor([1.25, 0.5, 0.25]), torch.tensor([[1.0, 1.0], [2.0, 2.5], [2.25, 2.25]])
    torch.testing.assert_close(codebook.ema_counts, n)
    torch.testing.assert_close(codebook.ema_sums.squeeze(2), m)
    smooth = (n + 0.1) / (2.0 + 0.3) * 2.0
    torch.testing.assert_close(codebook.codebook.squeeze(2), m / smooth[:, None])


def test_without_memory_an_update_is_a_step_of_kmeans():
    sites = torch.randn(200, 12)
    codes = sites[:9].clone()
    pick = nearest(sites, codes)
    expected = torch.stack([sites[pick == k].mean(0) for k in range(9)])
    codebook = TemporalCodebook(9, 3, 4, update="ema", decay=0.0, eps=1e-12)
    codebook.assign(codes.view(9, 4, 3))
    codebook(sites.view(200, 4, 3, 1, 1).movedim(1, 0))
    torch.testing.assert_close(codebook.codebook.flatten(1), expected)


def test_sums_are_those_of_each_code_and_zero_without_sites():
    sites, pick = torch.arange(8.0).view(4, 2), torch.tensor([2, 0, 2, 0])
    sums, counts = code_sums(sites, pick, 4)
    assert sums.tolist() == [[8, 10], [0, 0], [4, 6], [0, 0]]
    assert counts.tolist() == [2, 0, 2, 0]


def test_the_result_holds_the_entries_from_before_the_update(ema, z):
    before = ema.codebook.clone()
    out = ema(z + 1)
    assert not torch.equal(ema.codebook, before)
    ema.codebook.copy_(before)
    assert torch.equal(ema.lookup(out.indices), out.z_q)


@pytest.mark.parametrize("how", ["eval", "encode", "learn=False"])
def test_averages_move_in_training_forwards_only(ema, z, how):
    before = {name: value.clone() for name, value in ema.state_dict().items()}
    if how == "eval":
        ema.eval()(z)
    elif how == "encode":
        ema.encode(z)
    else:
        ema.quantize(z, learn=False)
    assert all(torch.equal(value, before[name]) for name, value in ema.state_dict().items())


def test_the_sum_is_entry_times_count_after_initialisation_assignment_and_revival(z):
    codebook = TemporalCodebook(17, 8, 4, update="ema")
    assert_invariant(codebook)
    codebook.initialize(z)
    assert_invariant(codebook)
    codebook(z)
    codebook.assign(torch.randn(17, 4, 8))
    assert_invariant(codebook)
    for _ in range(3):
        codebook(z)
    kept = codebook.ema_sums.clone()
    usual = codebook.ema_counts.mean()
    codebook.counts[4:9] = 0
    dead = codebook.revive(z, min_usage=1e-6)
    assert dead[4:9].all()
    assert torch.equal(codebook.ema_counts[dead], usual.expand(int(dead.sum())))
    assert torch.equal(codebook.ema_sums[dead], codebook.codebook[dead] * usual)
    assert torch.equal(codebook.ema_sums[~dead], kept[~dead])


def test_an_average_has_no_codebook_term_and_no_parameter(ema, z):
    out = ema.eval()(z)
    assert list(ema.parameters()) == []
    torch.testing.assert_close(out.loss, 0.25 * out.commitment_loss)
    assert {"codebook", "ema_counts", "ema_sums"} <= set(ema.state_dict())
    check_quantizer(ema, z)


def test_averages_stay_float32_under_autocast(ema, z):
    other = TemporalCodebook(17, 8, 4, update="ema")
    other.load_state_dict(ema.state_dict())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        other(z)
    ema(z)
    assert torch.equal(other.codebook, ema.codebook)
    assert other.codebook.dtype == torch.float32


def test_an_entry_that_fades_out_stays_finite_and_leaves_the_others_alone():
    codes, counts, sums = torch.ones(2, 1), torch.ones(2), torch.ones(2, 1)
    for _ in range(2000):  # entry 1 fades out: its count becomes far smaller than eps
        ema_update(codes, counts, sums, torch.tensor([3, 0]), torch.tensor([[3.0], [0.0]]), decay=0.9, eps=1e-5)
    assert codes.isfinite().all()
    torch.testing.assert_close(codes[0], torch.ones(1), rtol=1e-4, atol=0)


def test_an_empty_batch_decays_the_averages_and_keeps_the_entries(ema, z):
    before, counts = ema.codebook.clone(), ema.ema_counts.clone()
    ema(z[:, :0])
    torch.testing.assert_close(ema.ema_counts, 0.99 * counts)
    torch.testing.assert_close(ema.codebook, before, rtol=1e-4, atol=1e-6)
