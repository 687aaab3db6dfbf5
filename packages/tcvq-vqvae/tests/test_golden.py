"""The networks and losses reproduce the public reference implementation's numbers, in float64, gradients included."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file

from tcvq_neurons import LAUNCHES, fuses_norm, set_default_backend
from tcvq_vqvae import VQVAEConfig, adaptive_weight, generator_loss, hinge_discriminator_loss
from tcvq_vqvae.blocks import ResBlock, SpikeAttention
from tcvq_vqvae.decoder import Decoder
from tcvq_vqvae.encoder import Encoder
from tcvq_vqvae.reference import (
    block_state,
    decoder_state,
    discriminator_from_reference,
    encoder_state,
    from_reference,
)

GOLDEN = Path(__file__).parent / "golden"
CONFIG = VQVAEConfig(
    image_size=16,
    n_steps=3,
    width=32,
    channel_mult=(1, 2),
    n_res_blocks=1,
    attn_resolutions=(8,),
    z_channels=32,
    n_embed=24,
    embed_dim=16,
    upsample="nearest",
)


@pytest.fixture(autouse=True, params=["auto", "torch"])
def backend(request):
    """Every number both ways: group norm and neuron in one compiled pass where numba is installed, and one by one."""
    before, previous = LAUNCHES["numba.norm_forward"], set_default_backend(request.param)
    yield request.param
    fused = fuses_norm("auto")
    set_default_backend(previous)
    if not fused:
        assert LAUNCHES["numba.norm_forward"] == before


def test_default_path_is_the_compiled_one_where_numba_is_installed(backend):
    before = LAUNCHES["numba.norm_forward"]
    ResBlock(32, 64)(torch.zeros(2, 1, 32, 4, 4))
    assert LAUNCHES["numba.norm_forward"] - before == (2 if fuses_norm("auto") else 0)


def below(tensors, prefix):
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def assert_golden(actual, expected):
    torch.testing.assert_close(actual, expected.reshape(actual.shape), rtol=1e-9, atol=1e-10)


def test_blocks_reproduce_the_reference():
    golden = load_file(GOLDEN / "blocks.safetensors")
    resnet, attention = ResBlock(32, 64), SpikeAttention(64)
    resnet.load_state_dict(block_state(below(golden, "resnet.")))
    attention.load_state_dict(block_state(below(golden, "attn.")))
    x = golden["x"].requires_grad_()
    resnet_out = resnet.double()(x)
    attn_out = attention.double()(resnet_out)
    (attn_out * golden["grad_out"]).sum().backward()
    assert_golden(resnet_out, golden["resnet_out"])
    assert_golden(attn_out, golden["attn_out"])
    assert_golden(x.grad, golden["grad_x"])


@pytest.mark.parametrize(
    ("name", "network", "rename", "given", "result"),
    [("encoder", Encoder, encoder_state, "x", "h"), ("decoder", Decoder, decoder_state, "z", "y")],
)
def test_encoder_and_decoder_reproduce_the_reference(name, network, rename, given, result):
    golden = load_file(GOLDEN / f"{name}.safetensors")
    net = network(CONFIG)
    net.load_state_dict(rename(below(golden, "weights.")))
    net.double()
    x = golden[given].requires_grad_()
    y = net(x)
    (y * golden["grad_out"]).sum().backward()
    assert_golden(y, golden[result])
    assert_golden(x.grad, golden[f"grad_{given}"])
    assert_golden(net.conv_in.weight.grad, golden["grad_conv_in"])
    assert_golden(net.conv_out.weight.grad, golden["grad_conv_out"])


@pytest.fixture(scope="module")
def stage1():
    return load_file(GOLDEN / "stage1.safetensors")


def weights_of(stage1):
    networks = ("encoder.", "decoder.", "quant", "post_quant_conv.")
    return {name: tensor for name, tensor in stage1.items() if name.startswith(networks)}


def test_importer_reads_every_size_off_the_checkpoint(stage1):
    config = from_reference(weights_of(stage1), image_size=16).config
    for field in (
        "n_steps",
        "width",
        "channel_mult",
        "n_res_blocks",
        "attn_resolutions",
        "z_channels",
        "n_embed",
        "embed_dim",
        "in_channels",
        "upsample",
    ):
        assert getattr(config, field) == getattr(CONFIG, field), field
    assert config.legacy_beta


def test_stage1_reproduces_indices_reconstruction_and_codebook_loss(stage1):
    model = from_reference(weights_of(stage1), image_size=16).double()
    out = model(stage1["image"])
    assert torch.equal(out.quantized.indices, stage1["indices"])
    assert_golden(out.quantized.z_q, stage1["z_q"])
    assert_golden(out.x_hat, stage1["reconstruction"])
    assert_golden(out.quantized.loss, stage1["codebook_loss"])


def test_stage1_reproduces_the_objectives_before_and_after_the_discriminator_starts(stage1):
    model = from_reference(weights_of(stage1), image_size=16).double()
    discriminator = discriminator_from_reference(stage1, prefix="discriminator.").double()
    x = stage1["image"]
    out = model(x)
    l1 = F.l1_loss(out.x_hat, x)
    assert_golden(l1 + out.quantized.loss, stage1["ae_loss_epoch0"])
    generator = generator_loss(discriminator(out.x_hat))
    weight = 0.8 * adaptive_weight(l1, generator, model.decoder.conv_out.weight)
    assert_golden(generator, stage1["g_loss_epoch5"])
    assert_golden(weight, stage1["d_weight_epoch5"])
    assert_golden(l1 + out.quantized.loss + weight * generator, stage1["ae_loss_epoch5"])
    x_hat = out.x_hat.detach()
    assert_golden(hinge_discriminator_loss(discriminator(x), discriminator(x_hat)), stage1["disc_loss_epoch5"])
