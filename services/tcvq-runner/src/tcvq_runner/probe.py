"""A few training steps on random data, measured: run as a process of its own, so that what it takes can be told.

``python -m tcvq_runner.probe`` reads one JSON object from stdin (recipe, stage, batch, device, precision, threads) and
prints one: seconds per step, and the most memory that was held.
"""

import dataclasses
import json
import resource
import statistics
import sys
import time
import warnings
from typing import Any

import lightning
import torch
from torch.utils.data import DataLoader

from tcvq_data import Sample
from tcvq_prior import LitPrior
from tcvq_runner.config import Recipe
from tcvq_runner.recipe import adapter
from tcvq_runner.wiring import Compute, open_compute
from tcvq_vqvae import LitVQVAE

STEPS = 3  # after one that warms up


class _Clock(lightning.Callback):
    """Times every batch."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self._began = 0.0

    def on_train_batch_start(self, trainer: lightning.Trainer, pl_module: Any, batch: Any, batch_idx: int) -> None:
        self._began = time.perf_counter()

    def on_train_batch_end(
        self, trainer: lightning.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if pl_module.device.type == "cuda":
            torch.cuda.synchronize()
        self.seconds.append(time.perf_counter() - self._began)


def probe(recipe: Recipe, stage: str, batch: int, compute: Compute) -> dict[str, float]:
    """Return seconds per step and peak bytes of training a stage with this many images at once.

    Args:
        recipe: What is trained; the discriminator from the first step on, LPIPS left out.
        stage: ``stage1`` or ``stage2``.
        batch: Images per step.
        compute: What to compute with.
    """
    module, batches = (_stage1 if stage == "stage1" else _stage2)(recipe, batch)
    clock = _Clock()
    trainer = lightning.Trainer(
        accelerator="gpu" if compute.device.type == "cuda" else "cpu",
        devices=1,
        precision=compute.precision,
        max_steps=-1,
        max_epochs=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[clock],
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Lightning misses a validation
        trainer.fit(module, train_dataloaders=DataLoader(batches, batch_size=None, collate_fn=_as_it_is))  # type: ignore[arg-type]  # a list does
    peak = torch.cuda.max_memory_allocated() if compute.device.type == "cuda" else _resident()
    return {"seconds": statistics.median(clock.seconds[1:]), "bytes": float(peak)}


def _as_it_is(batch: Any) -> Any:
    return batch


def _stage1(recipe: Recipe, batch: int) -> tuple[Any, list[Sample]]:
    config = recipe.vqvae
    steps = (config.n_steps,) if config.encoding == "event" else ()
    shape = (batch, *steps, config.in_channels, config.image_size, config.image_size)
    images = [Sample(torch.rand(shape) * 2 - 1, torch.zeros(batch, dtype=torch.long)) for _ in range(STEPS + 1)]
    loss = dataclasses.replace(recipe.loss, disc_start=0, perceptual_weight=0.0, perceptual_weights=None)
    return LitVQVAE(config, loss, _shortened(recipe.stage1, batch, unquantized_steps=0)), images


def _stage2(recipe: Recipe, batch: int) -> tuple[Any, list[tuple[torch.Tensor, torch.Tensor]]]:
    config = recipe.prior
    grids = (STEPS + 1, batch, *config.grid)
    indices, labels = torch.randint(config.n_embed, grids), torch.randint(max(config.n_classes, 1), grids[:2])
    features = torch.randn(config.n_embed, config.code_features) if config.code_features else None
    return LitPrior(config, _shortened(recipe.stage2, batch), features), list(zip(indices, labels, strict=True))


def _shortened(config: Any, batch: int, **changes: Any) -> Any:
    """Return the configuration of a stage for a few steps with ``batch`` images."""
    return dataclasses.replace(
        config,
        max_steps=STEPS + 1,
        max_epochs=None,
        batch_size=batch,
        learning_rate=1e-6,
        base_lr=None,
        accumulate=1,
        warmup_steps=0,
        **changes,
    )


def _resident() -> int:
    """Return the most bytes of memory that this process has held."""
    scale = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * scale


def main() -> None:
    """Read what to measure from stdin and print what was found; errors in one line, status 2."""
    asked = json.load(sys.stdin)
    recipe = adapter(Recipe).validate_json(json.dumps(asked["recipe"]), strict=True)
    compute = open_compute(asked["device"], asked["precision"], asked["threads"])
    try:
        found = probe(recipe, asked["stage"], asked["batch"], compute)
    except (RuntimeError, ValueError, MemoryError) as error:
        sys.exit(str(error).partition("\n")[0] or type(error).__name__)
    sys.stdout.write(json.dumps(found) + "\n")


if __name__ == "__main__":
    main()
