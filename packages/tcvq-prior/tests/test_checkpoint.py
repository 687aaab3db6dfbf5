"""A saved prior comes back bit for bit with its origin, and a file that is not one is refused in one line."""

from dataclasses import asdict

import pytest
import torch

from tcvq_data import ArtifactError, write_artifact
from tcvq_prior import load_prior, save_prior
from tcvq_prior.checkpoint import SCHEMA

ORIGIN = {"codes_sha256": "c" * 64, "vqvae_sha256": "v" * 64}


@pytest.mark.parametrize("options", [{}, {"n_classes": 2, "neighbourhood": 1, "code_features": 3}])
def test_saved_prior_comes_back_bit_for_bit(make_prior, tmp_path, options):
    prior, path = make_prior(**options), tmp_path / "prior.safetensors"
    sha256 = save_prior(path, prior, **ORIGIN, meta={"note": "toy"})
    loaded = load_prior(path)
    assert (loaded.sha256, loaded.codes_sha256, loaded.vqvae_sha256) == (sha256, "c" * 64, "v" * 64)
    assert loaded.meta["note"] == "toy"
    assert loaded.model.config == prior.config
    assert not loaded.model.training
    labels = torch.tensor([0, 1]) if prior.n_classes else None
    tokens = torch.randint(7, (2, 5))
    assert torch.equal(loaded.model(tokens, labels), prior(tokens, labels))


def test_damaged_file_is_refused(make_prior, tmp_path):
    path = tmp_path / "prior.safetensors"
    save_prior(path, make_prior(), **ORIGIN)
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(ArtifactError, match="damaged"):
        load_prior(path)


def test_missing_file_is_named(tmp_path):
    with pytest.raises(ArtifactError, match="nowhere"):
        load_prior(tmp_path / "nowhere")


def test_file_of_another_kind_is_refused(make_prior, tmp_path):
    path, prior = tmp_path / "vqvae.safetensors", make_prior()
    write_artifact(path, prior.state_dict(), schema="tcvq.vqvae/1", meta={"config": asdict(prior.config)})
    with pytest.raises(ArtifactError, match=r"tcvq\.vqvae/1"):
        load_prior(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"colour": "red"}, "holds no PriorConfig that this version knows"),
        ({"grid": 4}, "bad PriorConfig"),
        ({"width": 9}, "width is 9"),
        ({"width": 16}, "do not fit the stored configuration"),
    ],
)
def test_configuration_that_does_not_describe_the_weights_is_refused(make_prior, tmp_path, change, message):
    path, prior = tmp_path / "prior.safetensors", make_prior()
    config = {**asdict(prior.config), **change}
    write_artifact(path, prior.state_dict(), schema=SCHEMA, meta={"config": config, **ORIGIN})
    with pytest.raises(ArtifactError, match=message):
        load_prior(path)


def test_file_of_interface_0_1_still_loads(make_prior, tmp_path):
    path, prior = tmp_path / "prior.safetensors", make_prior(n_classes=2, neighbourhood=1, code_features=3)
    known = "n_embed grid n_classes n_layer n_head width n_steps dropout neighbourhood class_everywhere code_features"
    config = {name: asdict(prior.config)[name] for name in (*known.split(), "init_gain")}
    write_artifact(path, prior.state_dict(), schema=SCHEMA, meta={"config": config, **ORIGIN})
    assert load_prior(path).model.config == prior.config
    tables = {name for name in prior.state_dict() if not name.startswith("blocks")}
    assert tables == {
        *("features", "table.weight", "table.from_features.weight", "head.weight", "head.from_features.weight"),
        *("embedding.start.weight", "embedding.position", "embedding.stem.weight", "ln_f.weight", "ln_f.bias"),
    }


@pytest.mark.parametrize(
    "options", [{"kind": "gpt", "tie_weights": True}, {"per_step": "independent", "n_code_steps": 2}]
)
def test_prior_of_every_kind_comes_back(make_prior, tmp_path, options):
    prior, path = make_prior(**options), tmp_path / "prior.safetensors"
    save_prior(path, prior, **ORIGIN)
    loaded = load_prior(path).model
    assert type(loaded) is type(prior)
    assert loaded.config == prior.config
    tokens = torch.randint(7, (2, prior.config.n_tokens - 1))
    assert torch.equal(loaded(tokens), prior(tokens))
