from dataclasses import replace
from itertools import chain

import lightning.pytorch as pl
import pytest
import torch

import tcvq_data.datamodule
from tcvq_data import ArtifactError, Codes, CodesDataModule, DataOptions, ImageDataModule, Sample, open_dataset
from tcvq_data.batches import Batches, EpochSampler, ImageItems, epoch_flips, epoch_order


def ids(loader, epoch):
    loader.sampler.set_epoch(epoch)
    return [batch.label.tolist() for batch in loader]


class Numbered:
    """Images of two pixels that hold the sample's number n: n and n + 1/2."""

    classes = ()

    def __init__(self, n):
        self.labels = torch.arange(n)

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, index):
        return Sample(torch.tensor([index, index + 0.5]).view(1, 1, 2), self.labels[index])


def numbered(n, batch_size, *, seed=None, workers=0, **kwargs):
    return Batches(ImageItems(Numbered(n)), EpochSampler(n, batch_size, seed=seed, **kwargs), workers=workers)


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
        assert torch.equal(batch.image[:, 0, 0, 0].long(), batch.label)


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


def test_mirroring_is_a_coin_per_sample_and_epoch():
    loader = numbered(1000, 100, seed=5, hflip=True)
    mirrored = torch.zeros(1000, dtype=torch.bool)
    for batch in loader:
        mirrored[batch.label] = batch.image[:, 0, 0, 0] > batch.label
        assert torch.equal(batch.image.amin((1, 2, 3)).long(), batch.label)
    assert torch.equal(mirrored, epoch_flips(1000, seed=5, epoch=0))
    assert 400 < mirrored.sum() < 600
    assert not torch.equal(mirrored, epoch_flips(1000, seed=5, epoch=1))


def test_workers_change_no_batch():
    kwargs = {"seed": 1, "hflip": True}
    alone, helped = (list(numbered(20, 3, workers=workers, **kwargs)) for workers in (0, 2))
    assert len(alone) == len(helped) == 6
    assert all(
        torch.equal(a.image, b.image) and torch.equal(a.label, b.label) for a, b in zip(alone, helped, strict=True)
    )


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("taken", [0, 1, 4])
def test_a_loader_goes_on_in_the_middle_of_an_epoch(taken, workers):
    whole = numbered(20, 3, seed=7, workers=workers)
    whole.sampler.set_epoch(2)
    batches = iter(whole)
    for _ in range(taken):
        next(batches)
    state = whole.state_dict()
    resumed = numbered(20, 3, seed=7, workers=workers)
    resumed.load_state_dict(state)
    assert resumed.sampler.epoch == 2
    rest = [batch.label.tolist() for batch in resumed]
    assert rest == [batch.label.tolist() for batch in batches]
    assert len(rest) == 6 - taken
    assert ids(resumed, 3) == ids(numbered(20, 3, seed=7), 3)


def test_the_end_of_an_epoch_is_the_beginning_of_the_next():
    loader = numbered(20, 3, seed=7)
    loader.sampler.set_epoch(2)
    list(loader)
    resumed = numbered(20, 3, seed=7)
    resumed.load_state_dict(loader.state_dict())
    assert resumed.sampler.epoch == 3
    assert [batch.label.tolist() for batch in resumed] == ids(numbered(20, 3, seed=7), 3)
    loader.sampler.set_epoch(5)
    assert loader.state_dict()["epoch"] == 5


def test_two_ranks_side_by_side_are_one_rank_with_twice_the_batch():
    both = [ids(numbered(23, 3, seed=1, rank=rank, world_size=2), 4) for rank in (0, 1)]
    assert [a + b for a, b in zip(*both, strict=True)] == ids(numbered(23, 6, seed=1), 4)


def test_ranks_share_out_a_pass_in_order_without_repeats():
    shares = [ids(numbered(7, 2, rank=rank, world_size=3), 0) for rank in range(3)]
    assert shares == [[[0, 3], [6]], [[1, 4]], [[2, 5]]]
    assert [len(numbered(7, 2, rank=rank, world_size=3)) for rank in range(3)] == [2, 1, 1]


