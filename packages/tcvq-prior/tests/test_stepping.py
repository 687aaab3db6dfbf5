"""One token in few calls: the results of the layers, and their turn wherever somebody needs them."""

import pytest
import torch

from tcvq_neurons import LIF
from tcvq_prior import stepping
from tcvq_prior.blocks import Block
from tcvq_prior.stepping import fire, linear, loops_for

OPTIONS = [
    {},
    {"n_steps": 1},
    {"n_steps": 4},
    {"rotary": True},
    {"attention_norm": "position"},
    {"n_classes": 3},
]
CASES = [(kind, options) for options in OPTIONS for kind in ("state", "kv")] + [("kv", {"distance_weights": True})]


@pytest.fixture
def compiled():
    """The compiled loops, where numba is installed."""
    found = loops_for(torch.zeros(1))
    if found is None:
        pytest.skip('numba is not installed; pip install "tcvq-prior[cpu]"')
    return found


@pytest.fixture(params=["compiled", "torch"])
def loops(request, monkeypatch):
    """With compiled loops, and as if numba were not installed."""
    if request.param == "torch":
        monkeypatch.setattr(stepping, "_with_numba", lambda: None)
    else:
        request.getfixturevalue("compiled")


def one_by_one(prior, tokens, labels, kind):
    """Logits of all positions, each computed alone."""
    cache, parts = prior.new_cache(kind), []
    for position in range(tokens.shape[1] + 1):
        logits, cache = prior.extend(tokens[:, :position], labels, position, cache)
        parts.append(logits)
    return torch.cat(parts, dim=1)


@pytest.mark.parametrize(("kind", "options"), CASES, ids=str)
@pytest.mark.parametrize("rows", [2, 6])  # fewer and more than 8 rows over all steps
@torch.no_grad()
def test_single_tokens_give_the_logits_of_the_full_forward(make_prior, monkeypatch, loops, options, kind, rows):
    prior = make_prior(**options).double()
    tokens = torch.randint(7, (rows, 5))
    labels = torch.randint(3, (rows,)) if prior.n_classes else None
    expected = prior(tokens, labels)
    monkeypatch.setattr(Block, "forward", None)  # whoever takes the long way now fails
    torch.testing.assert_close(one_by_one(prior, tokens, labels, kind), expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("constants", [{}, {"tau": 4.0, "v_threshold": 0.3}])
def test_fire_gives_the_spikes_of_the_neuron_bit_for_bit(loops, dtype, constants):
    x_seq, neuron = torch.randn(4, 500, dtype=dtype), LIF(**constants)
    assert torch.equal(fire(x_seq, 4, neuron), neuron(x_seq))
    same = x_seq[:1].expand(4, -1)  # which one step of input stands for
    assert torch.equal(fire(x_seq[:1], 4, neuron), neuron(same))


@pytest.mark.parametrize("options", [options for options in OPTIONS if "rotary" not in options], ids=str)
@torch.no_grad()
def test_compiled_loops_change_no_bit_of_logits_and_state(make_prior, monkeypatch, compiled, options):
    prior, tokens, runs, calls = make_prior(**options).float(), torch.randint(7, (6, 5)), [], []
    labels = torch.arange(6) % 3 if prior.n_classes else None
    attend = compiled.attend
    monkeypatch.setattr("tcvq_prior.loops.attend", lambda *args: calls.append(1) or attend(*args))
    for _ in range(2):
        cache, logits = prior.new_cache("state"), []
        for position in range(6):
            found, cache = prior.extend(tokens[:, :position], labels, position, cache)
            logits.append(found)
        runs.append((torch.cat(logits, dim=1), *(layer.state for layer in cache.layers)))
        monkeypatch.setattr(stepping, "_with_numba", lambda: None)
    assert len(calls) == 5 * prior.config.n_layer  # all tokens but the first, of which there is no state yet
    assert all(state.any() for state in runs[0][1:])
    assert all(torch.equal(a, b) for a, b in zip(*runs, strict=True))


@torch.no_grad()
def test_many_currents_are_left_to_the_threads_of_torch(monkeypatch, compiled):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 8)
    assert loops_for(torch.zeros(stepping.FEW_CURRENTS)) is compiled
    assert loops_for(torch.zeros(stepping.FEW_CURRENTS + 1)) is None
    assert loops_for(torch.zeros(4, 4).t()) is None


@pytest.mark.parametrize("rows", [1, 8, 9, 32, 33])
@torch.no_grad()
def test_linear_gives_the_products_of_the_layer(rows):
    layer, x = torch.nn.Linear(5, 7).double(), torch.randn(rows, 5).double()
    torch.testing.assert_close(linear(layer, x), layer(x), rtol=0, atol=1e-14)


@torch.no_grad()
def test_layers_that_are_watched_are_called(make_prior):
    prior, seen = make_prior(), []
    for layer in (prior.blocks[0].fc, prior.blocks[1].qkv_lif):
        layer.register_forward_hook(lambda *_: seen.append(1))
    one_by_one(prior, torch.randint(7, (2, 2)), None, "state")
    assert len(seen) == 2 * 3


@pytest.mark.parametrize(
    "neuron", [LIF(tau=3.0), LIF(reset="soft"), LIF(decay_input=False), LIF(fire_at_threshold=True)]
)
@torch.no_grad()
def test_other_neurons_run_themselves(make_prior, neuron):
    prior, tokens = make_prior().double(), torch.randint(7, (2, 5))
    for block in prior.blocks:
        block.fc_lif = neuron
    torch.testing.assert_close(one_by_one(prior, tokens, None, "state"), prior(tokens), rtol=0, atol=1e-10)
