"""Codes come from the data, once, and dead ones come back without touching the living."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tcvq_codebook import TemporalCodebook, code_counts, nearest, perplexity, used_fraction
from tcvq_codebook.init import kmeans, sample_sites


def rows(z):
    return z.permute(1, 3, 4, 0, 2).reshape(-1, z.shape[0] * z.shape[2])


def clustered_latents(n, n_clusters, width, *, seed):
    """Sites around cluster centres, with an offset shared by all, as latents (4, n, width / 4, 1, 1)."""
    draw = torch.Generator().manual_seed(seed)
    centres = 2 + torch.randn(n_clusters, width, generator=draw)
    sites = centres[torch.randint(n_clusters, (n,), generator=draw)]
    sites = sites + 0.3 * torch.randn(n, width, generator=draw)
    return sites.view(n, 4, -1).permute(1, 0, 2)[..., None, None]


@pytest.mark.parametrize("init", ["data", "kmeans"])
def test_the_first_training_batch_gives_the_codes(z, init):
    codebook = TemporalCodebook(17, 8, 4, init=init)
    codebook.eval()(z)
    assert not codebook.initted
    codebook.train()(z)
    assert codebook.initted
    assert used_fraction(code_counts(codebook.encode(z), 17)) == 1


def test_data_codes_are_distinct_sites_of_the_batch(z):
    codebook = TemporalCodebook(17, 8, 4, init="data")
    codebook(z)
    source = (codebook.codebook.flatten(1)[:, None] == rows(z)).all(2)
    assert source.any(1).all()
    assert source.any(0).sum() == 17


def test_small_batches_are_collected_until_there_are_k_sites(z):
    codebook = TemporalCodebook(40, 8, 4, init="data")
    uniform = codebook.codebook.detach().clone()
    codebook(z[:, :2])  # 30 sites
    assert torch.equal(codebook.codebook, uniform)
    codebook(z[:, 2:4])  # 60 sites
    assert codebook.initted
    sources = (codebook.codebook.flatten(1)[:, None] == rows(z[:, :4])).all(2).any(0)
    assert sources[:30].any()
    assert sources[30:].any()


def test_uniform_codes_lie_within_one_over_k_and_are_never_redrawn(z):
    codebook = TemporalCodebook(17, 8, 4, init="uniform")
    before = codebook.codebook.detach().clone()
    codebook(z)
    assert before.abs().max() <= 1 / 17
    assert torch.equal(codebook.codebook, before)


@pytest.mark.parametrize("init", ["data", "kmeans"])
def test_initialising_from_too_few_sites_repeats_them_with_jitter(z, init):
    codebook = TemporalCodebook(17, 8, 4, init=init)
    codebook.initialize(z[:, :1, :, :1])  # 5 sites
    codes = codebook.codebook.flatten(1)
    assert len(codes.unique(dim=0)) == 17
    assert torch.cdist(codes, rows(z[:, :1, :, :1])).min(1).values.max() < 0.1


def test_initialising_from_no_site_is_an_error(z):
    with pytest.raises(ValueError, match="0 sites"):
        TemporalCodebook(17, 8, 4).initialize(z[:, :0])


def test_a_loaded_codebook_is_never_redrawn(codebook, z):
    loaded = TemporalCodebook(17, 8, 4)
    loaded.load_state_dict(codebook.state_dict())
    loaded(z + 5)
    assert torch.equal(loaded.codebook, codebook.codebook)


def test_the_seed_decides_the_codes_and_the_revival(z):
    def run(seed):
        torch.manual_seed(seed)
        codebook = TemporalCodebook(17, 8, 4)
        codebook(z)
        codebook.counts[:9] = 0
        codebook.revive(z)
        return codebook.codebook.detach()

    assert torch.equal(run(1), run(1))
    assert not torch.equal(run(1), run(2))


def test_an_explicit_generator_decides_the_draws(z):
    def draw(seed):
        return kmeans(rows(z), 7, generator=torch.Generator().manual_seed(seed))

    assert torch.equal(draw(3), draw(3))
    assert not torch.equal(draw(3), draw(4))


def test_kmeans_finds_separated_clusters():
    centres = 10 * torch.eye(4)
    sites = centres.repeat(8, 1) + 0.01 * torch.randn(32, 4)
    codes = kmeans(sites, 4)
    expected = torch.stack([sites[k::4].mean(0) for k in range(4)])
    torch.testing.assert_close(codes[nearest(centres, codes)], expected)


def test_kmeans_never_leaves_a_code_without_a_site():
    sites = torch.cat([torch.randn(4, 3), torch.zeros(60, 3)])  # seeds that coincide
    for seed in range(5):
        codes = kmeans(sites, 5, generator=torch.Generator().manual_seed(seed))
        assert used_fraction(code_counts(nearest(sites, codes), 5)) == 1


def test_sampling_enough_sites_never_repeats_one():
    sites = torch.arange(10.0)[:, None]
    assert sample_sites(sites, 10).flatten().sort().values.tolist() == list(range(10))


@settings(max_examples=20, deadline=None)
@given(counts=st.lists(st.integers(0, 20), min_size=17, max_size=17), seed=st.integers(0, 1000))
def test_revival_replaces_the_dead_by_latents_and_never_touches_the_living(counts, seed):
    torch.manual_seed(seed)
    z = torch.randn(4, 2, 8, 3, 3)
    codebook = TemporalCodebook(17, 8, 4)
    codebook(z)
    codebook.counts.copy_(torch.tensor(counts))
    before = codebook.codebook.detach().clone()
    dead = codebook.revive(z, min_usage=0.5)
    assert dead.tolist() == [count < 0.5 * sum(counts) / 17 for count in counts]
    assert torch.equal(codebook.codebook[~dead], before[~dead])
    assert (codebook.codebook[dead].flatten(1)[:, None] == rows(z)).all(2).any(1).all()
    assert len(codebook.codebook[dead].unique(dim=0)) == dead.sum()
    assert codebook.counts.count_nonzero() == 0


def test_revival_of_an_unused_window_or_from_an_empty_batch_changes_nothing(codebook, z):
    before = codebook.codebook.detach().clone()
    codebook.counts[0] = 0
    assert not codebook.revive(z[:, :0]).any()
    codebook.counts.zero_()
    assert not codebook.revive(z).any()
    assert torch.equal(codebook.codebook, before)


def test_revival_keeps_the_parameter_that_the_optimizer_holds(codebook, z):
    parameter = codebook.codebook
    codebook.counts[3] = 0
    assert codebook.revive(z)[3]
    assert codebook.codebook is parameter
    assert parameter.requires_grad


def test_counts_are_those_of_bincount_over_training_forwards_only(codebook, z):
    codebook.counts.zero_()
    expected = 2 * codebook.encode(z).flatten().bincount(minlength=17)
    codebook(z)
    codebook(z)
    codebook.eval()(z)
    assert torch.equal(codebook.counts, expected)


def test_perplexity_is_the_exponential_of_the_entropy():
    assert perplexity(torch.tensor([5, 5, 5, 5, 0])).item() == pytest.approx(4)
    assert perplexity(torch.tensor([7, 0])).item() == 1
    assert perplexity(torch.tensor([0, 0])).item() == 1
    assert perplexity(torch.tensor([1, 3])).item() == pytest.approx(0.25**-0.25 * 0.75**-0.75)


def test_perplexity_of_summed_counts_exceeds_the_mean_over_batches():
    first, second = torch.tensor([4, 0]), torch.tensor([0, 4])
    assert perplexity(first + second).item() == pytest.approx(2)
    assert (perplexity(first) + perplexity(second)).item() / 2 == 1


def test_used_fraction_counts_codes_seen_at_least_once():
    assert used_fraction(torch.tensor([3, 0, 1, 0])).item() == 0.5


@pytest.mark.parametrize("init", ["kmeans", "uniform"])
def test_defaults_use_nine_tenths_of_the_codes_where_the_uniform_init_collapses(init):
    z = clustered_latents(2048, 300, 128, seed=1)
    codebook = TemporalCodebook(256, 32, 4, init=init)
    optimizer = torch.optim.Adam(codebook.parameters(), lr=1e-3)
    for step in range(60):
        batch = z[:, torch.randint(z.shape[1], (512,))]
        optimizer.zero_grad()
        codebook(batch).loss.backward()
        optimizer.step()
        if init == "kmeans" and step % 20 == 19:
            codebook.revive(batch)
    used = used_fraction(code_counts(codebook.encode(z), 256)).item()
    assert used >= 0.9 if init == "kmeans" else used <= 0.1