@pytest.mark.parametrize(
    ("kwargs", "match"),
    [
        ({"batch_size": 0}, "batch_size=0 must be between 1 and the number of samples, 5"),
        ({"batch_size": 6, "seed": 0}, "batch_size=6 must be between 1 and the number of samples, 5"),
        ({"batch_size": 2, "hflip": True}, "hflip=True needs a seed"),
        ({"batch_size": 2, "seed": -1}, "seed=-1 must not be negative"),
        ({"batch_size": 3, "seed": 0, "world_size": 2}, "number of samples, 2, 5 on 2 ranks"),
    ],
)
def test_a_loader_that_cannot_work_is_refused(kwargs, match):
    with pytest.raises(ValueError, match=match):
        numbered(5, **kwargs)


def test_the_image_module_gives_train_and_test_images():
    module = ImageDataModule("fashion-mini", 32, seed=0, options=DataOptions(limit=100))
    batch = next(iter(module.train_dataloader()))
    assert isinstance(batch, Sample)
    assert batch.image.shape == (32, 1, 28, 28)
    assert batch.label.shape == (32,)
    test = open_dataset("fashion-mini", "test")
    assert torch.equal(torch.cat([b.image for b in module.val_dataloader()]), test.images[:100])
    assert module.classes == test.classes
    assert module.image_shape == (1, 28, 28)


def test_a_module_mirrors_as_the_paper_does_unless_told(monkeypatch):
    monkeypatch.setattr(tcvq_data.datamodule, "open_dataset", lambda name, split, options: Numbered(10))
    flips = [
        ImageDataModule(name, 2, seed=0, hflip=hflip).train_dataloader().sampler.hflip
        for name in ("celeba64", "cifar10")
        for hflip in (None, True, False)
    ]
    assert flips == [True, True, False, False, True, False]


def test_only_sources_that_decode_one_by_one_get_workers(monkeypatch):
    monkeypatch.setattr(tcvq_data.datamodule, "open_dataset", lambda name, split, options: Numbered(10))
    assert ImageDataModule("x", 2, seed=0).train_dataloader().num_workers >= 1
    assert ImageDataModule("x", 2, seed=0, workers=0).train_dataloader().num_workers == 0
    monkeypatch.setattr(tcvq_data.datamodule, "open_dataset", open_dataset)
    assert ImageDataModule("fashion-mini", 2, seed=0).train_dataloader().num_workers == 0


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
    """Trains nothing, notes which samples it was given, and saves each step's checkpoint into a folder."""

    def __init__(self, folder=None):
        super().__init__()
        self.folder = folder
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.seen: list[list[int]] = []

    def training_step(self, batch, batch_idx):
        self.seen.append(batch.indices[:, 0, 0].tolist())
        return self.weight.sum()

    def on_train_batch_end(self, outputs, batch, batch_idx):
        if self.folder:
            self.trainer.save_checkpoint(self.folder / f"{len(self.seen)}.ckpt")

    def validation_step(self, batch, batch_idx):
        pass

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def fit(model, *, ckpt_path=None, batch_size=5, steps=12):
    trainer = pl.Trainer(
        accelerator="cpu",
        max_steps=steps,
        max_epochs=-1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    data = CodesDataModule(codes(10), codes(5), batch_size, seed=2)
    trainer.fit(model, datamodule=data, ckpt_path=ckpt_path, weights_only=False)
    return model.seen


# Lightning 2.6 builds its tree specs in a way that torch 2.15 deprecates.
@pytest.mark.filterwarnings("ignore:.*LeafSpec.*is deprecated:FutureWarning")
def test_lightning_runs_through_a_new_shuffle_in_each_epoch():
    expected = [epoch_order(10, seed=2, epoch=epoch).view(2, 5).tolist() for epoch in range(3)]
    assert fit(Recorder(), steps=5) == list(chain(*expected))[:5]


@pytest.mark.filterwarnings("ignore:.*LeafSpec.*is deprecated:FutureWarning")
def test_lightning_goes_on_in_the_middle_of_an_epoch(tmp_path):
    seen = fit(Recorder(tmp_path), batch_size=2)
    for step in (1, 3, 5, 6):
        rest = fit(Recorder(), ckpt_path=tmp_path / f"{step}.ckpt", batch_size=2)
        assert rest == seen[step:], f"resumed after {step} of 5 batches per epoch"
