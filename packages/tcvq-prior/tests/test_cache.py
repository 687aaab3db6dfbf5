"""Caches: every kind gives the logits of the full forward, rows can be taken out, misuse is refused."""

import pytest
import torch

from tcvq_prior import GPTPrior, SpikingPrior
from tcvq_prior.testing import check_prior

KINDS = [("spiking", "state"), ("spiking", "kv"), ("spiking", "none"), ("gpt", "kv"), ("gpt", "none")]


@pytest.fixture
def tokens():
    return torch.randint(7, (3, 6))


@pytest.mark.parametrize(("kind", "cache_kind"), KINDS)
@pytest.mark.parametrize("gradient", [False, True])
def test_every_cache_gives_the_logits_of_the_full_forward(make_prior, tokens, kind, cache_kind, gradient):
    prior = make_prior(kind=kind).double()
    cache, parts = prior.new_cache(cache_kind), []
    with torch.set_grad_enabled(gradient):
        for position, known in ((0, 0), (1, 3), (4, 5)):
            logits, cache = prior.extend(tokens[:, :known], None, position, cache)
            parts.append(logits)
        assert cache.length == 6
        torch.testing.assert_close(torch.cat(parts, dim=1), prior(tokens[:, :5]), rtol=0, atol=1e-10)


@pytest.mark.parametrize(("kind", "cache_kind"), KINDS)
@torch.no_grad()
def test_rows_of_a_cache_can_be_reordered_repeated_and_left_out(make_prior, tokens, kind, cache_kind):
    prior, rows = make_prior(kind=kind).double(), torch.tensor([2, 0, 2, 2])
    _, cache = prior.extend(tokens[:, :2], None, 0, prior.new_cache(cache_kind))
    chosen = cache.select(rows)
    expected = prior(tokens[:, :5])[:, 3:]
    first, _ = prior.extend(tokens[rows, :5], None, 3, chosen)
    second, _ = prior.extend(tokens[:, :5], None, 3, cache)  # the copy did not touch the original
    torch.testing.assert_close(first, expected[rows], rtol=0, atol=1e-10)
    torch.testing.assert_close(second, expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize(("kind", "cache_kind"), KINDS)
@torch.no_grad()
def test_a_full_cache_holds_the_bytes_that_were_foretold(make_prior, tokens, kind, cache_kind):
    prior = make_prior(kind=kind)
    _, cache = prior.extend(tokens, None, 0, prior.new_cache(cache_kind))
    assert cache.nbytes == prior.cache_bytes(3, cache_kind)
    assert (cache.nbytes == 0) == (cache_kind == "none")


def test_spikes_are_cached_as_one_byte_each(make_prior, tokens):
    prior = make_prior()
    with torch.no_grad():
        _, cache = prior.extend(tokens, None, 0, prior.new_cache("kv"))
    assert [tensor.dtype for layer in cache.layers for tensor in layer.tensors] == [torch.bool] * 4


def test_auto_takes_the_smaller_cache(make_prior):
    assert make_prior(grid=(2, 7), width=16, n_head=2).new_cache().kind == "kv"  # 2 x 14 bytes < 8 x 4 bytes
    assert make_prior(grid=(2, 8), width=16, n_head=2).new_cache().kind == "state"
    assert make_prior(grid=(2, 8), kind="gpt").new_cache().kind == "kv"


def test_softmax_attention_has_no_running_state(make_prior):
    with pytest.raises(ValueError, match="cache kind is 'state'; softmax attention has none"):
        make_prior(kind="gpt").new_cache("state")


def test_cache_of_another_length_is_refused(make_prior, tokens):
    prior = make_prior()
    _, cache = prior.extend(tokens[:, :2], None, 0, None)
    with pytest.raises(ValueError, match="position is 2, but the cache has seen 3 positions"):
        prior.extend(tokens[:, :2], None, 2, cache)


@pytest.mark.parametrize("kind", ["spiking", "gpt"])
def test_no_labels_stand_for_no_class_where_the_prior_knows_it(make_prior, tokens, kind):
    prior = make_prior(kind=kind, n_classes=3, null_class=True, class_everywhere=True)
    check_prior(prior)
    with torch.no_grad():
        torch.nn.init.normal_(prior.embedding.start.weight)
        nothing = prior(tokens)
        assert torch.equal(prior(tokens, torch.full((3,), prior.null_class)), nothing)
        assert not torch.equal(prior(tokens, torch.zeros(3, dtype=torch.long)), nothing)


def test_blocks_computed_again_in_the_backward_give_the_same_gradients(make_prior, tokens):
    gradients = []
    for again in (False, True):
        torch.manual_seed(1)
        prior = make_prior().double()
        prior.checkpoint_blocks = again
        prior(tokens).square().sum().backward()
        gradients.append([p.grad for p in prior.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*gradients, strict=True))


def test_kind_chooses_the_model(make_prior):
    assert isinstance(make_prior(kind="gpt"), GPTPrior)
    assert isinstance(make_prior(), SpikingPrior)
