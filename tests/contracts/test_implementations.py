"""Every conformance kit is passed by every implementation that we ship."""

from functools import partial

import pytest
import torch

from tcvq_codebook import (
    FactorisedCodebook,
    MultiHeadCodebook,
    ResidualCodebook,
    TemporalCodebook,
    save_codebook,
)
from tcvq_codebook.testing import check_quantizer
from tcvq_data import open_dataset, read_artifact
from tcvq_data.testing import check_image_source
from tcvq_eval import FashionFeatures
from tcvq_eval.testing import check_feature_extractor
from tcvq_neurons import LIF, LIFGate
from tcvq_neurons.testing import check_neuron
from tcvq_prior import PriorConfig, build_prior
from tcvq_prior.testing import check_prior
from tcvq_vqvae import SpikingVQVAE, VQVAEConfig
from tcvq_vqvae.testing import check_tokenizer

VQVAE = {"image_size": 8, "n_steps": 2, "width": 8, "channel_mult": (1, 2), "n_res_blocks": 1, "attn_resolutions": (4,)}
VQVAE |= {"z_channels": 8, "n_embed": 16, "embed_dim": 4, "codebook_init": "uniform"}
PRIOR = {"n_embed": 12, "grid": (2, 3), "n_layer": 1, "n_head": 2, "width": 16}


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


@pytest.mark.parametrize("neuron", [LIF, LIFGate])
@pytest.mark.parametrize("options", [{}, {"reset": "soft"}, {"tau": 1.5, "decay_input": False}], ids=str)
@pytest.mark.parametrize("backend", ["auto", "reference", "torch"])
def test_a_neuron_keeps_its_contract(neuron, options, backend):
    check_neuron(neuron(**options, backend=backend))


@pytest.mark.parametrize("init", ["uniform", "data", "kmeans"])
def test_the_temporal_codebook_keeps_the_contract_of_a_quantizer(init):
    z = torch.randn(3, 4, 5, 2, 2)
    codebook = TemporalCodebook(8, 5, 3, init=init)
    codebook.initialize(z)
    check_quantizer(codebook, z)


PROJECTED = {"nearest_entry": False, "identity_gradient": False}


@pytest.mark.parametrize(
    ("codebook", "promises"),
    [
        (partial(TemporalCodebook, update="ema"), {}),
        (partial(TemporalCodebook, similarity="cosine"), PROJECTED),
        (partial(TemporalCodebook, estimator="rotation"), {"identity_gradient": False}),
        (partial(FactorisedCodebook, lookup_dim=4), PROJECTED),
        (partial(ResidualCodebook, n_levels=2), {"n_indices": 2}),
        (partial(MultiHeadCodebook, n_heads=3), {"n_indices": 3}),
    ],
    ids=["ema", "cosine", "rotation", "factorised", "residual", "multi-head"],
)
def test_every_other_codebook_keeps_its_part_of_that_contract(codebook, promises):
    z = torch.randn(3, 4, 6, 2, 2)
    quantizer = codebook(8, 6, 3)
    quantizer.initialize(z)
    check_quantizer(quantizer.eval(), z, **promises)


def test_a_codebook_file_is_an_artifact_like_every_other(tmp_path):
    codebook = TemporalCodebook(8, 5, 3)
    sha256 = save_codebook(tmp_path / "codebook.safetensors", codebook)
    loaded = read_artifact(tmp_path / "codebook.safetensors", schema="tcvq.codebook/1")
    assert loaded.sha256 == sha256
    assert torch.equal(loaded.tensors["codebook"], codebook.codebook)


@pytest.mark.parametrize("split", ["train", "test"])
def test_the_embedded_data_set_keeps_the_contract_of_an_image_source(split):
    check_image_source(open_dataset("fashion-mini", split))


def test_the_shipped_classifier_keeps_the_contract_of_a_feature_extractor():
    source = open_dataset("fashion-mini", "test")
    check_feature_extractor(FashionFeatures(), torch.stack([source[i].image for i in range(5)]))


@pytest.mark.parametrize(
    "extra",
    [{}, {"space_to_depth": 2, "attn_resolutions": (2,)}, {"upsample": "nearest"}, {"codebook": "vanilla"}],
    ids=str,
)
def test_the_vqvae_keeps_the_contract_of_a_tokenizer_of_images(extra):
    check_tokenizer(SpikingVQVAE(VQVAEConfig(**VQVAE | extra)).eval(), torch.rand(3, 1, 8, 8) * 2 - 1)


def test_the_vqvae_keeps_the_contract_of_a_tokenizer_of_events():
    config = VQVAEConfig(**VQVAE | {"in_channels": 2, "encoding": "event", "decoding": "event"})
    check_tokenizer(SpikingVQVAE(config).eval(), torch.rand(2, 3, 2, 8, 8).round())


@pytest.mark.parametrize(
    "extra",
    [{}, {"n_classes": 3, "null_class": True}, {"n_classes": 3, "neighbourhood": 1, "class_everywhere": True}],
    ids=str,
)
@pytest.mark.parametrize("kind", ["spiking", "gpt"])
def test_the_prior_keeps_the_contract_of_a_code_prior(extra, kind):
    check_prior(build_prior(PriorConfig(**PRIOR | extra, kind=kind)).eval())
