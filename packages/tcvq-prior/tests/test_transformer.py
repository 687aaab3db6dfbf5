"""The network: exact running state, causality, codes apart from start and classes, neurons that fire."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tcvq_prior import PriorConfig, SpikingPrior, attend, build_prior
from tcvq_prior.attention import spiking_attention
from tcvq_prior.blocks import firing_rates
from tcvq_prior.embedding import causal_neighbours
from tcvq_prior.positions import DistanceWeights, Rotary
from tcvq_prior.testing import check_prior

OPTIONS = [
    {},
    {"n_classes": 3},
    {"n_classes": 3, "class_everywhere": True, "neighbourhood": 2, "code_features": 4},
    {"n_steps": 4, "grid": (1, 4), "neighbourhood": 1, "n_layer": 1, "n_head": 1},
    {"kind": "gpt", "n_classes": 3, "null_class": True},
    {"kind": "gpt", "rotary": True, "positions": "grid", "tie_weights": True, "code_features": 4},
    {"rotary": True, "positions": "grid", "attention_norm": "position", "tie_weights": True},
    {"attention_chunk": 2, "attention_norm": "position"},
    {"distance_weights": True, "surrogate_alpha": 1.4, "rotary": True},
    {"distance_weights": True, "per_step": "joint", "n_code_steps": 2, "neighbourhood": 1, "grid": (4, 2)},
    {"per_step": "joint", "n_code_steps": 2, "neighbourhood": 1, "grid": (4, 2)},
    {"per_step": "joint", "n_code_steps": 2, "positions": "grid", "kind": "gpt"},
]
INDEPENDENT = {"per_step": "independent", "n_code_steps": 2}


@st.composite
def configs(draw):
    kind, n_head = draw(st.sampled_from(["spiking", "spiking", "gpt"])), draw(st.integers(1, 3))
    n_classes, n_code_steps = draw(st.sampled_from([0, 3])), draw(st.sampled_from([1, 1, 2, 3]))
    rotary, spiking, distance = draw(st.booleans()), kind == "spiking", draw(st.booleans())
    return PriorConfig(
        kind=kind,
        n_embed=draw(st.integers(1, 6)),
        grid=(n_code_steps * draw(st.integers(1, 4)), draw(st.integers(1, 4))),
        n_classes=n_classes,
        null_class=bool(n_classes) and draw(st.booleans()),
        n_layer=draw(st.integers(1, 3)),
        n_head=n_head,
        width=n_head * (4 if rotary else draw(st.integers(2, 5))),
        n_steps=draw(st.integers(1, 4)),
        neighbourhood=draw(st.integers(0, 2)),
        class_everywhere=draw(st.booleans()),
        code_features=draw(st.sampled_from([0, 3])),
        positions=draw(st.sampled_from(["learned", "grid"])),
        rotary=rotary,
        attention_norm=draw(st.sampled_from(["none", "position"])) if spiking else "none",
        distance_weights=spiking and distance,
        attention_chunk=draw(st.sampled_from([0, 1, 3])) if spiking and not distance else 0,
        tie_weights=draw(st.booleans()),
        per_step="none" if n_code_steps == 1 else draw(st.sampled_from(["joint", "independent"])),
        n_code_steps=n_code_steps,
        init_gain=2.0,
    )


@settings(max_examples=60, deadline=None)
@given(config=configs(), batch=st.integers(1, 3), seed=st.integers(0, 9), data=st.data())
@torch.no_grad()
def test_every_cache_gives_the_logits_of_the_full_forward_however_the_sequence_is_cut(config, batch, seed, data):
    torch.manual_seed(seed)
    features = (
        torch.randn(config.n_embed, config.code_features) if config.code_features and config.n_embed > 1 else None
    )
    prior = build_prior(config, features).double().eval()
    for table in (prior.table.weight, *prior.embedding.parameters(recurse=False)):
        torch.nn.init.normal_(table)
    stateful = config.kind == "spiking" and not config.distance_weights
    length, kind = config.n_tokens, data.draw(st.sampled_from(["auto", "kv", "state" if stateful else "none"]))
    tokens = torch.randint(config.n_embed, (batch, length))
    labels = torch.randint(3 + config.null_class, (batch,)) if config.n_classes else None
    full = prior(tokens[:, :-1], labels)
    assert full.shape == (batch, length, config.n_embed)
    position, cache, parts = 0, prior.new_cache(kind), []
    for cut in sorted({length, *data.draw(st.lists(st.integers(1, length), max_size=4))}):
        logits, cache = prior.extend(tokens[:, : cut - 1], labels, position, cache)
        parts.append(logits)
        position = cut
    assert cache.length == length
    torch.testing.assert_close(torch.cat(parts, dim=1), full, rtol=0, atol=1e-10)
    for row in range(batch):  # a row does not depend on the others
        alone = prior(tokens[row : row + 1, :-1], None if labels is None else labels[row : row + 1])
        torch.testing.assert_close(alone[0], full[row], rtol=0, atol=1e-10)
    if cache.kind == "state" and not config.rotary:
        for layer in cache.layers:
            (s,) = layer.tensors
            assert torch.equal(s, s.round())
            assert s.min() >= 0
            assert s.max() <= length


@settings(max_examples=10, deadline=None)
@given(config=configs(), seed=st.integers(0, 9))
@torch.no_grad()
def test_rows_with_and_without_their_class_share_a_batch_as_guidance_needs(config, seed):
    torch.manual_seed(seed)
    prior = build_prior(replace(config, n_classes=3, null_class=True)).double().eval()
    torch.nn.init.normal_(prior.embedding.start.weight)
    tokens, labels = torch.randint(config.n_embed, (2, config.n_tokens - 1)), torch.tensor([2, 0])
    with_null = torch.cat([labels, torch.full((2,), prior.null_class)])
    both = prior(tokens.repeat(2, 1), with_null)
    torch.testing.assert_close(both[:2], prior(tokens, labels), rtol=0, atol=1e-10)
    torch.testing.assert_close(both[2:], prior(tokens), rtol=0, atol=1e-10)


def test_running_state_counts_coincident_spikes_and_is_not_empty(make_prior):
    prior = make_prior(width=16)
    _, cache = prior.extend(torch.randint(7, (2, 5)), None, 0, prior.new_cache("state"))
    for layer in cache.layers:
        (s,) = layer.tensors
        assert s.shape == (2, 2, 2, 8, 8)
        assert torch.equal(s, s.round())
        assert s.sum() > 10


def test_distance_weights_multiply_the_counts_of_pairs_by_a_number_for_their_offset():
    distance = DistanceWeights((2, 3), n_head=2)
    near, far = distance(0, 6).detach()
    assert near[4].tolist()[5:] == [0.0]  # later tokens
    assert near[4, 1] == near[5, 2] == near[1, 1] * near[4, 1] / near[4, 4]  # one above, wherever the pair lies
    assert near[4, 4] > near[4, 3] == near[4, 1] > near[4, 0] == near[4, 2]  # itself, beside and above, at corners
    assert near[4, 2] / near[4, 4] < far[4, 2] / far[4, 4] < 1  # the second head reaches twice as far
    torch.testing.assert_close(distance(2, 4), distance(0, 4)[:, 2:])
    q, k, v = (torch.ones(1, 1, 2, 6, 4) for _ in range(3))
    y = spiking_attention(q, k, v, weights=distance(0, 6))
    torch.testing.assert_close(y[0, 0, :, :, 0], 4 / 4**0.5 * distance(0, 6).sum(2))


def test_distance_weights_of_earlier_steps_reach_rows_further_down():
    distance = DistanceWeights((4, 1), n_head=1, n_code_steps=2)  # rows 0 and 1 of the first step, then of the second
    (weights,) = distance(0, 4).detach()
    assert weights[2, 1] > 0  # the second row of the step before, from the first row
    assert weights[2, 1] == weights[3, 0] < weights[3, 1] < weights[3, 3]


def test_distance_weights_have_no_running_state(make_prior):
    prior = make_prior(distance_weights=True)
    assert prior.new_cache().kind == "kv"
    with pytest.raises(ValueError, match="distance_weights"):
        prior.new_cache("state")


def test_distance_weights_and_surrogates_reach_the_gradients(make_prior):
    tokens = torch.randint(7, (2, 6))

    def gradients(**options):
        torch.manual_seed(0)
        prior = make_prior(distance_weights=True, n_layer=1, **options)
        prior(tokens[:, :-1]).square().sum().backward()
        return prior.blocks[0].distance.weight.grad, prior.blocks[0].qkv.weight.grad

    (weights, narrow), (_, wide) = gradients(), gradients(surrogate_alpha=1.0)
    assert weights.abs().sum() > 0
    assert not torch.equal(narrow, wide)


def test_attention_sums_over_earlier_tokens_without_normalising():
    q, k, v = (torch.ones(1, 1, 1, 3, 4) for _ in range(3))
    y, state = attend(q, k, v)
    assert y[0, 0, 0, :, 0].tolist() == [2.0, 4.0, 6.0]  # n tokens x overlap 4 / sqrt(4)
    assert state.unique().tolist() == [3.0]


@pytest.mark.parametrize("options", [*OPTIONS, INDEPENDENT, {**INDEPENDENT, "kind": "gpt"}], ids=str)
def test_every_prior_keeps_the_promises_of_a_code_prior(make_prior, options):
    check_prior(make_prior(**options))


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_every_earlier_token_changes_the_later_outputs_and_no_other(make_prior, options):
    prior = make_prior(**{**options, "width": 32, "n_head": 1}).double()
    assert torch.equal(reached(prior), torch.ones(*reached(prior).shape, dtype=torch.bool).triu(1))


def test_independent_steps_do_not_see_each_other_and_are_drawn_from_one_model(make_prior):
    prior = make_prior(**INDEPENDENT, grid=(4, 2), width=32, n_head=1, neighbourhood=1).double()
    later = torch.ones(3, 4, dtype=torch.bool).triu(1)
    assert torch.equal(reached(prior)[:3, :4], later)
    assert torch.equal(reached(prior)[4:, 4:], later)
    assert not reached(prior)[:4, 4:].any()
    tokens = torch.randint(7, (3, 4))
    with torch.no_grad():
        first, second = prior(tokens.repeat(1, 2)).chunk(2, dim=1)
    assert torch.equal(first, second)


def reached(prior):
    """Whether token t (row) changes output i (column) in some of 30 random grids."""
    length, batch = prior.config.n_tokens, 30
    labels = torch.zeros(batch, dtype=torch.long) if prior.n_classes else None
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(7, (batch, length), generator=generator)
    changed = torch.zeros(length - 1, length, dtype=torch.bool)
    with torch.no_grad():
        logits = prior(tokens[:, :-1], labels)
        for t in range(length - 1):
            other = tokens.clone()
            other[:, t] = (other[:, t] + 1) % 7
            changed[t] = (prior(other[:, :-1], labels) != logits).any(-1).any(0)
    return changed


@pytest.mark.parametrize("options", [{}, {"attention_norm": "position", "rotary": True, "positions": "grid"}], ids=str)
@pytest.mark.parametrize("n_steps", [1, 2])
@pytest.mark.parametrize("width", [64, 128, 256])
def test_all_neurons_fire_at_initialisation_whatever_the_width(width, n_steps, options):
    prior = SpikingPrior(PriorConfig(n_embed=32, grid=(4, 4), n_layer=3, n_head=4, width=width, **options))
    x = prior.embedding(prior.table.weight, torch.randint(32, (4, 15)), torch.zeros(4, dtype=torch.long), slice(0, 16))
    x_seq = x.expand(n_steps, *x.shape)
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


def test_chunks_of_attention_change_neither_logits_nor_gradients(make_prior):
    tokens, found = torch.randint(7, (2, 11)), []
    for chunk in (0, 1, 5, 12):
        torch.manual_seed(3)
        prior = make_prior(grid=(3, 4), attention_chunk=chunk).double()
        logits = prior(tokens)
        logits.square().sum().backward()
        found.append([logits, *(p.grad for p in prior.parameters())])
    for other in found[1:]:
        torch.testing.assert_close(other, found[0], rtol=1e-9, atol=1e-10)


def test_neighbours_of_many_positions_and_of_few_make_the_same_stem(make_prior):
    """Many positions take rows of one product of all codes, few the product of what they gathered."""
    prior, found = make_prior(n_embed=7, grid=(3, 4), neighbourhood=2, n_layer=1).double(), []
    tokens = torch.randint(7, (2, 11))
    for parts in (tokens.split(2), [tokens[:, :n] for n in range(12)]):  # 24 positions at once; one at a time
        prior.zero_grad()
        inputs = [
            prior.embedding(prior.table.weight, part, torch.zeros(2, dtype=torch.long), slice(first, part.shape[1] + 1))
            for part, first in ((part, 0 if len(parts) == 1 else part.shape[1]) for part in parts)
        ]
        x = torch.cat(inputs, dim=1)
        x.square().sum().backward()
        found.append([x, prior.embedding.stem.weight.grad, prior.table.weight.grad])
    torch.testing.assert_close(found[0], found[1], rtol=1e-10, atol=1e-12)


def test_bfloat16_rounds_the_output_of_attention_only():
    spikes = (torch.rand(3, 2, 3, 4, 40, 256) < 0.5).bfloat16().unbind(0)
    y, exact = spiking_attention(*spikes), spiking_attention(*(x.double() for x in spikes))
    torch.testing.assert_close(y.double(), exact, rtol=2**-7, atol=0)
    assert y.dtype == torch.bfloat16


def test_counts_beyond_256_stay_exact_under_autocast():
    q, k, v = (torch.ones(1, 1, 1, 9, 64) for _ in range(3))
    with torch.autocast("cpu", torch.bfloat16):
        y = spiking_attention(q, k, v)
        z, _ = attend(q, k, v)
    assert y.dtype == z.dtype == torch.float32
    assert (y[0, 0, 0, :, 0] * 8).tolist() == (z[0, 0, 0, :, 0] * 8).tolist() == [64.0 * n for n in range(1, 10)]


def test_normalised_attention_is_the_mean_over_the_tokens_seen(make_prior):
    block = make_prior(attention_norm="position").blocks[0]
    q, k, v = (torch.ones(2, 1, 2, 3, 4) for _ in range(3))
    assert block.attend(q, k, v, None, 0)[..., 0].unique().tolist() == [2.0]  # overlap 4 / sqrt(4)


def test_turned_queries_and_keys_know_their_distance_only():
    rotary = Rotary((4, 5), 8).double()
    q, k = torch.randn(8).double(), torch.randn(8).double()
    at = [rotary(x.expand(1, 1, 1, 20, 8), 0)[0, 0, 0].reshape(4, 5, 8) for x in (q, k)]
    score = torch.einsum("abd,xyd->abxy", *at)
    torch.testing.assert_close(score[1, 2, 0, 1], score[3, 4, 2, 3])
    torch.testing.assert_close(score[3, 0, 1, 4], score[2, 0, 0, 4])
    torch.testing.assert_close(score[2, 2, 2, 2], q @ k)
    assert (score[1, 2, 0, 1] - score[1, 2, 0, 2]).abs() > 1e-3
    assert (score[1, 2, 0, 1] - score[2, 2, 0, 1]).abs() > 1e-3


def test_tied_head_scores_codes_by_the_table_that_embeds_them(make_prior):
    prior = make_prior(tie_weights=True, code_features=3)
    assert prior.head is prior.table
    names = [name for name, _ in prior.named_parameters()]
    assert not [name for name in names if name.startswith("head")]


def test_rows_and_columns_have_vectors_that_add_up(make_prior):
    prior = make_prior(positions="grid", per_step="joint", n_code_steps=2, grid=(4, 3))
    e = prior.embedding
    for table in (e.row, e.column, e.step):
        torch.nn.init.normal_(table)
    assert torch.equal(e.positions(0, 12)[7], e.row[0] + e.column[1] + e.step[1])
    assert torch.equal(e.positions(4, 6), e.positions(0, 12)[4:6])


def test_neighbours_of_a_step_include_the_site_in_the_step_before():
    first, second = causal_neighbours((4, 2), 1, n_code_steps=2).chunk(2)  # two steps of 2 x 2
    assert first.tolist() == [
        [8, 8, 8, 8] + [8] * 9,
        [8, 8, 8, 0] + [8] * 9,
        [8, 0, 1, 8] + [8] * 9,
        [0, 1, 8, 2] + [8] * 9,
    ]
    assert second[0].tolist() == [8] * 8 + [0, 1, 8, 2, 3]
    assert second[3].tolist() == [4, 5, 8, 6, 0, 1, 8, 2, 3, 8, 8, 8, 8]


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
