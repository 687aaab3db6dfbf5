"""The network: exact running state, causality, codes apart from start and classes, neurons that fire."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tcvq_prior import PriorConfig, SpikingPrior, attend
from tcvq_prior.blocks import firing_rates
from tcvq_prior.embedding import causal_neighbours
from tcvq_prior.testing import check_prior

OPTIONS = [
    {},
    {"n_classes": 3},
    {"n_classes": 3, "class_everywhere": True, "neighbourhood": 2, "code_features": 4},
    {"n_steps": 4, "grid": (1, 4), "neighbourhood": 1, "n_layer": 1, "n_head": 1},
]


@st.composite
def configs(draw):
    n_head = draw(st.integers(1, 3))
    return PriorConfig(
        n_embed=draw(st.integers(1, 6)),
        grid=(draw(st.integers(1, 4)), draw(st.integers(1, 4))),
        n_classes=draw(st.sampled_from([0, 3])),
        n_layer=draw(st.integers(1, 3)),
        n_head=n_head,
        width=n_head * draw(st.integers(2, 5)),
        n_steps=draw(st.integers(1, 4)),
        neighbourhood=draw(st.integers(0, 2)),
        class_everywhere=draw(st.booleans()),
        code_features=draw(st.sampled_from([0, 3])),
        init_gain=2.0,
    )


@settings(max_examples=40, deadline=None)
@given(config=configs(), batch=st.integers(1, 3), seed=st.integers(0, 9), data=st.data())
def test_running_state_gives_the_logits_of_the_full_forward_however_the_sequence_is_cut(config, batch, seed, data):
    torch.manual_seed(seed)
    features = (
        torch.randn(config.n_embed, config.code_features) if config.code_features and config.n_embed > 1 else None
    )
    prior = SpikingPrior(config, features).double().eval()
    torch.nn.init.normal_(prior.table.weight)
    torch.nn.init.normal_(prior.embedding.position)
    length = config.n_tokens
    tokens = torch.randint(config.n_embed, (batch, length))
    labels = torch.randint(3, (batch,)) if config.n_classes else None
    cuts = sorted({length, *data.draw(st.lists(st.integers(1, length), max_size=4))})
    position, cache, parts = 0, prior.new_cache("state"), []
    with torch.no_grad():
        full = prior(tokens[:, :-1], labels)
        for cut in cuts:
            logits, cache = prior.extend(tokens[:, : cut - 1], labels, position, cache)
            parts.append(logits)
            position = cut
    assert full.shape == (batch, length, config.n_embed)
    torch.testing.assert_close(torch.cat(parts, dim=1), full, rtol=0, atol=1e-10)
    assert cache.length == length
    for layer in cache.layers:
        (s,) = layer.tensors
        assert torch.equal(s, s.round())
        assert s.min() >= 0
        assert s.max() <= length


def test_running_state_counts_coincident_spikes_and_is_not_empty(make_prior):
    prior = make_prior(width=16)
    _, cache = prior.extend(torch.randint(7, (2, 5)), None, 0, prior.new_cache("state"))
    for layer in cache.layers:
        (s,) = layer.tensors
        assert s.shape == (2, 2, 2, 8, 8)
        assert torch.equal(s, s.round())
        assert s.sum() > 10


def test_attention_sums_over_earlier_tokens_without_normalising():
    q, k, v = (torch.ones(1, 1, 1, 3, 4) for _ in range(3))
    y, state = attend(q, k, v)
    assert y[0, 0, 0, :, 0].tolist() == [2.0, 4.0, 6.0]  # n tokens x overlap 4 / sqrt(4)
    assert state.unique().tolist() == [3.0]


@pytest.mark.parametrize("kind", ["spiking", "gpt"])
@pytest.mark.parametrize("options", OPTIONS)
def test_every_prior_keeps_the_promises_of_a_code_prior(make_prior, options, kind):
    check_prior(make_prior(**options, kind=kind))


@pytest.mark.parametrize("options", OPTIONS)
def test_every_earlier_token_changes_the_later_outputs_and_no_other(make_prior, options):
    prior = make_prior(**{**options, "width": 32, "n_head": 1}).double()
    length, batch = prior.config.n_tokens, 30
    labels = torch.zeros(batch, dtype=torch.long) if prior.n_classes else None
    tokens = torch.randint(7, (batch, length))
    reached = torch.zeros(length - 1, length, dtype=torch.bool)
    with torch.no_grad():
        logits = prior(tokens[:, :-1], labels)
        for t in range(length - 1):
            other = tokens.clone()
            other[:, t] = (other[:, t] + 1) % 7
            reached[t] = (prior(other[:, :-1], labels) != logits).any(-1).any(0)
    assert torch.equal(reached, torch.ones(length - 1, length, dtype=torch.bool).triu(1))


@pytest.mark.parametrize("width", [64, 128, 256])
def test_all_neurons_fire_at_initialisation_whatever_the_width(width):
    prior = SpikingPrior(PriorConfig(n_embed=32, grid=(4, 4), n_layer=3, n_head=4, width=width))
    x = prior.embedding(prior.table.weight, torch.randint(32, (4, 15)), torch.zeros(4, dtype=torch.long), slice(0, 16))
    x_seq = x.expand(2, *x.shape)
    for block in prior.blocks:
        rates = firing_rates(block, x_seq)
        assert rates.keys() == {"q", "k", "v", "mlp"}
        assert all(0.02 < rate < 0.5 for rate in rates.values()), rates
        x_seq = block(x_seq)


@pytest.mark.parametrize("options", [{}, {"code_features": 4, "neighbourhood": 1}])
def test_code_table_receives_a_gradient_and_moves(make_prior, options):
    prior = make_prior(**options)
    before = prior.table.weight.clone()
    tokens = torch.tensor([[0, 1, 2, 3, 4]])
    loss = torch.nn.functional.cross_entropy(prior(tokens)[0], torch.tensor([0, 1, 2, 3, 4, 5]))
    optimizer = torch.optim.SGD(prior.parameters(), lr=0.1)
    loss.backward()
    optimizer.step()
    moved = (prior.table.weight != before).any(1)
    assert moved.tolist() == [True] * 5 + [False] * 2


def test_start_token_and_classes_are_apart_from_the_codes(make_prior):
    prior = make_prior(n_classes=3)
    tokens, labels = torch.zeros(1, 5, dtype=torch.long), torch.tensor([1])
    before = prior(tokens, labels)
    with torch.no_grad():
        prior.table.weight[1] += 1.0  # code 1 is not in the sequence, class 1 is
    assert torch.equal(prior(tokens, labels), before)
    assert before.shape[-1] == prior.n_embed == 7
    with torch.no_grad():
        prior.embedding.start.weight[1] += 1.0
    assert not torch.equal(prior(tokens, labels)[:, :1], before[:, :1])


@pytest.mark.parametrize("everywhere", [False, True])
def test_class_reaches_every_position_directly_only_when_asked(make_prior, everywhere):
    prior = make_prior(n_classes=2, class_everywhere=everywhere)
    for block in prior.blocks:
        for layer in (block.proj, block.out):
            torch.nn.init.zeros_(layer.weight)
    tokens = torch.zeros(1, 5, dtype=torch.long)
    with torch.no_grad():
        prior.embedding.start.weight.copy_(torch.randn(2, 8))
        differs = (prior(tokens, torch.tensor([0])) != prior(tokens, torch.tensor([1]))).any(-1)[0]
    assert differs.tolist() == [True] + [everywhere] * 5


def test_neighbours_are_the_known_codes_around_a_site():
    assert causal_neighbours((2, 3), 1).tolist() == [
        [6, 6, 6, 6],  # 6 = outside; order: up-left, up, up-right, left
        [6, 6, 6, 0],
        [6, 6, 6, 1],
        [6, 0, 1, 6],
        [0, 1, 2, 3],
        [1, 2, 6, 4],
    ]
    assert causal_neighbours((2, 3), 0).shape == (6, 0)


def test_state_dict_holds_neither_masks_nor_index_tables(make_prior):
    names = make_prior(neighbourhood=2).state_dict().keys()
    assert not [name for name in names if "mask" in name or "neighbour" in name]


def test_forward_that_fails_halfway_leaves_no_trace(make_prior, monkeypatch):
    prior, tokens = make_prior(), torch.randint(7, (2, 5))
    before = prior(tokens)
    with monkeypatch.context() as broken:
        broken.setattr(prior.blocks[1], "forward", None)
        with pytest.raises(TypeError):
            prior(tokens)
    prior(tokens[:1])
    assert torch.equal(prior(tokens), before)


def test_missing_and_unwanted_labels_are_refused(make_prior):
    tokens = torch.zeros(2, 5, dtype=torch.long)
    with pytest.raises(ValueError, match="has 3 classes; labels were not given"):
        make_prior(n_classes=3)(tokens)
    with pytest.raises(ValueError, match="has 0 classes; labels were given"):
        make_prior()(tokens, torch.zeros(2, dtype=torch.long))


def test_more_tokens_than_cells_are_refused(make_prior):
    with pytest.raises(ValueError, match=r"7 tokens for a grid of \(2, 3\), which has 6 cells"):
        make_prior()(torch.zeros(1, 7, dtype=torch.long))
