"""Studies of a finished run: identities that hold by construction, files that a reader expects, and honest verdicts."""

import json
from dataclasses import replace

import pytest
import torch

from tcvq_data import read_codes
from tcvq_runner.run_dir import RunFolder
from tcvq_runner.samples import read_samples
from tcvq_runner.studies.comparisons import comparison
from tcvq_runner.studies.destruction import destroyed_images, modes
from tcvq_runner.studies.sweep import plan
from tcvq_runner.studies.tuning import tuned_decoder
from tcvq_runner.wiring import open_compute, open_split
from tcvq_vqvae import load_vqvae


def files(folder):
    return {path.name for path in folder.iterdir()}


@pytest.fixture(scope="module")
def decoded(finished):
    model = load_vqvae(finished / "vqvae.safetensors").model
    indices = read_samples(finished / "samples.safetensors").indices[:10]
    with torch.no_grad():
        plain = model.decode_indices(indices)
        return plain, {mode: destroyed_images(model, indices, mode) for mode in modes(model.config.n_steps)}


def test_none_is_plain_decoding_bit_for_bit(decoded):
    plain, found = decoded
    assert torch.equal(found["none"], plain)


def test_last_1_is_none_and_last_t_is_repeat(decoded):
    _, found = decoded
    assert list(found) == ["none", "reverse", "repeat", "empty", "last-1", "last-2"]
    assert torch.equal(found["last-1"], found["none"])
    assert torch.equal(found["last-2"], found["repeat"])


def test_destroying_time_changes_the_image(decoded):
    _, found = decoded
    assert all((found[mode] - found["none"]).abs().mean() > 1e-3 for mode in ("reverse", "repeat", "empty"))


def test_the_study_of_destruction_writes_table_figure_strip_and_a_paragraph(finished, tmp_path, tcvq):
    status, out, _ = tcvq(
        "study", "destruction", finished, "--out", tmp_path / "d", "--threads", "1", "--tune-steps", "4"
    )
    assert status == 0
    assert files(tmp_path / "d") == {
        "answer.txt",
        "destruction.png",
        "destruction.svg",
        "report.html",
        "report.json",
        "strip.png",
        "table.csv",
    }
    assert "last-1 is bit equal to none, last-2 is bit equal to repeat" in out
    assert "noise floor" in out
    metrics = json.loads((tmp_path / "d" / "report.json").read_text("utf-8"))["metrics"]["temporal"]
    assert metrics["generated"]["none"]["l1_to_none"] == 0
    assert metrics["generated"]["reverse"]["l1_to_none"] > 0
    assert metrics["test_codes"]["none"]["l1_to_original"] > 0
    assert "Control: after 4 more batches" in out


def test_the_control_of_destruction_is_the_same_in_pieces_of_a_batch(finished):
    folder = RunFolder(finished)
    recipe, model = folder.recipe(), load_vqvae(folder.vqvae).model.double()  # else a spike may differ by rounding
    codes, source = read_codes(folder.codes("train")).indices.long(), open_split(recipe, "train")
    tuned = [
        tuned_decoder(
            model,
            source,
            codes,
            "repeat",
            steps=2,
            recipe=replace(recipe, stage1=replace(recipe.stage1, accumulate=pieces)),
            compute=open_compute("cpu", "64", 1),
        )
        for pieces in (1, 4)
    ]
    whole, pieces, before = (net.decoder.conv_out.weight for net in (*tuned, model))
    torch.testing.assert_close(pieces, whole, rtol=1e-5, atol=1e-6)  # the loss is float32
    assert not torch.equal(whole, before)


def test_a_study_of_priors_takes_from_the_gpt_what_it_does_not_have():
    asked = comparison("spiking-prior", "debug", ["prior.distance_weights=true"])
    spiking, gpt = (recipe for _, recipe in plan("debug", ["prior.distance_weights=true"], asked.variants, 1))
    assert spiking.prior.distance_weights
    assert (gpt.prior.kind, gpt.prior.distance_weights) == ("gpt", False)


def test_the_study_of_time_cells_stands_beside_its_controls(finished, tmp_path, tcvq):
    status, out, _ = tcvq("study", "time-cells", finished, "--out", tmp_path / "t", "--threads", "1")
    assert status == 0
    assert {"time-cells.png", "time-cells.svg", "table.csv", "report.html"} <= files(tmp_path / "t")
    metrics = json.loads((tmp_path / "t" / "report.json").read_text("utf-8"))["metrics"]
    assert set(metrics) == {"trained", "random_weights"}
    assert sum(metrics["trained"]["peak_counts"]) > 0
    assert "random weights" in out
    assert "steps are permuted" in out


def test_a_study_of_something_that_is_no_run_is_one_line(tmp_path, tcvq):
    status, _, err = tcvq("study", "time-cells", tmp_path / "nowhere")
    assert (status, err.count("\n")) == (2, 1)


@pytest.fixture(scope="module")
def compared(tmp_path_factory):
    """Both codebooks trained by the study; its folder."""
    from tcvq_runner.cli import main

    out = tmp_path_factory.mktemp("study") / "tvv"
    few = ("stage1.max_steps=4", "stage1.unquantized_steps=2", "stage2.max_steps=2", "sample.n=40")
    assert main(["study", "temporal-vs-vanilla", "debug", *few, "--out", str(out), "--threads", "1"]) == 0
    return out


def test_temporal_and_vanilla_are_trained_on_the_same_budget_and_compared_with_a_noise_floor(compared):
    assert {"temporal-vs-vanilla.png", "temporal-vs-vanilla.svg", "samples.png", "table.csv"} <= files(compared)
    metrics = json.loads((compared / "report.json").read_text("utf-8"))["metrics"]
    (temporal,), (vanilla,) = metrics["temporal"], metrics["vanilla"]
    assert vanilla["tokens"] == 2 * temporal["tokens"] == 2 * 49
    assert temporal["fd_noise_floor"] == vanilla["fd_noise_floor"] > 0
    assert temporal["bits_per_image"] == pytest.approx(49 * temporal["bits_per_code"])
    answer = (compared / "answer.txt").read_text("utf-8")
    assert "noise floor" in answer
    assert "wins over" in answer or "does not win" in answer


def test_a_study_uses_finished_runs_again_and_other_settings_get_runs_of_their_own(compared, tcvq, monkeypatch):
    from tcvq_runner.studies import sweep

    before = files(compared / "runs")
    assert len(before) == 2
    monkeypatch.setattr(sweep, "STEPS", {})  # nothing may be trained
    few = ("stage1.max_steps=4", "stage1.unquantized_steps=2", "stage2.max_steps=2", "sample.n=40")
    status, _, err = tcvq("study", "temporal-vs-vanilla", "debug", *few, "--out", compared, "--threads", "1")
    assert status == 0, err
    assert files(compared / "runs") == before
    arms = sweep.plan("debug", few, [sweep.Variant(name="x", settings=("vqvae.n_embed=16",))], 2)
    assert [recipe.seed for _, recipe in arms] == [0, 1]
    assert len({sweep.recipe_hash(recipe) for _, recipe in arms}) == 2


def test_a_wrong_setting_stops_a_study_before_anything_is_trained(tmp_path, tcvq):
    status, _, err = tcvq("study", "codebook-size", "debug", "--values", "0", "--values", "8", "--out", tmp_path / "x")
    assert (status, err.count("\n")) == (2, 1)
    assert not (tmp_path / "x").exists()
