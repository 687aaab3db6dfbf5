from dataclasses import replace
from itertools import chain

import lightning.pytorch as pl
import pytest
import torch

import tcvq_data.datamodule
from tcvq_data import ArtifactError, Codes, CodesDataModule, ImageDataModule, Sample, open_dataset
from tcvq_data.batches import TensorBatches, epoch_flips, epoch_order


def ids(loader, epoch):
    loader.sampler.set_epoch(epoch)
    return [batch[0].flatten().tolist() for batch in loader]


def numbered(n, batch_size, **kwargs):
    return TensorBatches(Sample, torch.arange(n).view(n, 1, 1, 1), torch.arange(n), batch_size, **kwargs)


def test_an_epoch_visits_each_sample_at_most_once_in_full_batches():
    batches = ids(numbered(10, 3, seed=0), epoch=0)
    assert [len(batch) for batch in batches] == [3, 3, 3]
    assert len(set(chain(*batches))) == 9
    assert len(numbered(10, 3, seed=0)) == 3


def test_a_pass_in_order_visits_every_sample_once():
    assert ids(numbered(5, 2), epoch=7) == [[0, 1], [2, 3], [4]]
    assert len(numbered(5, 2)) == 3


def test_image_and_label_stay_together():
    for batch in numbered(20, 4, seed=1):
        assert torch.equal(batch.image.flatten(), batch.label)


def test_the_order_depends_on_seed_and_epoch_and_on_nothing_else():
    loader = numbered(50, 10, seed=3)
    first, second = ids(loader, 0), ids(loader, 1)
    torch.manual_seed(99)
    assert ids(numbered(50, 10, seed=3), 1) == second
    assert ids(loader, 0) == first
    assert first != second
    assert ids(numbered(50, 10, seed=4), 0) != first
    assert list(chain(*first)) == epoch_order(50, seed=3, epoch=0).tolist()
    assert list(chain(*ids(numbered(50, 25, seed=3), 0))) == list(chain(*first))


def test_mirroring_is_a_coin_per_sample_and_epoch_that_leaves_the_data_alone():
    data = torch.tensor([0.0, 1.0]).expand(1000, 1, 1, 2).clone()
    loader = TensorBatches(Sample, data, torch.arange(1000), 100, seed=5, hflip=True)
    mirrored = torch.zeros(1000, dtype=torch.bool)
    for batch in loader:
        mirrored[batch.label] = batch.image[:, 0, 0, 0] == 1
    assert torch.equal(mirrored, epoch_flips(1000, seed=5, epoch=0))
    assert 400 < mirrored.sum() < 600
    assert not torch.equal(mirrored, epoch_flips(1000, seed=5, epoch=1))
    assert data[:, 0, 0, 0].sum() == 0


@pytest.mark.parametrize(
    ("kwargs", "match"),
    [
        ({"batch_size": 0}, "batch_size=0 must be between 1 and the number of samples, 5"),
        ({"batch_size": 6, "seed": 0}, "batch_size=6 must be between 1 and the number of samples, 5"),
        ({"batch_size": 2, "hflip": True}, "hflip=True needs a seed"),
        ({"batch_size": 2, "seed": -1}, "seed=-1 must not be negative"),
    ],
)
def test_a_loader_that_cannot_work_is_refused(kwargs, match):
    with pytest.raises(ValueError, match=match):
        numbered(5, **kwargs)


def test_the_image_module_gives_train_and_test_images():
    module = ImageDataModule("fashion-mini", 32, seed=0, limit=100)
    batch = next(iter(module.train_dataloader()))
    assert isinstance(batch, Sample)
    assert batch.image.shape == (32, 1, 28, 28)
    assert batch.label.shape == (32,)
    test = open_dataset("fashion-mini", "test")
    assert torch.equal(torch.cat([b.image for b in module.val_dataloader()]), test.images[:100])
    assert module.classes == test.classes
    assert module.image_shape == (1, 28, 28)


def test_a_source_without_whole_tensors_is_stacked(monkeypatch):
    class OneByOne:
        classes = ("a",)

        def __len__(self):
            return 4

        def __getitem__(self, index):
            return Sample(torch.full((1, 2, 2), float(index) / 4), torch.tensor(0))

    monkeypatch.setattr(tcvq_data.datamodule, "open_dataset", lambda name, split, limit: OneByOne())
    batches = list(ImageDataModule("x", 3, seed=0).val_dataloader())
    assert torch.cat([b.image for b in batches])[:, 0, 0, 0].tolist() == [0, 0.25, 0.5, 0.75]
    assert [b.label.shape for b in batches] == [(3,), (1,)]


def codes(n):
    return Codes(
        indices=torch.arange(n).view(n, 1, 1).expand(n, 2, 2),
        labels=torch.zeros(n, dtype=torch.int64),
        n_embed=100,
        classes=("a",),
        vqvae_sha256="aa",
        dataset="x",
        split="train",
    )


def test_the_codes_module_gives_grids_and_labels():
    module = CodesDataModule(codes(10), codes(5), 4, seed=0)
    indices, labels = next(iter(module.train_dataloader()))
    assert indices[:, 0, 0].tolist() == epoch_order(10, seed=0, epoch=0)[:4].tolist()
    assert indices.shape == (4, 2, 2)
    assert labels.shape == (4,)
    assert torch.equal(torch.cat([b.indices for b in module.val_dataloader()]), codes(5).indices)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"vqvae_sha256": "bb"}, "vqvae_sha256=aa, validation codes bb"),
        ({"n_embed": 101}, "n_embed=100, validation codes 101"),
        ({"classes": ("b",)}, "classes="),
        ({"indices": torch.zeros(5, 2, 3, dtype=torch.int64)}, r"grids of \(2, 2\), validation codes of \(2, 3\)"),
    ],
)
def test_codes_of_different_origin_are_refused(change, match):
    with pytest.raises(ArtifactError, match=match):
        CodesDataModule(codes(10), replace(codes(5), **change), 4, seed=0)


class Recorder(pl.LightningModule):
    """Trains nothing and notes which samples it was given."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.seen: list[list[int]] = []

    def training_step(self, batch, batch_idx):
        self.seen.append(batch.indices[:, 0, 0].tolist())
        return self.weight.sum()

    def validation_step(self, batch, batch_idx):
        pass

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


# Lightning 2.6 builds its tree specs in a way that torch 2.15 deprecates.
@pytest.mark.filterwarnings("ignore:.*LeafSpec.*is deprecated:FutureWarning")
def test_lightning_runs_through_a_new_shuffle_in_each_epoch():
    model = Recorder()
    trainer = pl.Trainer(
        accelerator="cpu",
        max_steps=5,
        max_epochs=-1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(model, datamodule=CodesDataModule(codes(10), codes(5), 5, seed=2))
    expected = [epoch_order(10, seed=2, epoch=epoch).view(2, 5).tolist() for epoch in range(3)]
    assert model.seen == list(chain(*expected))[:5]
