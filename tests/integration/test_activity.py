"""Spikes and operations of a run's networks: what was measured says which layers get spikes, whatever their names."""

from dataclasses import replace

import pytest

from tcvq_prior import build_prior, load_prior, save_prior
from tcvq_runner.activity import measure_activity
from tcvq_runner.run_dir import RunFolder
from tcvq_runner.wiring import open_compute


@pytest.fixture(scope="module")
def activity(finished):
    folder = RunFolder(finished)
    return measure_activity(folder, folder.recipe(), open_compute("cpu", "32", 1), limit=60)


def rows(energy):
    return {row.name: row for row in energy.rows}


def test_macs_of_a_convolution_are_those_of_one_image_and_one_step(activity):
    # 2 x 2 pixels folded into 4 channels, 14 x 14 sites, 8 channels out, 3 x 3 kernel
    assert rows(activity.reconstruct)["encoder.conv_in"].macs == 14 * 14 * 8 * 4 * 9


def test_the_image_is_analog_the_gate_graded_and_only_the_prior_s_mlp_gets_binary_spikes(activity):
    kinds = {name: row.input for name, row in rows(activity.reconstruct).items()}
    assert kinds["encoder.conv_in"] == "analog"
    assert kinds["encoder.mid.block1.conv1"] == kinds["decoder.conv_out"] == "graded"
    assert kinds["decoder.mid.attn.v"] == kinds["post_quant_conv"] == "analog"
    assert kinds["encoder.levels.0.resample.conv"] == "analog"  # its border of zeros is no sparsity
    assert "spikes" not in kinds.values()
    assert [name for name, row in rows(activity.generate).items() if row.input == "spikes"] == ["blocks.0.out"]


def test_a_constant_input_is_computed_once_and_everything_behind_a_neuron_at_every_step(activity):
    row, behind = (rows(activity.reconstruct)[name] for name in ("encoder.conv_in", "quant_conv"))
    assert row.graded == pytest.approx(row.macs * 4.6 / 1000)
    assert behind.graded == pytest.approx(2 * behind.macs * 4.6 / 1000)


def test_rates_have_one_value_per_step_of_codec_and_prior(activity):
    assert activity.rates["encoder.neuron_out"] == pytest.approx(activity.neurons["encoder.neuron_out"].rate_per_step)
    assert len(activity.rates["prior.blocks.0.fc_lif"]) == 2
    assert all(0 <= rate <= 1 for rates in activity.rates.values() for rate in rates)


def test_the_search_costs_sites_times_codes_times_steps_times_width(activity):
    assert rows(activity.reconstruct)["search of codes"].graded == pytest.approx(49 * 32 * 2 * 8 * 4.6 / 1000)


def test_generating_costs_the_prior_and_the_decoder(activity):
    generate, reconstruct = activity.generate, activity.reconstruct
    assert generate.part("decoder") == pytest.approx(reconstruct.part("decoder"), rel=0.05)
    assert generate.part("encoder") == (0, 0, 0)
    assert generate.graded == pytest.approx(generate.part("prior")[1] + generate.part("decoder")[1])


def test_a_stem_over_neighbours_counts_although_whole_grids_pass_it_as_a_table(copied):
    folder = RunFolder(copied)
    old = load_prior(folder.prior)
    prior = build_prior(replace(old.model.config, neighbourhood=1))
    save_prior(folder.prior, prior, codes_sha256=old.codes_sha256, vqvae_sha256=old.vqvae_sha256, meta={})
    found = measure_activity(folder, folder.recipe(), open_compute("cpu", "32", 1), limit=50)
    stem = rows(found.generate)["embedding.stem"]
    assert stem.macs == 49 * 4 * 32 * 32  # positions, neighbours that are known, width
    assert stem.density == (42 + 42 + 36 + 36) / (49 * 4)  # left, above, and the two corners, within the grid
    assert stem.graded == pytest.approx(stem.macs * 4.6 / 1000)


def test_attention_that_weighs_distances_works_pair_by_pair(copied):
    folder = RunFolder(copied)
    old = load_prior(folder.prior)
    prior = build_prior(replace(old.model.config, distance_weights=True))
    save_prior(folder.prior, prior, codes_sha256=old.codes_sha256, vqvae_sha256=old.vqvae_sha256, meta={})
    found = measure_activity(folder, folder.recipe(), open_compute("cpu", "32", 1), limit=50)
    pairs, steps, width, heads = 49 * 50 / 2, 2, 32, old.model.config.n_head
    rate = found.neurons["prior.blocks.0.qkv_lif"].rate
    row = rows(found.generate)["blocks.0: weighed pairs"]
    assert "blocks.0: state" not in rows(found.generate)
    assert row.ann == pytest.approx(2 * pairs * width * 4.6 / 1000)
    spiking = steps * pairs * (rate**2 * width * 0.1 + heads * 3.7 + rate * width * 0.9)
    assert row.graded == pytest.approx(spiking / 1000)
