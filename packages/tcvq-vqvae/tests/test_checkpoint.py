"""A saved VQ-VAE comes back bit for bit, and a file that is not one is refused in one line."""

from dataclasses import asdict

import pytest
import torch

from tcvq_data import ArtifactError, read_artifact, write_artifact
from tcvq_vqvae import SpikingVQVAE, load_vqvae, save_vqvae
from tcvq_vqvae.checkpoint import SCHEMA


@pytest.fixture
def model(make_config):
    model = SpikingVQVAE(make_config(space_to_depth=2, attn_resolutions=(2,))).eval()
    model.codebook.initialize(torch.randn(2, 3, 4, 2, 2))
    return model


def test_saved_network_comes_back_bit_for_bit(model, tmp_path):
    path, x = tmp_path / "vqvae.safetensors", torch.rand(2, 1, 8, 8)
    sha256 = save_vqvae(path, model, meta={"dataset": "toy"})
    loaded = load_vqvae(path)
    assert loaded.sha256 == sha256
    assert loaded.meta["dataset"] == "toy"
    assert loaded.model.config == model.config
    assert not loaded.model.training
    assert loaded.model.codebook.initted
    assert torch.equal(loaded.model(x).x_hat, model(x).x_hat)


def test_same_network_gives_the_same_file(model, tmp_path):
    first, second = (save_vqvae(tmp_path / name, model) for name in ("a", "b"))
    assert first == second


def test_missing_file_is_named(tmp_path):
    with pytest.raises(ArtifactError, match="nowhere"):
        load_vqvae(tmp_path / "nowhere")


def test_damaged_file_is_refused(model, tmp_path):
    path = tmp_path / "vqvae.safetensors"
    save_vqvae(path, model)
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(ArtifactError, match="damaged"):
        load_vqvae(path)


def test_file_of_another_kind_is_refused(model, tmp_path):
    path = tmp_path / "prior.safetensors"
    write_artifact(path, model.state_dict(), schema="tcvq.prior/1", meta={"config": asdict(model.config)})
    with pytest.raises(ArtifactError, match=r"tcvq\.prior/1"):
        load_vqvae(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"colour": "red"}, "holds no VQVAEConfig that this version knows"),
        ({"width": "wide"}, "bad VQVAEConfig"),
        ({"image_size": 7}, "image_size is 7"),
        ({"width": 16}, "do not fit the stored configuration"),
    ],
)
def test_configuration_that_does_not_describe_the_weights_is_refused(model, tmp_path, change, message):
    path = tmp_path / "vqvae.safetensors"
    write_artifact(path, model.state_dict(), schema=SCHEMA, meta={"config": {**asdict(model.config), **change}})
    with pytest.raises(ArtifactError, match=message):
        load_vqvae(path)


def test_long_complaint_of_torch_is_told_in_one_line(model, tmp_path):
    path = tmp_path / "vqvae.safetensors"
    write_artifact(path, {}, schema=SCHEMA, meta={"config": asdict(model.config)})
    with pytest.raises(ArtifactError, match=r"^[^\n]*do not fit[^\n]*encoder\.conv_in\.weight[^\n]*$"):
        load_vqvae(path)


@pytest.mark.parametrize("config", [None, [1], "x"])
def test_header_without_a_configuration_is_refused(model, tmp_path, config):
    path = tmp_path / "vqvae.safetensors"
    write_artifact(path, model.state_dict(), schema=SCHEMA, meta={"config": config})
    with pytest.raises(ArtifactError, match="holds no VQVAEConfig"):
        load_vqvae(path)


@pytest.mark.parametrize("edit", [lambda t: t.pop("quant_conv.bias"), lambda t: t.update(extra=torch.zeros(1))])
def test_missing_and_extra_tensors_are_refused(model, tmp_path, edit):
    path = tmp_path / "vqvae.safetensors"
    save_vqvae(path, model)
    artifact = read_artifact(path, schema=SCHEMA)
    edit(artifact.tensors)
    write_artifact(path, artifact.tensors, schema=SCHEMA, meta=artifact.meta)
    with pytest.raises(ArtifactError, match=r"quant_conv\.bias|extra"):
        load_vqvae(path)
