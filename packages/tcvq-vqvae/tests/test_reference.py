"""The importer of released checkpoints says everything that is wrong at once, and drops only what it has checked."""

import re
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tcvq_neurons import drop_neuron_constants
from tcvq_vqvae.reference import discriminator_from_reference, from_reference

GOLDEN = Path(__file__).parent / "golden" / "stage1.safetensors"


@pytest.fixture
def state():
    networks = ("encoder.", "decoder.", "quant", "post_quant_conv.")
    return {name: tensor for name, tensor in load_file(GOLDEN).items() if name.startswith(networks)}


def test_unknown_missing_and_misshapen_tensors_are_listed_in_one_error(state):
    state["encoder.down.0.block.0.temb_proj.weight"] = torch.zeros(1)
    del state["decoder.norm_out.bias"]
    state["decoder.conv_out.bias"] = torch.zeros(3)
    with pytest.raises(ValueError, match="does not fit a SpikingVQVAE") as caught:
        from_reference(state, image_size=16)
    message = str(caught.value)
    assert "unknown encoder.down.0.block.0.temb_proj.weight" in message
    assert "missing decoder.norm_out.bias" in message
    assert "decoder.conv_out.bias is (3,) where (1,) fits" in message


def test_checkpoint_of_something_else_is_refused_by_what_it_lacks():
    with pytest.raises(ValueError, match=re.escape("missing encoder.conv_in.weight, encoder.conv_out.weight, quant")):
        from_reference({"weight": torch.zeros(1)}, image_size=16)


@pytest.mark.parametrize(("name", "value"), [("encoder.lif1.threshold", 1.0), ("encoder.lif1.act_fun.alpha", 4.0)])
def test_neuron_with_other_constants_is_refused(state, name, value):
    state[name] = torch.tensor(value)
    with pytest.raises(ValueError, match=f"{re.escape(name)} is {value}, not"):
        from_reference(state, image_size=16)


def test_only_neuron_constants_are_dropped(state):
    kept = drop_neuron_constants(state)
    dropped = state.keys() - kept.keys()
    assert len(dropped) == 84  # 42 neurons, two constants each
    assert all(name.endswith((".threshold", ".act_fun.alpha")) for name in dropped)


def test_codec_is_found_inside_a_checkpoint_of_stage_2_and_its_loss_networks_are_left_out(state):
    stored = {f"first_stage_model.{name}": tensor for name, tensor in state.items()}
    stored["first_stage_model.loss.discriminator.main.0.bias"] = torch.zeros(64)
    stored["first_stage_model.loss.perceptual_loss.lin0.model.1.weight"] = torch.zeros(1)
    stored["transformer.pos_emb"] = torch.zeros(1)
    model = from_reference(stored, image_size=16, prefix="first_stage_model.")
    assert torch.equal(model.quant_conv.weight, state["quant_conv.weight"])


def test_codebook_rows_are_split_time_major(state):
    rows = state["quantize.embedding.weight"]
    model = from_reference(state, image_size=16)
    assert torch.equal(model.codebook.codebook[5, 1], rows[5, 16:32])
    assert model.codebook.initted


def test_codebook_row_that_is_no_whole_number_of_steps_is_refused(state):
    state["quantize.embedding.weight"] = torch.zeros(24, 50)
    with pytest.raises(ValueError, match="rows of 50, not a multiple of quant_conv's 16"):
        from_reference(state, image_size=16)


def test_transposed_upsampling_is_recognised_by_its_kernel(state):
    state["decoder.up.1.upsample.conv.weight"] = torch.zeros(64, 64, 4, 4)
    assert from_reference(state, image_size=16).config.upsample == "transpose"


def test_attention_sides_follow_the_image_size(state):
    assert from_reference(state, image_size=32).config.attn_resolutions == (16,)


def test_event_checkpoint_becomes_an_event_network(state):
    config = from_reference(state, image_size=16, encoding="event").config
    assert (config.encoding, config.decoding) == ("event", "event")


@pytest.mark.parametrize("n_layers", [1, 2, 3])
def test_discriminator_depth_is_read_off_its_names(n_layers):
    from tcvq_vqvae import PatchDiscriminator

    original = PatchDiscriminator(2, 4, n_layers)
    stored = {name.replace("layers", "loss.discriminator.main"): t for name, t in original.state_dict().items()}
    imported = discriminator_from_reference(stored)
    assert imported.state_dict().keys() == original.state_dict().keys()
    assert torch.equal(imported.layers[-1].weight, original.layers[-1].weight)


def test_discriminator_with_a_missing_tensor_is_refused():
    stored = {name: tensor for name, tensor in load_file(GOLDEN).items() if name != "discriminator.main.3.running_mean"}
    with pytest.raises(ValueError, match=r"missing layers\.3\.running_mean"):
        discriminator_from_reference(stored, prefix="discriminator.")
