"""What went wrong in public code of this kind, one fact each, with where it was reported.

"Reference" is the released code of the paper, Brain-Cog-Lab/tts_vqvae. Hangs and different codes on different ranks
(lucidrains/vector-quantize-pytorch #25 and #105, C8 of the reference) are in test_distributed.py.
"""

import inspect
import json
from itertools import accumulate

import pytest
import torch

from tcvq_codebook import (
    CodebookStatistics,
    TemporalCodebook,
    code_counts,
    code_map,
    compact_codebook,
    load_codebook,
    nearest,
    perplexity,
    reference_entries,
    resize_codebook,
    save_codebook,
    used_fraction,
)

MIB = 2**20


def rows(z):
    return z.permute(1, 3, 4, 0, 2).flatten(0, 2)


def clustered(n, n_clusters, *, offset=2.0, seed=0):
    """Latents (4, n, 32, 1, 1) around cluster centres that share an offset: long vectors, T·D = 128."""
    draw = torch.Generator().manual_seed(seed)
    centres = offset + torch.randn(n_clusters, 4, 32, generator=draw)
    z = centres[torch.randint(n_clusters, (n,), generator=draw)]
    return (z + 0.3 * torch.randn(z.shape, generator=draw)).movedim(1, 0)[..., None, None]


def peak_bytes(call, folder):
    """Largest amount of memory that a call holds at once beyond what existed before."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        call()
    profile.export_chrome_trace(str(folder / "trace.json"))
    events = json.loads((folder / "trace.json").read_text())["traceEvents"]
    changes = sorted((event["ts"], event["args"]["Bytes"]) for event in events if event["name"] == "[memory]")
    return max(accumulate(size for _, size in changes))


@pytest.mark.parametrize("update", ["gradient", "ema"])
def test_a_training_step_holds_a_few_latents_and_no_distance_matrix(update, tmp_path):
    """C1: the reference's search broadcasts (B, h, w, K, T·D) under autograd, 2.1 GB for a batch of 4 Bedroom images.

    Peers hold one or more (N, K) matrices, kept for the backward pass.
    """
    n, k, d, bound = 1024, 4096, 8, MIB
    codebook = TemporalCodebook(k, d, 2, update=update, init="uniform", max_bytes=bound)
    z = torch.randn(2, n, d, 1, 1, requires_grad=True)

    def step():
        codebook(z).loss.backward()

    step()
    peak = peak_bytes(step, tmp_path)
    latents, entries = 4 * n * 2 * d, 4 * k * 2 * d
    assert peak < bound + 12 * latents + 6 * entries
    assert peak < 4 * n * k / 2


def test_the_search_leaves_no_trace_in_the_graph():
    """C1: distances under autograd are kept for a backward pass that never uses them."""
    codebook = TemporalCodebook(5, 3, 2)
    z = torch.randn(2, 4, 3, 2, 2, requires_grad=True)
    for indices in (codebook(z).indices, codebook.encode(z), nearest(rows(z).flatten(1), codebook.codebook.flatten(1))):
        assert indices.grad_fn is None
        assert not indices.requires_grad


def test_long_trajectories_do_not_collapse_on_the_default_initialisation():
    """C2: from U(±1/K) all sites share one code, which alone learns; the reference has no other initialisation."""
    z = clustered(2048, 300, offset=5.0)
    used = {}
    for init in ("uniform", "kmeans"):
        codebook = TemporalCodebook(256, 32, 4, init=init)
        codebook(z)
        used[init] = used_fraction(code_counts(codebook.encode(z), 256)).item()
    assert used["uniform"] < 0.1
    assert used["kmeans"] > 0.95


@pytest.mark.parametrize(("legacy", "moves_with_beta"), [(False, "latents"), (True, "entries")])
def test_beta_slows_the_latents_and_only_in_the_legacy_placement_the_entries(legacy, moves_with_beta):
    """C3: the reference puts β on the codebook term (CompVis/taming-transformers #46 and #57)."""

    def gradients(beta):
        torch.manual_seed(0)
        codebook = TemporalCodebook(5, 3, 2, init="uniform", beta=beta, legacy_beta=legacy)
        z = torch.randn(2, 4, 3, 2, 2, requires_grad=True)
        codebook(z).loss.backward()
        return {"latents": z.grad, "entries": codebook.codebook.grad}

    one, half = gradients(1.0), gradients(0.5)
    for name in ("latents", "entries"):
        torch.testing.assert_close(half[name], one[name] * (0.5 if name == moves_with_beta else 1.0))


def test_the_loss_moves_the_entries_that_were_chosen():
    """A loss taken from the straight-through output has no gradient to the codebook: showlab/Olaf-World #8."""
    codebook = TemporalCodebook(5, 3, 2, init="uniform")
    out = codebook(torch.randn(2, 4, 3, 2, 2))
    out.loss.backward()
    chosen = code_counts(out.indices, 5) > 0
    assert torch.equal(codebook.codebook.grad.flatten(1).any(1), chosen)
    assert out.z_q.grad_fn is None


def test_epoch_perplexity_is_that_of_the_summed_counts():
    """C4: always None in the reference; a mean of batches understates use: bshall/VectorQuantizedVAE #3."""
    statistics = CodebookStatistics(4, 2)
    batches = [torch.full((1, 3, 3), code) for code in range(4)]  # one code in each batch
    for indices in batches:
        statistics.update(indices)
    found = statistics.compute()
    assert torch.equal(found.counts[0], torch.cat(batches).flatten().bincount(minlength=4))
    assert found.as_dict()["perplexity"] == pytest.approx(4)
    assert sum(perplexity(code_counts(indices, 4)).item() for indices in batches) / 4 == 1


def test_compacting_codes_and_back_changes_neither_result_nor_argument():
    """C5: half of the reference's remapping is gone, and the other half edits the caller's tensor."""
    codebook, indices = TemporalCodebook(6, 3, 2), torch.tensor([[[5, 1], [1, 4]]])
    codes, before = code_map(code_counts(indices, 6)), indices.clone()
    compact = codes.to_compact(indices)
    assert compact.max() == 2
    assert torch.equal(codes.to_original(compact), indices)
    assert torch.equal(compact_codebook(codebook, codes).lookup(compact), codebook.lookup(indices))
    assert torch.equal(indices, before)


def test_every_public_method_runs_and_entries_keep_their_axes():
    """C6: `get_codebook_entry` views T·D rows as (b, h, w, c), and `decode_code` calls a method that is not there."""
    codebook, z = TemporalCodebook(5, 3, 2), torch.arange(48.0).view(2, 2, 3, 2, 2)
    arguments = {
        "forward": (z,),
        "encode": (z,),
        "initialize": (z,),
        "revive": (z,),
        "lookup": (torch.zeros(2, 4, dtype=torch.int64),),
        "assign": (torch.zeros(5, 2, 3),),
        "from_config": (codebook.config,),
    }
    own = [name for name, _ in inspect.getmembers(TemporalCodebook, callable) if name in vars(TemporalCodebook)]
    for name in own:
        if not name.startswith("_") and name != "quantize":
            getattr(codebook, name)(*arguments.get(name, ()))
    codebook.assign(torch.randn(5, 2, 3))
    indices = codebook.encode(z)
    grid = codebook.lookup(indices)
    for b in range(2):
        assert torch.equal(grid[:, b, :, 1, 0], codebook.codebook[indices[b, 1, 0]])


def test_bfloat16_autocast_confuses_no_clustered_codes():
    """C7: in bfloat16 a search of codes that have drawn close picks a wrong one for one site in seven."""
    codebook = TemporalCodebook(64, 16, 4).eval()
    codebook.assign(torch.randn(1, 4, 16) + 1e-2 * torch.randn(64, 4, 16))
    z = codebook.lookup(torch.arange(64).view(1, 8, 8)) + 1e-3 * torch.randn(4, 1, 16, 8, 8)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert codebook(z).indices.flatten().tolist() == list(range(64))


def test_a_codebook_of_four_steps_serves_six_and_comes_back_unchanged():
    """C8: in the reference T is frozen into the shape of the weight."""
    four = TemporalCodebook(5, 3, 4, update="ema")
    six = resize_codebook(four, 6, "repeat-last")
    assert six.encode(torch.randn(6, 2, 3, 2, 2)).shape == (2, 2, 2)
    back = resize_codebook(six, 4, "truncate")
    assert all(torch.equal(value, back.state_dict()[name]) for name, value in four.state_dict().items())


def test_rows_of_a_reference_checkpoint_become_trajectories_without_copying():
    """C6, C8: the reference stores (K, T·D) and forgets T."""
    weight = torch.randn(5, 12)
    entries = reference_entries({"quantize.embedding.weight": weight}, n_steps=4)
    assert entries.data_ptr() == weight.data_ptr()
    assert torch.equal(entries[2, 1], weight[2, 3:6])


def test_averages_agree_with_the_entries_after_kmeans():
    """Without it the first update undoes the initialisation: lucidrains/vector-quantize-pytorch #66."""
    codebook = TemporalCodebook(16, 32, 4, update="ema", decay=0.99, eps=1e-12)
    z = clustered(256, 16)
    codebook.initialize(z)
    torch.testing.assert_close(codebook.ema_sums, codebook.codebook * codebook.ema_counts[:, None, None])
    before = codebook.codebook.clone()
    codebook(z)
    assert (codebook.codebook - before).norm() < 0.2 * before.norm()


def test_a_revived_entry_stays_where_it_was_put_when_nothing_chooses_it():
    """If its moving sum is not reset with it, the next update pulls it back: espnet PR #6284."""
    codebook = TemporalCodebook(3, 2, 2, update="ema", init="uniform", eps=1e-12)
    near, far = torch.zeros(2, 8, 2, 1, 1), torch.full((2, 1, 2, 1, 1), 50.0)
    codebook.assign(torch.tensor([0.0, 1.0, -9.0]).view(3, 1, 1).expand(3, 2, 2))
    codebook(near)
    dead = codebook.revive(far)
    assert dead.tolist() == [False, True, True]
    revived = codebook.codebook[1].clone()
    codebook(near)
    torch.testing.assert_close(codebook.codebook[1], revived)


def test_counts_of_entries_without_sites_decay():
    """Decaying only the entries that a batch chose keeps dead ones alive for ever: espnet PR #6284."""
    codebook = TemporalCodebook(2, 1, 1, update="ema", decay=0.5)
    codebook.assign(torch.tensor([0.0, 9.0]).view(2, 1, 1))
    for _ in range(3):
        codebook(torch.zeros(1, 4, 1, 1, 1))
    assert codebook.ema_counts.tolist() == [0.125 + 3.5, 0.125]


@pytest.mark.parametrize("estimator", ["straight_through", "rotation"])
def test_one_revival_brings_every_dead_entry_back_into_use(estimator):
    """The rotation trick alone left 40 to 90 % of codes dead: lucidrains/vector-quantize-pytorch #205."""
    z = clustered(512, 40)
    codebook = TemporalCodebook(64, 32, 4, init="uniform", estimator=estimator)
    codebook(z)
    dead = codebook.revive(z)
    assert dead.sum() > 32
    assert (code_counts(codebook.encode(z), 64)[dead] > 0).all()


@pytest.mark.parametrize("update", ["gradient", "ema"])
def test_a_loaded_codebook_is_trained_on_and_never_drawn_again(update, tmp_path):
    """A flag that is not saved lets the first batch overwrite loaded codes: facebookresearch/multimodal PR #235."""
    codebook, z = TemporalCodebook(8, 32, 4, update=update), clustered(64, 8)
    codebook(z)
    save_codebook(tmp_path / "codebook.safetensors", codebook)
    loaded = load_codebook(tmp_path / "codebook.safetensors").train()
    for fresh in (codebook, loaded):
        fresh(z + 3)
    assert torch.equal(loaded.codebook, codebook.codebook)
    assert torch.equal(loaded.counts, codebook.counts)


@pytest.mark.parametrize("n", [2000, 20000])
def test_moving_averages_of_a_float16_codebook_stay_finite(n):
    """ε underflows in float16, and an entry without sites becomes 0/0: ZhikangNiu/encodec-pytorch #8."""
    codebook = TemporalCodebook(8, 2, 2, update="ema", decay=0.5).half()
    codebook.assign(torch.cat([torch.randn(4, 2, 2) + 10, torch.full((4, 2, 2), -40.0)]))
    z = (10 + torch.randn(2, n, 2, 1, 1)).half()
    for _ in range(40):
        out = codebook(z)
    assert codebook.codebook.isfinite().all()
    assert out.z_q.isfinite().all()
    torch.testing.assert_close(codebook.codebook[:4].float().mean().item(), 10.0, rtol=0, atol=1.0)


def test_the_loss_of_many_float16_latents_does_not_overflow():
    """A float16 sum ends at 65,504; 80,000 squared errors of 1 are more (ZhikangNiu/encodec-pytorch #8)."""
    codebook = TemporalCodebook(2, 2, 2, init="uniform").half()
    codebook.assign(torch.zeros(2, 2, 2))
    assert codebook(torch.ones(2, 20000, 2, 1, 1).half()).codebook_loss.item() == pytest.approx(1, rel=1e-3)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("update", ["gradient", "ema"])
def test_training_under_autocast_equals_training_in_float32(update, dtype):
    """Mixed dtypes raise in `index_add` or `scatter`, or search and average in half precision, silently."""
    z = clustered(128, 8).to(dtype)
    results = []
    for enabled in (False, True):
        torch.manual_seed(0)
        codebook, leaf = TemporalCodebook(16, 32, 4, update=update), z.clone().requires_grad_()
        with torch.autocast("cpu", dtype=dtype, enabled=enabled):
            for _ in range(3):
                out = codebook(leaf)
        out.loss.backward()
        assert leaf.grad.dtype == dtype
        results.append((codebook.codebook.detach(), leaf.grad, out.indices, out.loss.detach()))
    for plain, autocast in zip(*results, strict=True):
        assert torch.equal(plain, autocast)


def test_evaluation_learns_nothing():
    """A codebook that draws, counts or averages in evaluation makes validation change training."""
    for update in ("gradient", "ema"):
        codebook = TemporalCodebook(8, 32, 4, update=update).eval()
        before = {name: tensor.clone() for name, tensor in codebook.state_dict().items()}
        codebook(clustered(64, 8))
        codebook.encode(clustered(64, 8))
        assert all(torch.equal(tensor, before[name]) for name, tensor in codebook.state_dict().items())
