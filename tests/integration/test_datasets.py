"""Every dataset in its true format on disk trains the VQ-VAE for a few steps through the command line."""

import json

import pytest

from tcvq_data import dataset_names
from tcvq_data.testing import (
    write_celeba,
    write_celeba_hq,
    write_celeba_hq_parquet,
    write_cifar10,
    write_dvs_cifar10,
    write_image_folder,
    write_lsun_bedroom,
    write_lsun_church,
    write_mnist,
    write_nmnist_set,
    write_npz_images,
    write_parquet_images,
)

GREY = ("vqvae.in_channels=1", "vqvae.image_size=32", "vqvae.attn_resolutions=[8]")
COLOUR = ("vqvae.in_channels=3", "vqvae.image_size=32", "vqvae.attn_resolutions=[8]")
CELEBA = ("vqvae.in_channels=3", "vqvae.image_size=64", "vqvae.attn_resolutions=[16]")
EVENTS = (
    "vqvae.in_channels=2",
    "vqvae.image_size=32",
    "vqvae.attn_resolutions=[8]",
    "vqvae.encoding=event",
    "vqvae.decoding=event",
)
UNLABELLED = ("prior.n_classes=0",)


def nothing(root):
    """The data come with the package."""


DATASETS = {
    "mnist": (write_mnist, GREY),
    "fashion-mnist": (lambda root: write_mnist(root, "FashionMNIST"), GREY),
    "cifar10": (write_cifar10, COLOUR),
    "celeba64": (write_celeba, CELEBA + UNLABELLED),
    "celeba-hq": (write_celeba_hq, COLOUR + UNLABELLED),
    "lsun-bedroom-20": (write_lsun_bedroom, COLOUR + UNLABELLED),
    "lsun-church": (write_lsun_church, COLOUR + UNLABELLED),
    "nmnist": (write_nmnist_set, EVENTS),
    "dvs-cifar10": (write_dvs_cifar10, EVENTS),
    "fashion-mini": (nothing, ()),
    "fashion-mini-events": (nothing, (*EVENTS, "data.limit=20")),
}
OWN = {
    "image-folder:{root}/images": (lambda root: write_image_folder(root / "images"), COLOUR + UNLABELLED),
    "npz:{root}/images.npz": (lambda root: write_npz_images(root / "images.npz"), COLOUR + UNLABELLED),
    "hf:{root}/shards": (lambda root: write_parquet_images(root / "shards"), COLOUR + UNLABELLED),
    "celeba-hq": (write_celeba_hq_parquet, COLOUR + UNLABELLED),
}


def test_no_dataset_is_left_out():
    assert set(DATASETS) == set(dataset_names())


@pytest.mark.parametrize(
    ("name", "write", "settings"),
    [(name, *rest) for name, rest in [*DATASETS.items(), *OWN.items()]],
    ids=[*DATASETS, *(f"{name.partition('{')[0]}own" for name in OWN)],
)
def test_a_dataset_trains_the_vqvae(name, write, settings, tmp_path, tcvq):
    write(tmp_path)
    name = name.format(root=tmp_path)
    small = ("stage1.max_steps=5", "stage1.batch_size=4", "stage2.batch_size=4", "data.workers=0")
    command = ["train", "stage1", "debug", f"data.name={name}", f"data.root={tmp_path}", *small, *settings]
    status, _, errors = tcvq(*command, "--out", tmp_path / "run", "--threads", "1")
    assert status == 0, errors
    steps = json.loads((tmp_path / "run" / "run.json").read_text())
    assert "stage1" in json.dumps(steps)
    losses = [line for line in (tmp_path / "run" / "metrics.csv").read_text().splitlines() if "train/loss" in line]
    assert len(losses) == 5
    assert (tmp_path / "run" / "vqvae.safetensors").stat().st_size > 0
