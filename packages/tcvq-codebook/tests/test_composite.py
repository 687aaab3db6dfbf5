"""Factorised, residual and multi-head codebooks keep the promises of a codebook, each in its own shape."""

import pytest
import torch

from tcvq_codebook import TemporalCodebook
from tcvq_codebook.composite import MultiHeadCodebook, ResidualCodebook
from tcvq_codebook.factorised import FactorisedCodebook
from tcvq_codebook.testing import check_quantizer

BUILD = {
    "factorised": (FactorisedCodebook, {"lookup_dim": 3}),
    "residual": (ResidualCodebook, {"n_levels": 3}),
    "heads": (MultiHeadCodebook, {"n_heads": 2}),
}
N_INDICES = {"factorised": None, "residual": 3, "heads": 2}


def build(name, **options):
    kind, own = BUILD[name]
    return kind(17, 8, 4, **own, **options)


@pytest.mark.parametrize("estimator", ["straight_through", "rotation"])
@pytest.mark.parametrize("name", BUILD)
def test_every_composition_passes_the_conformance_kit(name, estimator, z):
    codebook = build(name, estimator=estimator)
    codebook(z)
    identity = name != "factorised" and estimator == "straight_through"
    check_quantizer(codebook, z, n_indices=N_INDICES[name], nearest_entry=False, identity_gradient=identity)


@pytest.mark.parametrize("name", BUILD)
def test_every_composition_is_built_of_codebooks_that_learn_by_average(name, z):
    codebook = build(name, update="ema", init="data")
    first = codebook(z).loss
    for _ in range(5):
        last = codebook(z).loss
    assert last < first


@pytest.mark.parametrize("name", BUILD)
def test_masked_steps_change_nothing_in_any_composition(name, z):
    codebook = build(name)
    codebook.initialize(z)
    mask = torch.arange(4)[:, None] < torch.tensor([4, 2, 3, 4, 1, 2])
    hidden = z.where(mask[:, :, None, None, None], torch.nan)
    plain, odd = codebook.eval()(z, mask), codebook(hidden, mask)
    assert torch.equal(plain.indices, odd.indices)
    assert torch.equal(plain.z_q, odd.z_q)
    assert torch.equal(codebook.encode(hidden, mask), plain.indices)


@pytest.mark.parametrize("name", BUILD)
def test_latents_of_another_width_are_an_error_in_any_composition(name, z):
    with pytest.raises(ValueError, match="D = 8"):
        build(name)(z[:, :, :6])


@pytest.mark.parametrize("name", BUILD)
def test_revival_reports_the_dead_of_every_part(name, z):
    codebook = build(name)
    codebook(z)
    parts = [part for part in codebook.modules() if isinstance(part, TemporalCodebook)]
    for k, part in enumerate(parts):
        part.counts.fill_(5)
        part.counts[k] = 0
    dead = codebook.revive(z).reshape(len(parts), 17)
    assert dead.nonzero().tolist() == [[k, k] for k in range(len(parts))]


def test_factorised_codes_are_searched_in_the_short_space(z):
    codebook = build("factorised")
    codebook(z)
    short = codebook.down(z.movedim(2, -1)).movedim(-1, 2)
    out = codebook.eval()(z)
    assert torch.equal(out.indices, codebook.inner.encode(short))
    expected = codebook.up(codebook.inner.lookup(out.indices).movedim(2, -1)).movedim(-1, 2)
    torch.testing.assert_close(out.z_q, expected)


def test_factorised_entries_do_not_depend_on_the_batch(z):
    codebook = build("factorised").eval()
    whole = codebook(z)
    single = codebook(z[:, 2:3, :, :1, :1])
    assert torch.equal(single.z_q, codebook.lookup(whole.indices)[:, 2:3, :, :1, :1])


def test_the_gradient_of_a_factorised_code_passes_both_maps_and_reaches_them(z):
    codebook = build("factorised")
    codebook.initialize(z)
    leaf = z.clone().requires_grad_()
    weight = torch.randn_like(z)
    (codebook.eval()(leaf).z_q * weight).sum().backward()
    matrix = codebook.up.weight @ codebook.down.weight
    torch.testing.assert_close(leaf.grad, torch.einsum("dc,tbdhw->tbchw", matrix, weight))
    assert codebook.up.weight.grad.count_nonzero() > 0
    assert codebook.down.weight.grad.count_nonzero() > 0


def test_autocast_changes_no_factorised_code(z):
    codebook = build("factorised")
    codebook.initialize(z)
    expected = codebook.eval()(z)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = codebook(z)
    assert torch.equal(out.z_q, expected.z_q)
    assert torch.equal(out.indices, expected.indices)


def test_each_level_quantizes_what_those_before_it_left_over(z):
    codebook = build("residual")
    codebook(z)
    out = codebook.eval()(z)
    rest = z
    for level, index in zip(codebook.levels, out.indices, strict=True):
        assert torch.equal(index, level.encode(rest))
        rest = rest - level.lookup(index)
    torch.testing.assert_close(z - out.z_q, rest)


def test_fewer_levels_of_indices_give_a_coarser_result(z):
    codebook = build("residual")
    codebook(z)
    indices = codebook.eval().encode(z)
    errors = [(z - codebook.lookup(indices[:q])).square().mean().item() for q in (1, 2, 3)]
    assert errors == sorted(errors, reverse=True)
    with pytest.raises(ValueError, match="0 levels"):
        codebook.lookup(indices[:0])


def test_a_level_waits_until_those_before_it_are_initialised(z):
    codebook = ResidualCodebook(40, 8, 4, n_levels=2, init="data")
    codebook(z[:, :2])  # 30 sites are too few
    assert [bool(level.initted) for level in codebook.levels] == [False, False]
    codebook(z[:, 2:4])
    assert [bool(level.initted) for level in codebook.levels] == [True, False]
    codebook(z[:, 4:])
    assert [bool(level.initted) for level in codebook.levels] == [True, True]


def test_heads_quantize_their_own_channels(z):
    codebook = build("heads")
    codebook(z)
    out = codebook.eval()(z)
    for head, part, index, chosen in zip(codebook.heads, z.chunk(2, 2), out.indices, out.z_q.chunk(2, 2), strict=True):
        assert torch.equal(index, head.encode(part))
        assert torch.equal(chosen, head.lookup(index))
    torch.testing.assert_close(out.codebook_loss, (z - out.z_q).square().mean())
    with pytest.raises(ValueError, match="1 heads"):
        codebook.lookup(out.indices[:1])


def test_impossible_compositions_are_refused():
    with pytest.raises(ValueError, match="similarity='l2'"):
        ResidualCodebook(4, 8, 2, n_levels=2, similarity="cosine")
    with pytest.raises(ValueError, match="n_levels"):
        ResidualCodebook(4, 8, 2, n_levels=0)
    with pytest.raises(ValueError, match="n_heads=3"):
        MultiHeadCodebook(4, 8, 2, n_heads=3)
