"""Every recipe of the paper trains both stages on data in their true format, all but its widths as it stands."""

import json

import pytest

from tcvq_data.testing import (
    write_celeba,
    write_celeba_hq,
    write_cifar10,
    write_dvs_cifar10,
    write_lsun_bedroom,
    write_lsun_church,
    write_mnist,
    write_nmnist_set,
)
from tcvq_runner.layers import builtin_recipes

DATA = {
    "celeba": write_celeba,
    "bedroom": write_lsun_bedroom,
    "mnist": write_mnist,
    "fashion-mnist": lambda root: write_mnist(root, "FashionMNIST"),
    "cifar10": write_cifar10,
    "nmnist": write_nmnist_set,
    "dvs-cifar10": write_dvs_cifar10,
    "celeba-hq": write_celeba_hq,
    "church": write_lsun_church,
}
OTHERS = {
    "debug",
    "debug-events",
    "fashion-mini",
    "fashion-mini-events",
    "paper",
    "paper-events",
}  # run elsewhere, or bases
NARROW = (
    "vqvae.width=8",
    "vqvae.z_channels=16",
    "vqvae.embed_dim=8",
    "vqvae.n_embed=16",
    "loss.disc_width=8",
    "prior.n_layer=2",
    "prior.n_head=2",
    "prior.width=32",
)
SHORT = (
    *("stage1.max_steps=2", "stage1.batch_size=2", "stage2.max_steps=2", "stage2.batch_size=2", "eval.batch_size=2"),
    *(
        "loss.disc_start=1",
        "loss.perceptual_weight=0",
        "data.limit=4",
        "data.workers=0",
    ),  # the weights of VGG16 are not here
)


def test_no_recipe_is_left_out():
    assert set(DATA) | OTHERS == set(builtin_recipes())


@pytest.mark.parametrize("name", list(DATA))
def test_a_recipe_of_the_paper_trains_both_stages(name, tmp_path, tcvq):
    DATA[name](tmp_path / "data")
    run, one = tmp_path / "run", ("--threads", "1")
    settings = (f"data.root={tmp_path / 'data'}", *NARROW, *SHORT)
    for command in (
        ("train", "stage1", name, *settings, "--out", run, *one),
        ("encode", run, *one),
        ("train", "stage2", run, *one),
    ):
        status, _, errors = tcvq(*command)
        assert status == 0, errors
    steps = json.loads((run / "run.json").read_text())["steps"]
    assert set(steps) == {"stage1", "encode", "stage2"}
    rows = [line.split(",") for line in (run / "metrics.csv").read_text().splitlines()]
    assert {row[0] for row in rows if row[1] == "2"} == {"stage1", "stage2"}
