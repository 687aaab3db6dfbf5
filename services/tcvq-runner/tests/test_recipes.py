"""The recipes of the paper say what its table and its released configurations say."""

import json

import pytest

from tcvq_runner.cli import main
from tcvq_runner.parameters import REFERENCE, parameter_counts
from tcvq_runner.recipe import load_recipe

TABLE = {  # README of the paper, "Configuration for Experiments": batch, epochs, T, start of the discriminator
    "celeba": (64, 100, 4, "30001 steps"),
    "bedroom": (32, 30, 6, "30001 steps"),
    "mnist": (128, 100, 4, "10 epochs"),
    "fashion-mnist": (128, 100, 4, "10 epochs"),
    "cifar10": (128, 200, 4, "50 epochs"),
    "nmnist": (64, 100, 4, "5 epochs"),
    "dvs-cifar10": (64, 200, 4, "50 epochs"),
}
STAGE2 = {"celeba": (64, 6.4e-5), "bedroom": (32, 8e-5), "nmnist": (128, 1.28e-4)}  # batch over 2 devices, rate
PAPER = [*TABLE, "celeba-hq", "church"]


@pytest.mark.parametrize("name", list(TABLE))
def test_a_recipe_has_the_numbers_of_its_column_in_the_papers_table(name):
    recipe = load_recipe(name)
    stage1, loss = recipe.stage1, recipe.loss
    assert (stage1.batch_size, stage1.max_epochs, recipe.vqvae.n_steps, loss.disc_start) == TABLE[name]
    assert (recipe.vqvae.embed_dim, recipe.vqvae.n_res_blocks, loss.disc_weight) == (256, 2, 0.8)
    assert (stage1.betas, stage1.base_lr, recipe.seed) == ((0.5, 0.9), 4.5e-6, 42)
    assert stage1.lr == pytest.approx(4.5e-6 * stage1.batch_size)


@pytest.mark.parametrize("name", PAPER)
def test_what_the_released_configurations_add_is_the_same_everywhere(name):
    recipe = load_recipe(name)
    prior, vqvae = recipe.prior, recipe.vqvae
    assert (prior.n_layer, prior.n_head, prior.width, prior.n_steps, prior.n_classes) == (24, 16, 1024, 2, 0)
    assert (vqvae.n_embed, vqvae.beta, vqvae.channel_mult) == (1024, 0.25, (1, 1, 2, 2, 4))
    assert prior.grid == (vqvae.image_size // 16,) * 2
    assert vqvae.attn_resolutions == (vqvae.image_size // 16,)
    assert (recipe.stage2.optimizer, recipe.stage2.betas, recipe.stage2.weight_decay) == ("adamw", (0.9, 0.95), 0.01)
    events = recipe.data.name in ("nmnist", "dvs-cifar10")
    assert (vqvae.encoding == vqvae.decoding == "event") == events == (recipe.loss.perceptual_weight == 0)


@pytest.mark.parametrize("name", list(STAGE2))
def test_the_prior_learns_at_the_rate_of_the_released_configuration(name):
    stage2 = load_recipe(name).stage2
    assert (stage2.batch_size, stage2.peak_learning_rate, stage2.max_epochs) == (
        STAGE2[name][0],
        pytest.approx(STAGE2[name][1]),
        100,
    )


def test_the_networks_of_celeba_are_as_large_as_those_of_the_released_code():
    as_released = load_recipe("celeba", ["vqvae.upsample=nearest"])
    counts = parameter_counts(as_released)
    positions = (512 - 16) * 1024  # the released prior has a table of 512, whatever the length of the sequence
    assert round((counts.pop("prior") + positions) / 1e6, 1) == REFERENCE["prior"] / 1e6
    assert {part: round(count / 1e6, 2) for part, count in counts.items()} == {
        part: REFERENCE[part] / 1e6 for part in counts
    }
    transposed = parameter_counts(load_recipe("celeba"))["decoder"]
    channels = (512, 256, 256, 128)  # of the four enlargements: 4 x 4 weights instead of 3 x 3
    assert transposed - counts["decoder"] == sum(7 * c * c for c in channels)


def test_the_command_prints_the_counts_of_every_recipe_beside_the_references(capsys):
    assert main(["recipes", "--parameters", "--json"]) == 0
    listed = {each["name"]: each["parameters"] for each in json.loads(capsys.readouterr().out)["recipes"]}
    assert set(PAPER) <= set(listed)
    assert listed["bedroom"] == parameter_counts(load_recipe("bedroom"))
