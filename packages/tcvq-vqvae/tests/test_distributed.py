"""Two processes, each with half of every batch, train the same networks as one process with all of it."""

import os
import socket
import subprocess
import sys
import warnings
from pathlib import Path

import lightning
import pytest
import torch

from tcvq_data import Sample
from tcvq_vqvae import LitVQVAE, LossConfig, Stage1Config, VQVAEConfig

pytestmark = pytest.mark.slow  # all of them together
STEPS, BATCH = 5, 4
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
    "codebook_init": "uniform",
}
EVENTS = {"in_channels": 2, "encoding": "event", "decoding": "event"}
CASES = {
    "batch norm, from step 2 on": ({}, {"disc_start": 2}, {}),
    "group norm, clipped, unquantized start": ({}, {"disc_norm": "group"}, {"grad_clip": 0.5, "unquantized_steps": 2}),
    "pieces, average of the weights": ({}, {}, {"accumulate": 2, "ema_decay": 0.5}),
    "clips of events": (EVENTS, {"disc_input": "clip", "disc_loss": "vanilla"}, {"accumulate": 2}),
}


class Pieces:
    """All pieces of all batches; of each, the part of this process."""

    def __init__(self, shape, accumulate, rank, ranks):
        images = torch.rand(STEPS * accumulate, BATCH // accumulate, *shape, generator=torch.Generator().manual_seed(1))
        self.pieces = [piece.chunk(ranks)[rank].double() * 2 - 1 for piece in images]

    def __len__(self):
        return len(self.pieces)

    def __iter__(self):
        return (Sample(x, torch.full((len(x),), -1)) for x in self.pieces)


def train(case, rank=0, ranks=1):
    """Return the state of all networks after the steps of a case."""
    sizes, loss, options = CASES[case]
    config = VQVAEConfig(**SIZES, **sizes)
    torch.manual_seed(0)
    module = LitVQVAE(
        config,
        LossConfig(**{"disc_start": 0, "disc_width": 8, "disc_layers": 1, **loss}),
        Stage1Config(max_steps=STEPS, batch_size=BATCH, learning_rate=2e-3, revive_every=0, **options),
    )
    module.model.codebook.assign(torch.randn(16, 2, 4) * 0.3)
    trainer = lightning.Trainer(
        accelerator="cpu",
        devices=ranks,
        strategy="ddp" if ranks > 1 else "auto",
        precision="64-true",
        max_epochs=-1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
    )
    shape = (2, 2, 8, 8) if config.encoding == "event" else (1, 8, 8)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer.fit(module, Pieces(shape, module.train_config.accumulate, rank, ranks))
    assert module.batches_seen == STEPS
    return module.state_dict()


def main(rank, folder):
    for number, case in enumerate(CASES):
        torch.save(train(case, rank, 2), folder / f"{number}-{rank}.pt")


@pytest.fixture(scope="module")
def two_processes(tmp_path_factory):
    """What both processes end with, by case."""
    folder = tmp_path_factory.mktemp("ranks")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": "2", "NODE_RANK": "0"}
    started = [
        subprocess.Popen(
            [sys.executable, __file__, str(rank), str(folder)],
            env={**os.environ, **address, "LOCAL_RANK": str(rank), "OMP_NUM_THREADS": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in (0, 1)
    ]
    try:
        for process in started:
            output, _ = process.communicate(timeout=900)
            assert process.returncode == 0, output
    finally:
        for process in started:
            process.kill()
    return {
        case: [torch.load(folder / f"{number}-{rank}.pt", weights_only=True) for rank in (0, 1)]
        for number, case in enumerate(CASES)
    }


@pytest.mark.parametrize("case", CASES)
def test_two_processes_equal_one_with_the_same_global_batch(case, two_processes):
    whole = train(case)
    first, second = two_processes[case]
    for name, tensor in whole.items():
        torch.testing.assert_close(first[name], tensor, rtol=0, atol=1e-8, msg=lambda m, name=name: f"{name}: {m}")
        torch.testing.assert_close(second[name], first[name], rtol=0, atol=0)


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]))
