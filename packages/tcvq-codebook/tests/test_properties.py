"""What holds for every codebook, whatever its sizes, options, latents and entries."""

import runpy
from pathlib import Path

import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from tcvq_codebook import ResidualCodebook, TemporalCodebook, VanillaCodebook, nearest, resize_codebook

settings.register_profile("properties", max_examples=20, deadline=None, derandomize=True)
properties = settings(settings.get_profile("properties"))

SEEDS = st.integers(0, 2**31)
SIZES = st.tuples(st.integers(1, 4), st.integers(1, 3), st.integers(1, 4), st.integers(1, 3), st.integers(1, 3))
METRICS = st.sampled_from(
    [
        {},
        {"similarity": "cosine"},
        {"similarity": "cosine", "norm": "step"},
        {"step_weights": "rising"},
        {"max_bytes": 1},
    ]
)
LEARNING = st.sampled_from([{"update": "gradient"}, {"update": "ema", "decay": 0.5, "eps": 1e-300}])


def latents(sizes, seed):
    return torch.randn(sizes, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def build(n_embed, sizes, seed, **options):
    """A float64 codebook of random entries; ``step_weights="rising"`` stands for weights 1, 2, …, T."""
    if "step_weights" in options:
        options["step_weights"] = tuple(float(t + 1) for t in range(sizes[0]))
    codebook = TemporalCodebook(n_embed, sizes[2], sizes[0], **options).double()
    codebook.assign(latents((n_embed, sizes[0], sizes[2]), seed + 1))
    return codebook


def rows(z):
    """One trajectory per site, (N, T, D)."""
    return z.permute(1, 3, 4, 0, 2).flatten(0, 2)


@properties
@given(seed=SEEDS, n=st.integers(1, 9), k=st.integers(1, 7), t=st.integers(1, 4), d=st.integers(1, 3))
def test_no_entry_is_nearer_under_mask_and_weights_than_the_one_found(seed, n, k, t, d):
    draw = torch.Generator().manual_seed(seed)
    z, codes = torch.randn(n, t * d, generator=draw), torch.randn(k, t * d, generator=draw)
    mask, weights = torch.rand(n, t, generator=draw) < 0.7, torch.rand(t, generator=draw)
    squares = (z[:, None] - codes).double().square().unflatten(2, (t, d)).sum(3)  # (N, K, T)
    distance = (squares * mask[:, None] * weights).sum(2)
    found = nearest(z, codes, mask=mask, step_weights=weights)
    chosen = distance.gather(1, found[:, None]).squeeze(1)
    torch.testing.assert_close(chosen, distance.min(1).values, rtol=1e-5, atol=1e-5)


@properties
@given(seed=SEEDS, sizes=SIZES, k=st.integers(1, 7), metric=METRICS)
def test_forward_encode_and_lookup_agree_and_quantising_twice_changes_nothing(seed, sizes, k, metric):
    codebook, z = build(k, sizes, seed, **metric).eval(), latents(sizes, seed)
    out = codebook(z)
    assert torch.equal(codebook.encode(z), out.indices)
    assert torch.equal(codebook.lookup(out.indices), out.z_q)
    assert torch.equal(codebook(out.z_q).indices, out.indices)


@properties
@given(seed=SEEDS, sizes=SIZES, k=st.integers(1, 7), weighted=st.booleans())
def test_the_gradient_of_the_output_reaches_the_latents_as_it_is(seed, sizes, k, weighted):
    codebook = build(k, sizes, seed, **({"step_weights": "rising"} if weighted else {}))
    z, weight = latents(sizes, seed).requires_grad_(), latents(sizes, seed + 2)
    (codebook(z).z_q * weight).sum().backward()
    assert torch.equal(z.grad, weight)
    assert codebook.codebook.grad is None


@properties
@given(seed=SEEDS, sizes=SIZES, k=st.integers(1, 7))
def test_the_rotation_trick_scales_each_gradient_by_the_ratio_of_the_lengths(seed, sizes, k):
    assume(sizes[0] * sizes[2] > 1)  # on a line nothing turns
    codebook = build(k, sizes, seed, estimator="rotation").eval()
    z, weight = latents(sizes, seed).requires_grad_(), latents(sizes, seed + 2)
    out = codebook(z)
    (out.z_q * weight).sum().backward()

    def length(x):
        return rows(x.detach()).flatten(1).norm(dim=1)

    assert torch.equal(out.z_q, codebook.lookup(out.indices))
    torch.testing.assert_close(length(z.grad), length(weight) * length(out.z_q) / length(z))


@properties
@given(seed=SEEDS, sizes=SIZES, order=st.permutations(range(6)), metric=METRICS, learning=LEARNING)
def test_permuting_the_entries_permutes_all_that_training_does_to_them(seed, sizes, order, metric, learning):
    assume(sizes[2] > 1)  # numbers of unit length are all ±1: ties, and the lowest index is another one
    order, z = torch.tensor(order), latents(sizes, seed)
    plain, other = (build(6, sizes, seed, **metric, **learning) for _ in range(2))
    other.assign(plain.codebook[order])
    outs = [codebook(z) for codebook in (plain, other)]
    assert torch.equal(order[outs[1].indices], outs[0].indices)
    torch.testing.assert_close(outs[1].loss, outs[0].loss)
    assert torch.equal(other.counts, plain.counts[order])
    if learning["update"] == "ema":
        torch.testing.assert_close(other.codebook, plain.codebook[order])
        torch.testing.assert_close(other.ema_counts, plain.ema_counts[order])
    else:
        grads = [torch.autograd.grad(out.loss, c.codebook)[0] for out, c in zip(outs, (plain, other), strict=True)]
        torch.testing.assert_close(grads[1], grads[0][order])


@properties
@given(seed=SEEDS, sizes=SIZES, k=st.integers(1, 7))
def test_playing_latents_and_entries_backwards_changes_no_index(seed, sizes, k):
    codebook, z = build(k, sizes, seed), latents(sizes, seed)
    expected = codebook.encode(z)
    codebook.assign(codebook.codebook.flip(1))
    assert torch.equal(codebook.encode(z.flip(0)), expected)


@properties
@given(seed=SEEDS, sizes=SIZES, k=st.integers(1, 7))
def test_with_one_step_the_vanilla_codebook_is_the_temporal_one(seed, sizes, k):
    sizes = (1, *sizes[1:])
    temporal, z = build(k, sizes, seed), latents(sizes, seed)
    vanilla = VanillaCodebook(k, sizes[2]).double()
    vanilla.step.load_state_dict(temporal.state_dict())
    one, other = temporal(z), vanilla(z)
    assert torch.equal(one.indices, other.indices.squeeze(0))
    assert torch.equal(one.z_q, other.z_q)
    assert torch.equal(one.loss, other.loss)


def lloyd(sites, codes):
    """Iterate k-means until nothing moves, written as plainly as possible; a code without sites becomes 0."""
    while True:
        pick = (sites[:, None] - codes).square().sum(2).argmin(1)
        means = torch.stack([sites[pick == k].sum(0) / max(int((pick == k).sum()), 1) for k in range(len(codes))])
        if torch.equal(means, codes):
            return codes
        codes = means


@properties
@given(seed=SEEDS, sizes=SIZES, k=st.integers(1, 5))
def test_moving_averages_without_memory_converge_to_kmeans_on_fixed_data(seed, sizes, k):
    z = latents(sizes, seed)
    codebook = build(k, sizes, seed, update="ema", decay=0.0, eps=1e-300)
    expected = lloyd(rows(z).flatten(1), codebook.codebook.flatten(1))
    before = None
    while before is None or not torch.equal(before, codebook.codebook):
        before = codebook.codebook.clone()
        codebook(z)
    torch.testing.assert_close(codebook.codebook.flatten(1), expected)


@properties
@given(seed=SEEDS, sizes=SIZES, k=st.integers(1, 5))
def test_moving_averages_with_memory_come_to_rest_at_the_means_of_their_sites(seed, sizes, k):
    z = latents(sizes, seed)
    codebook = build(k, sizes, seed, update="ema", decay=0.5, eps=1e-300)
    for _ in range(80):  # 0.5 ** 80 is nothing
        pick = codebook(z).indices.flatten()
    for code in pick.unique():
        torch.testing.assert_close(codebook.codebook[code], rows(z)[pick == code].mean(0))


@properties
@given(seed=SEEDS, counts=st.lists(st.integers(0, 9), min_size=7, max_size=7), learning=LEARNING)
def test_revival_leaves_every_bit_of_live_entries_and_their_averages(seed, counts, learning):
    sizes = (3, 2, 2, 2, 2)
    codebook = build(7, sizes, seed, **learning)
    codebook(latents(sizes, seed))
    codebook.counts.copy_(torch.tensor(counts))
    before = {
        name: tensor.clone() for name, tensor in codebook.state_dict().items() if name not in ("counts", "initted")
    }
    dead = codebook.revive(latents(sizes, seed + 5), min_usage=0.5)
    for name, tensor in before.items():
        assert torch.equal(getattr(codebook, name)[~dead], tensor[~dead])
    if learning["update"] == "ema":
        torch.testing.assert_close(codebook.ema_sums, codebook.codebook * codebook.ema_counts[:, None, None])


@properties
@given(seed=SEEDS, max_bytes=st.integers(1, 20000), masked=st.booleans())
def test_the_memory_bound_changes_no_index_on_dyadic_data(seed, max_bytes, masked):
    draw = torch.Generator().manual_seed(seed)
    half = torch.randint(-8, 9, (12, 6), generator=draw) / 4
    codes = torch.cat([half, -half])  # mean exactly zero: all scores are exact
    z = torch.randint(-16, 17, (41, 6), generator=draw) / 8
    mask = torch.rand(41, 3, generator=draw) < 0.7 if masked else None
    assert torch.equal(nearest(z, codes, mask=mask, max_bytes=max_bytes), nearest(z, codes, mask=mask))


@properties
@given(seed=SEEDS, sizes=SIZES, k=st.integers(1, 7), learning=LEARNING)
def test_a_mask_that_leaves_nothing_out_changes_nothing(seed, sizes, k, learning):
    z = latents(sizes, seed)
    plain, masked = (build(k, sizes, seed, **learning) for _ in range(2))
    one, other = plain(z), masked(z, torch.ones(sizes[:2], dtype=torch.bool))
    assert torch.equal(one.indices, other.indices)
    assert torch.equal(one.z_q, other.z_q)
    torch.testing.assert_close(one.loss, other.loss)
    torch.testing.assert_close(plain.codebook, masked.codebook)


@properties
@given(seed=SEEDS, sizes=SIZES, k=st.integers(1, 7), learning=LEARNING, filler=st.sampled_from([0.0, 7.0, torch.nan]))
def test_what_stands_in_masked_steps_reaches_nothing(seed, sizes, k, learning, filler):
    mask = torch.rand(sizes[0], sizes[1], sizes[3], sizes[4], generator=torch.Generator().manual_seed(seed)) < 0.6
    z = latents(sizes, seed)
    filled = z.where(mask.unsqueeze(2), filler).requires_grad_()
    plain, other = (build(k, sizes, seed, **learning) for _ in range(2))
    one, two = plain(z, mask), other(filled, mask)
    two.loss.backward()
    assert torch.equal(one.indices, two.indices)
    assert torch.equal(one.loss, two.loss)
    assert torch.equal(plain.counts, other.counts)
    assert torch.equal(plain.codebook, other.codebook)
    assert filled.grad.movedim(2, -1)[~mask].count_nonzero() == 0


@properties
@given(seed=SEEDS, sizes=SIZES, k=st.integers(1, 7), keep=st.integers(1, 4))
def test_masking_the_last_steps_searches_as_the_truncated_codebook_does(seed, sizes, k, keep):
    keep = min(keep, sizes[0])
    codebook, z = build(k, sizes, seed), latents(sizes, seed)
    mask = (torch.arange(sizes[0]) < keep)[:, None].expand(sizes[:2])
    assert torch.equal(codebook.encode(z, mask), resize_codebook(codebook, keep, "truncate").encode(z[:keep]))


@properties
@given(seed=SEEDS, sizes=SIZES, levels=st.integers(1, 3))
def test_a_residual_codebook_is_its_levels_one_after_the_other(seed, sizes, levels):
    z = latents(sizes, seed)
    residual = ResidualCodebook(5, sizes[2], sizes[0], n_levels=levels).double().eval()
    rest = z
    for number, level in enumerate(residual.levels):
        level.assign(latents((5, sizes[0], sizes[2]), seed + number))
        rest = rest - level(rest).z_q.detach()
    torch.testing.assert_close(residual(z).z_q, z - rest)


def test_at_the_same_bits_per_site_trajectories_describe_moving_bumps_better_than_steps_do():
    bits = 8.0
    example = runpy.run_path(str(Path(__file__).parents[1] / "examples" / "sine_trajectories.py"))
    curves = {name: dict(points) for name, points in example["rate_distortion"](2**11).items()}
    assert curves["temporal"][bits] < 0.25 * curves["vanilla"][bits]
    assert curves["temporal"][bits] < curves["vanilla"][2 * bits]
