"""Checkpoints in the format of the released code become artifacts through the command line, exactly and safely."""

import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from tcvq_prior import load_prior
from tcvq_runner.cli import main
from tcvq_vqvae import load_vqvae

GOLDEN = Path(__file__).parents[3] / "packages"
NETWORKS = ("encoder.", "decoder.", "quant", "post_quant_conv.")


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def stage1():
    return load_file(GOLDEN / "tcvq-vqvae/tests/golden/stage1.safetensors")


@pytest.fixture
def state(stage1):
    return {name: tensor.clone() for name, tensor in stage1.items() if name.startswith(NETWORKS)}


@pytest.fixture
def prior_state():
    golden = load_file(GOLDEN / "tcvq-prior/tests/golden/prior.safetensors")
    return {k.removeprefix("weights."): v.clone() for k, v in golden.items() if k.startswith("weights.")}


@pytest.mark.parametrize("suffix", [".ckpt", ".safetensors"])
def test_golden_checkpoint_reconstructs_the_golden_image(stage1, state, suffix, capsys):
    state["loss.discriminator.main.0.bias"] = torch.zeros(64)
    if suffix == ".ckpt":  # as Lightning writes it
        torch.save({"state_dict": state, "epoch": 3, "global_step": 7, "loops": {}}, "golden.ckpt")
    else:
        save_file(state, "golden.safetensors")
    assert main(["import-reference", f"golden{suffix}", "--image-size", "16", "--out", "imported"]) == 0
    assert capsys.readouterr().out == "wrote imported/vqvae.safetensors\n"
    model = load_vqvae(Path("imported/vqvae.safetensors")).model.double()
    with torch.no_grad():
        out = model(stage1["image"])
    assert torch.equal(out.quantized.indices, stage1["indices"])
    torch.testing.assert_close(out.x_hat, stage1["reconstruction"].view_as(out.x_hat), rtol=1e-9, atol=1e-10)


def test_checkpoint_of_stage_2_gives_the_prior_and_the_codec_it_belongs_to(state, prior_state):
    state["quantize.embedding.weight"] = torch.randn(len(prior_state["head.weight"]), 48)
    prior_state["pos_emb"] = torch.randn(1, 64, prior_state["pos_emb"].shape[2])
    stored = {f"first_stage_model.{k}": v for k, v in state.items()}
    stored |= {f"transformer.{k}": v for k, v in prior_state.items()}
    torch.save({"state_dict": stored}, "stage2.ckpt")
    assert main(["import-reference", "stage2.ckpt", "--image-size", "16", "--heads", "2"]) == 0
    vqvae, prior = load_vqvae(Path("stage2/vqvae.safetensors")), load_prior(Path("stage2/prior.safetensors"))
    assert prior.vqvae_sha256 == vqvae.sha256
    assert torch.equal(prior.model.head.weight, prior_state["head.weight"].float())


def refused(capsys, *arguments):
    assert main(["import-reference", *arguments]) == 2
    line = capsys.readouterr().err.strip()
    assert "\n" not in line
    assert not list(Path().glob("*/*.safetensors")), "something was written"
    return line


def test_unknown_and_missing_tensors_are_listed_in_one_line(state, capsys):
    state["encoder.extra.weight"] = torch.zeros(1)
    del state["decoder.norm_out.bias"], state["encoder.norm_out.bias"]
    torch.save({"state_dict": state}, "odd.ckpt")
    line = refused(capsys, "odd.ckpt", "--image-size", "16")
    for part in ("unknown encoder.extra.weight", "missing decoder.norm_out.bias", "missing encoder.norm_out.bias"):
        assert part in line


class Malice:
    """Writes a file when it is unpickled."""

    def __reduce__(self):
        return Path.touch, (Path("ran"),)


@pytest.mark.parametrize("protocol", ["torch", "pickle"])
def test_code_in_a_checkpoint_is_not_run(state, capsys, protocol):
    stored = {"state_dict": state, "hyper_parameters": Malice()}
    if protocol == "torch":
        torch.save(stored, "evil.ckpt")
    else:
        Path("evil.ckpt").write_bytes(pickle.dumps(stored))
    assert "would run code" in refused(capsys, "evil.ckpt", "--image-size", "16")
    assert not Path("ran").exists()
    torch.load("evil.ckpt", weights_only=False) if protocol == "torch" else pickle.loads(Path("evil.ckpt").read_bytes())
    assert Path("ran").exists(), "the test's own file is harmless"


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "no checkpoint that can be read"),
        (b"no file of torch", "evil.ckpt"),
        ({"state_dict": {"weight": torch.zeros(1)}}, "no checkpoint of the released code: missing quantize.embedding"),
        ({"epoch": 3}, "holds no state_dict"),
    ],
)
def test_file_of_something_else_is_refused(content, says, capsys):
    if isinstance(content, bytes):
        Path("evil.ckpt").write_bytes(content)
    else:
        torch.save(content, "evil.ckpt")
    assert says in refused(capsys, "evil.ckpt", "--image-size", "16")


def test_prior_of_another_codebook_is_refused(state, prior_state, capsys):
    prior_state["pos_emb"] = torch.randn(1, 64, prior_state["pos_emb"].shape[2])
    stored = {f"first_stage_model.{k}": v for k, v in state.items()}
    torch.save(stored | {f"transformer.{k}": v for k, v in prior_state.items()}, "stage2.ckpt")
    line = refused(capsys, "stage2.ckpt", "--image-size", "16", "--heads", "2")
    assert "codes but its VQ-VAE has 24" in line


def test_what_no_shape_shows_is_asked_for(state, prior_state, capsys):
    torch.save({"state_dict": state}, "codec.ckpt")
    assert "give it with --image-size" in refused(capsys, "codec.ckpt")
    torch.save({"state_dict": prior_state}, "prior.ckpt")
    assert "name the artifact of its VQ-VAE with --vqvae" in refused(capsys, "prior.ckpt")
