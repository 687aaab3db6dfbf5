"""From images to the report with the recipe `debug`: real data, real networks, every step."""

import json
import subprocess
import sys

import pytest
import torch

from tcvq_data import read_codes
from tcvq_runner.samples import read_samples

FILES = {
    "codes_test",
    "codes_train",
    "config.yaml",
    "env.json",
    "metrics.csv",
    "prior.safetensors",
    "reconstructions.png",
    "report.html",
    "report.json",
    "run.json",
    "run.log",
    "samples.png",
    "samples.safetensors",
    "tensorboard",
    "vqvae.safetensors",
}
MADE = ("codes_test/*", "codes_train/*", "*.safetensors", "*.png", "*.csv")


def names(folder):
    return {path.name for path in folder.iterdir()}


def contents(folder):
    return {str(file.relative_to(folder)): file.read_bytes() for made in MADE for file in folder.glob(made)}


def test_a_run_leaves_these_files_and_no_others(finished):
    assert names(finished) == FILES


def test_the_same_recipe_and_seed_in_another_process_give_the_same_files(finished, tmp_path):
    command = [sys.executable, "-m", "tcvq_runner", "run", "debug", "--out", str(tmp_path / "again"), "--threads", "1"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    first, second = (read_samples(folder / "samples.safetensors") for folder in (finished, tmp_path / "again"))
    assert torch.equal(first.indices, second.indices)
    assert torch.equal(first.images, second.images)
    assert contents(finished) == contents(tmp_path / "again")
    assert done.stdout.splitlines() == [
        f"report:  {tmp_path / 'again' / 'report.html'}",
        f"samples: {tmp_path / 'again' / 'samples.png'}",
        f"next:    tcvq sample {tmp_path / 'again'} -n 64 --seed 1",
    ]
    titles = [line.partition(":")[0] for line in done.stderr.splitlines()]
    assert list(dict.fromkeys(titles)) == [
        "stage1",
        "encode",
        "stage2",
        "sample",
        "eval",
        "nearest",
    ]  # progress, and not a word of the libraries'


def test_each_step_alone_gives_what_the_whole_run_gives(finished, tmp_path, tcvq):
    run = tmp_path / "steps"
    assert tcvq("train", "stage1", "debug", "--out", run)[0] == 0
    for command in (["encode"], ["train", "stage2"], ["sample"], ["eval"]):
        status, out, _ = tcvq(*command, run)
        assert (status, bool(out)) == (0, True)
    assert names(run) == FILES
    assert contents(run) == contents(finished)


def test_another_seed_gives_another_network(finished, other_vqvae):
    assert other_vqvae.read_bytes() != (finished / "vqvae.safetensors").read_bytes()


def test_the_codes_are_those_of_the_named_vqvae_and_reconstruct_its_images(finished):
    codes = read_codes(finished / "codes_test")
    steps = json.loads((finished / "run.json").read_text("utf-8"))["steps"]
    assert codes.vqvae_sha256 == steps["stage1"]["vqvae"]
    assert codes.indices.shape == (200, 7, 7)


def test_the_report_tells_everything_that_was_promised(finished):
    report = json.loads((finished / "report.json").read_text("utf-8"))
    assert report["schema"] == "tcvq.report/1"
    assert list(report["timings"]) == ["stage1", "encode", "stage2", "sample", "eval"]
    metrics = report["metrics"]
    assert {"mse", "psnr", "ssim"} <= set(metrics["reconstruction"])
    assert 0 < metrics["codebook"]["used_fraction"] <= 1
    assert {"fd", "precision", "recall"} <= set(metrics["samples"]["fidelity"])
    assert metrics["samples_per_second"] > 0
    assert metrics["prior"]["test_bits_per_code"] == pytest.approx(5, abs=1)  # 32 codes, hardly trained
    page = (finished / "report.html").read_text("utf-8")
    assert page.count("data:image/") + page.count("<svg") >= 4
    assert "fd_fashion" in page


def test_a_fresh_draw_lands_beside_the_runs_own_and_follows_the_wishes(copied, tcvq):
    before = (copied / "samples.safetensors").read_bytes()
    status, out, _ = tcvq("sample", copied, "-n", 5, "--class", "bag", "--class", 3, "--top-k", 2, "--temperature", 0.5)
    assert status == 0
    (folder,) = copied.glob("samples-*")
    assert str(folder) in out
    samples = read_samples(folder / "samples.safetensors")
    assert samples.labels.tolist() == [8, 3, 8, 3, 8]
    assert samples.settings["top_k"] == 2
    assert (copied / "samples.safetensors").read_bytes() == before


def test_a_sample_is_decided_by_the_seed_and_its_number_alone(finished, tmp_path, tcvq):
    assert tcvq("sample", finished, "-n", 20, "--out", tmp_path / "few")[0] == 0
    few, many = read_samples(tmp_path / "few" / "samples.safetensors"), read_samples(finished / "samples.safetensors")
    assert torch.equal(few.indices, many.indices[:20])
    assert tcvq("sample", finished, "-n", 20, "--seed", 1, "--out", tmp_path / "other")[0] == 0
    assert not torch.equal(read_samples(tmp_path / "other" / "samples.safetensors").indices, few.indices)


def test_stage_2_can_be_repeated_with_other_settings_on_the_same_codes(copied, tcvq):
    assert tcvq("train", "stage2", copied, "stage2.max_steps=2", "prior.n_layer=2")[0] == 0
    assert "n_layer: 2" in (copied / "config.yaml").read_text("utf-8")
    status, _, err = tcvq("eval", copied)
    assert status == 2
    assert "was not made with" in err  # the samples are the former prior's
    assert tcvq("sample", copied)[0] == tcvq("eval", copied)[0] == 0


def test_a_prior_without_classes_and_with_code_features_runs_too(tmp_path, tcvq):
    settings = (
        "prior.n_classes=0",
        "prior.code_features=16",
        "sample.n=20",
        "stage1.max_steps=4",
        "stage2.max_steps=2",
    )
    assert tcvq("run", "debug", *settings, "--out", tmp_path / "run", "--precision", "32")[0] == 0
    assert set(read_samples(tmp_path / "run" / "samples.safetensors").labels.tolist()) == {-1}
    assert tcvq("sample", tmp_path / "run", "--class", "bag")[2].startswith("tcvq: --class bag: this prior was trained")


def test_lpips_of_reconstructions_stands_in_the_report_of_who_names_the_weights(copied, tmp_path, tcvq, monkeypatch):
    from tcvq_eval import file_sha256
    from tcvq_runner import distances

    class Twice(torch.nn.Module):
        """In place of LPIPS, which the package `lpips` brings: twice the mean absolute difference of a pair."""

        def __init__(self, path, sha256):
            super().__init__()

        def forward(self, x, x_hat):
            assert len(x) == 1
            return 2 * (x - x_hat).abs().mean()

    status, _, err = tcvq("eval", copied, "--lpips", tmp_path / "vgg16.pth")
    assert (status, err.count("\n")) == (2, 1)
    assert "tcvq weights download vgg16" in err
    (tmp_path / "vgg16.pth").write_bytes(b"other")
    monkeypatch.setattr(distances, "find_spec", lambda name: name)
    status, _, err = tcvq("eval", copied, "--lpips", tmp_path / "vgg16.pth")
    assert status == 2
    assert f"--lpips-sha256 {file_sha256(tmp_path / 'vgg16.pth')}" in err
    monkeypatch.setattr(distances, "Perceptual", Twice)
    named = ("--lpips-sha256", file_sha256(tmp_path / "vgg16.pth"))
    assert "give both" in tcvq("eval", copied, *named)[2]
    status, _, err = tcvq("eval", copied, "--lpips", tmp_path / "vgg16.pth", *named)
    assert status == 0, err
    found = json.loads((copied / "report.json").read_text("utf-8"))
    reconstruction = found["metrics"]["reconstruction"]
    assert reconstruction["lpips"] == pytest.approx(2 * reconstruction["l1"], rel=1e-3)
    assert "LPIPS" in [headline["label"] for headline in found["headlines"]]
