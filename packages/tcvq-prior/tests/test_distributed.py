"""Two processes, each with half of every batch, learn what one process learns."""

import os
import socket
import subprocess
import sys
import warnings
from pathlib import Path

import lightning
import pytest
import torch
from lightning.pytorch.strategies import DDPStrategy

from tcvq_prior import LitPrior, PriorConfig, Stage2Config

STEPS, BATCH = 5, 8
OPTIONS = {"pkeep": 0.8, "class_dropout": 0.3, "label_smoothing": 0.1, "ema_decay": 0.5, "accumulate": 2}
CASES = {"muon": {"optimizer": "muon", **OPTIONS}, "adamw": {"grad_checkpoint": True}}


def batches(world_size, rank, accumulate):
    """One rank's part of every micro-batch."""
    generator = torch.Generator().manual_seed(5)
    grids = torch.randint(7, (STEPS * accumulate, BATCH // accumulate, 2, 3), generator=generator)
    mine = grids.chunk(world_size, dim=1)[rank]
    return [(x, x[:, 0, 0] % 2) for x in mine]


class Loader:
    def __init__(self, items):
        self.items = items

    def __len__(self):
        return len(self.items)

    def __iter__(self):
        return iter(self.items)


class Curve(lightning.Callback):
    def __init__(self):
        self.bits = []

    def on_train_batch_end(self, trainer, *_):
        self.bits.append(trainer.callback_metrics["train/bits"].item())


def train(world_size, rank, options):
    """Train, and return weights, the curve of every micro-batch, and the validation."""
    torch.manual_seed(1 + 100 * rank)  # the first rank's weights and seed are everybody's
    config = PriorConfig(
        n_embed=7, grid=(2, 3), n_classes=2, null_class=True, n_layer=2, n_head=2, width=8, init_gain=2.0
    )
    train = Stage2Config(max_steps=STEPS, batch_size=BATCH, learning_rate=1e-2, **options)
    module, curve = LitPrior(config, train), Curve()
    alone = {"strategy": "auto", "devices": 1}
    two = {"strategy": DDPStrategy(process_group_backend="gloo"), "devices": world_size}
    trainer = lightning.Trainer(
        accelerator="cpu",
        precision="64-true",
        max_epochs=-1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,
        callbacks=[curve],
        **(two if world_size > 1 else alone),
    )
    rows = slice(5) if world_size == 1 else [slice(3), slice(3, 5)][rank]  # ranks validate on 3 and 2 grids
    held_out = tuple(x[rows] for x in batches(1, 0, 1)[0])
    trainer.fit(module, Loader(batches(world_size, rank, train.accumulate)), Loader([held_out]))
    return module.state_dict(), curve.bits, {k: v.item() for k, v in trainer.callback_metrics.items() if "val" in k}


def main(folder):
    """What each of the two processes does."""
    warnings.simplefilter("ignore")
    rank = int(os.environ["RANK"])
    torch.save({name: train(2, rank, options) for name, options in CASES.items()}, folder / f"{rank}.pt")


@pytest.fixture(scope="module")
def two_processes(tmp_path_factory):
    """What the two ranks found."""
    folder = tmp_path_factory.mktemp("ranks")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    common = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
    common |= {"GROUP_RANK": "0", "TORCHELASTIC_RUN_ID": "test", "OMP_NUM_THREADS": "1"}
    ranks = [
        subprocess.Popen(
            [sys.executable, __file__, str(folder)],
            env={**os.environ, **common, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    for rank in ranks:
        error = rank.communicate(timeout=240)[1]
        assert rank.returncode == 0, error
    return [torch.load(folder / f"{rank}.pt") for rank in range(2)]


@pytest.mark.filterwarnings("ignore:.*LeafSpec.*is deprecated:FutureWarning")
@pytest.mark.filterwarnings("ignore:.*does not have many workers")
@pytest.mark.parametrize("case", list(CASES))
def test_two_processes_equal_one_process_with_the_same_batch(two_processes, case):
    options = CASES[case]
    n = options.get("accumulate", 1)
    state, curve, validation = train(1, 0, options)
    for found in two_processes:
        other_state, other_curve, other_validation = found[case]
        assert state.keys() == other_state.keys()
        for name, tensor in state.items():
            torch.testing.assert_close(other_state[name], tensor, rtol=0, atol=1e-8, msg=name)
        assert len(other_curve) == len(curve) == STEPS * n
        assert other_curve == pytest.approx(curve, abs=1e-8)
        assert other_validation == pytest.approx(validation, abs=1e-8)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
