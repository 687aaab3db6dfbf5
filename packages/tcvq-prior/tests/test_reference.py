"""The importer of released priors says everything that is wrong at once, and drops only what it has checked."""

import re
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tcvq_neurons import drop_neuron_constants
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
