"""A network small enough to train in a test, and a trainer that writes nothing."""

import warnings

import lightning
import pytest
import torch

from tcvq_data import Sample
from tcvq_vqvae import VQVAEConfig

SIZES = {
    "image_size": 8,
    "n_steps": 2,
    "width": 8,
    "channel_mult": (1, 2),
    "n_res_blocks": 1,
    "attn_resolutions": (4,),
    "z_channels": 8,
    "n_embed": 16,
    "embed_dim": 4,
}


class Batches:
    """The given batches, in this order."""

    def __init__(self, images):
        self.images = images

    def __len__(self):
        return len(self.images)

    def __iter__(self):
        return (Sample(x, torch.full((len(x),), -1)) for x in self.images)


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


@pytest.fixture
def make_config():
    """Builds a configuration of 8 px images and 4x4 grids; keywords replace its sizes."""

    def make(**changes):
        return VQVAEConfig(**{**SIZES, **changes})

    return make


@pytest.fixture
def fit():
    """Trains a module on batches of images, again and again until it stops by itself."""

    def run(module, *images, validation=None, ckpt_path=None, **options):
        trainer = lightning.Trainer(
            accelerator="cpu",
            max_epochs=-1,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            log_every_n_steps=1,
            **options,
        )
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "You defined a `validation_step` but have no `val_dataloader`")
            trainer.fit(
                module,
                Batches(images),
                None if validation is None else Batches([validation]),
                ckpt_path=ckpt_path,
                weights_only=True if ckpt_path else None,
            )
        return trainer

    return run
