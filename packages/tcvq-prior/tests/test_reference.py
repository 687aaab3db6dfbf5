"""The importer of released priors says everything that is wrong at once, and drops only what it has checked."""

import re
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tcvq_neurons import drop_neuron_constants
from tcvq_prior import GPTPrior
from tcvq_prior.reference import from_reference

SIZES = {"n_head": 4, "n_steps": 2, "grid": (4, 6)}


@pytest.fixture
def state():
    golden = load_file(Path(__file__).parent / "golden" / "prior.safetensors")
    return {name.removeprefix("weights."): t for name, t in golden.items() if name.startswith("weights.")}


def test_unknown_and_missing_tensors_are_listed_in_one_error(state):
    state["sos_emb"] = torch.zeros(1)
    del state["blocks.1.attn.key.0.bias"], state["pos_emb"]
    with pytest.raises(ValueError, match=r"unknown sos_emb; missing blocks\.1\.attn\.key\.0\.bias; missing pos_emb$"):
        from_reference(state, **SIZES)


def test_checkpoint_of_something_else_is_refused_by_what_it_lacks():
    with pytest.raises(ValueError, match=r"unknown weight; missing blocks\.0\.attn\.key\.0\.bias"):
        from_reference({"weight": torch.zeros(1)}, **SIZES)


def test_grid_with_more_cells_than_positions_is_refused(state):
    with pytest.raises(ValueError, match=r"pos_emb gives \(24, 64\) where \(25, 64\) fits"):
        from_reference(state, **{**SIZES, "grid": (5, 5)})


def test_position_table_longer_than_the_grid_is_cut(state):
    prior = from_reference(state, **{**SIZES, "grid": (2, 4)})
    assert torch.equal(prior.embedding.position, state["pos_emb"][0, :8])


@pytest.mark.parametrize("name", ["blocks.0.mlp.1.threshold", "blocks.1.attn.key.1.act_fun.alpha"])
def test_neuron_with_other_constants_is_refused(state, name):
    state[name] = torch.tensor(9.0)
    with pytest.raises(ValueError, match=f"{re.escape(name)} is 9.0, not"):
        from_reference(state, **SIZES)


def test_only_neuron_constants_and_masks_are_dropped(state):
    kept = drop_neuron_constants(state)
    assert len(state.keys() - kept.keys()) == 28  # 14 stored neurons, two constants each
    state["blocks.0.attn.mask"] = torch.ones(1, 1, 24, 24)
    from_reference(state, **SIZES)


def test_prior_is_found_inside_a_checkpoint_of_stage_2(state):
    stored = {f"transformer.{name}": tensor for name, tensor in state.items()}
    stored["first_stage_model.quant_conv.bias"] = torch.zeros(1)
    prior = from_reference(stored, **SIZES, prefix="transformer.")
    assert prior.config.n_layer == 2
    assert torch.equal(prior.head.weight, state["head.weight"])


def gelu_gpt(w, tokens, n_head):
    """The forward of karpathy/minGPT, written from its equations: softmax attention, GELU, norms before."""
    n, c = tokens.shape[1], w["tok_emb.weight"].shape[1]

    def norm(x, name):
        return torch.nn.functional.layer_norm(x, (c,), w[f"{name}.weight"], w[f"{name}.bias"])

    def linear(x, name):
        return x @ w[f"{name}.weight"].T + w[f"{name}.bias"]

    x = w["tok_emb.weight"][tokens] + w["pos_emb"][0, :n]
    for i in range(2):
        u = norm(x, f"blocks.{i}.ln1")
        q, k, v = (linear(u, f"blocks.{i}.attn.{p}").unflatten(-1, (n_head, -1)) for p in ("query", "key", "value"))
        score = torch.einsum("bnhd,bmhd->bhnm", q, k) / q.shape[-1] ** 0.5
        score = score.masked_fill(torch.ones(n, n, dtype=torch.bool).triu(1), -torch.inf)
        y = torch.einsum("bhnm,bmhd->bnhd", score.softmax(-1), v).flatten(2)
        x = x + linear(y, f"blocks.{i}.attn.proj")
        u = linear(norm(x, f"blocks.{i}.ln2"), f"blocks.{i}.mlp.0")
        x = x + linear(u * 0.5 * (1 + torch.erf(u / 2**0.5)), f"blocks.{i}.mlp.2")
    return norm(x, "ln_f") @ w["head.weight"].T


@pytest.fixture
def gpt_state(state):
    """Weights of the released minGPT: those of the spiking one in shape, without neurons and steps."""
    kept = drop_neuron_constants(state)
    renamed = {re.sub(r"attn\.(query|key|value)\.0", r"attn.\1", name): t.double() for name, t in kept.items()}
    return {name: (torch.randn_like(t.float()) * 0.3).double() for name, t in renamed.items()}


def test_weights_of_the_released_gpt_give_the_logits_of_its_equations(gpt_state):
    gpt_state["blocks.0.attn.mask"] = torch.ones(1, 1, 24, 24)
    prior = from_reference(gpt_state, n_head=4, grid=(4, 6), first_token_free=True).double()
    assert isinstance(prior, GPTPrior)
    tokens = torch.randint(prior.n_embed, (3, 24))
    expected = gelu_gpt(gpt_state, tokens, 4)
    torch.testing.assert_close(prior(tokens[:, 1:], tokens[:, 0]), expected, rtol=1e-9, atol=1e-10)
    begun = torch.cat([torch.zeros(3, 1, dtype=torch.long), tokens[:, 1:]], dim=1)
    plain = from_reference(gpt_state, n_head=4, grid=(4, 6)).double()
    torch.testing.assert_close(plain(tokens[:, 1:]), gelu_gpt(gpt_state, begun, 4), rtol=1e-9, atol=1e-10)


def test_unknown_and_missing_tensors_of_a_gpt_are_listed(gpt_state):
    gpt_state["blocks.1.attn.key.0.bias"] = gpt_state.pop("blocks.1.attn.key.bias")
    with pytest.raises(ValueError, match=r"unknown blocks\.1\.attn\.key\.0\.bias; missing blocks\.1\.attn\.key\.bias$"):
        from_reference(gpt_state, n_head=4, grid=(4, 6))


def test_steps_of_a_spiking_prior_must_be_given(state):
    with pytest.raises(ValueError, match="no tensor shows its steps; give n_steps"):
        from_reference(state, n_head=4, grid=(4, 6))
