"""Fitting a Lightning module: the trainer's settings, its silence, and the watching of its numbers."""

import logging
import os
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.fabric.plugins.environments.torchelastic import TorchElasticEnvironment
from lightning.pytorch.strategies import DDPStrategy, FSDPStrategy, Strategy

from tcvq_runner.checkpointing import Keeper, SafeCheckpointIO
from tcvq_runner.checkpoints import Checkpoint, CheckpointStore
from tcvq_runner.curves import Curves
from tcvq_runner.distributed import on_first, process_rank
from tcvq_runner.failures import StopRequest
from tcvq_runner.profiling import ProfileSteps
from tcvq_runner.progress import Reporter, Task
from tcvq_runner.tracking import Log
from tcvq_runner.wiring import Compute

N_RECORDS = 200  # points per training curve
N_VALIDATIONS = 5


class Watcher(lightning.Callback):
    """Reports progress and records the curves while a module trains; what it has recorded is part of checkpoints."""

    def __init__(self, task: Task, curves: Curves, max_steps: int) -> None:
        self._task, self._curves, self._max_steps = task, curves, max_steps
        self._every = max(1, max_steps // N_RECORDS)
        self._seen = 0

    def on_train_batch_end(
        self, trainer: lightning.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Record at regular steps and at the last one; ``pl_module`` counts its batches itself."""
        step = pl_module.batches_seen
        if step == self._seen:
            return  # gradients are being accumulated
        self._seen = step
        if step % self._every and step < self._max_steps:
            self._task.update(step)
            return
        values = {k: float(v) for k, v in trainer.callback_metrics.items() if k.startswith("train/")}
        self._curves.add(step, dict(sorted(values.items())))  # their order depends on which was logged first
        self._task.update(step, values)

    def on_validation_end(self, trainer: lightning.Trainer, pl_module: Any) -> None:
        """Record the validation's averages."""
        values = {k: float(v) for k, v in trainer.callback_metrics.items() if k.startswith("val/")}
        self._curves.add(pl_module.batches_seen, dict(sorted(values.items())))
        self._task.update(pl_module.batches_seen, values)

    def state_dict(self) -> dict[str, Any]:
        """Return the curves so far."""
        return {"rows": list(self._curves.rows), "seen": self._seen}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on with these curves."""
        self._curves.rows[:] = [tuple(row) for row in state_dict["rows"]]
        self._seen = state_dict["seen"]


def fit(
    module: Any,
    train: Iterable[Any],
    validation: Iterable[Any] | None = None,
    *,
    stage: str,
    max_steps: int,
    metrics: Path,
    compute: Compute,
    reporter: Reporter,
    store: CheckpointStore,
    start: Checkpoint | None = None,
    stop: StopRequest | None = None,
    log: Log | None = None,
) -> float:
    """Train a Lightning module that counts ``batches_seen`` and stops by itself; leave it on the CPU.

    Args:
        module: The module.
        train: Training batches of one epoch.
        validation: Validation batches, if the module validates.
        stage: Name in progress and curves.
        max_steps: Batches after which the module stops.
        metrics: The ``metrics.csv`` to put the curves into.
        compute: What to compute with.
        reporter: Shows the progress.
        store: Where checkpoints are kept.
        start: The checkpoint to go on from.
        stop: Asked after every step whether a signal wants the training to stop.
        log: Is told of every value that goes into the curves.

    Returns:
        Seconds that were spent before ``start``.

    Raises:
        FloatingPointError: The loss became NaN or infinite.
        Interrupted: A signal arrived; the state is saved.
        OSError: A checkpoint cannot be written.
    """
    curves = Curves(stage=stage, listener=log)
    with reporter.task(stage, max_steps, "step", before=start.step if start else 0) as task, _quiet():
        keeper = Keeper(store, curves, metrics, stage=stage, max_steps=max_steps, start=start, stop=stop)
        batches_per_step = getattr(module.train_config, "accumulate", 1)
        callbacks: list[lightning.Callback] = [Watcher(task, curves, max_steps), keeper]
        if compute.profile and process_rank()[0] == 0:
            callbacks.append(ProfileSteps(metrics.parent / "profile", stage, max_steps))
        trainer = _trainer(compute, max_steps * batches_per_step, callbacks)
        try:
            trainer.fit(
                module,
                train_dataloaders=train,
                val_dataloaders=validation,
                ckpt_path=start.state if start else None,
                weights_only=True,
            )
        except (RuntimeError, MemoryError) as error:
            error.add_note(stage)  # advice against running out of memory depends on it
            raise
    module.cpu()
    on_first(lambda: curves.write(metrics))
    return keeper.seconds_before


def _trainer(compute: Compute, n_batches: int, callbacks: list[lightning.Callback]) -> lightning.Trainer:
    """Return a trainer without files, bars and limits of its own."""
    n_processes = process_rank()[1]
    n_devices = int(os.environ["LOCAL_WORLD_SIZE"]) if n_processes > 1 else 1
    trainer = lightning.Trainer(
        accelerator="gpu" if compute.device.type == "cuda" else "cpu",
        devices=n_devices,
        num_nodes=n_processes // n_devices,
        strategy=_strategy(compute) if n_processes > 1 else "auto",
        precision=compute.precision,
        max_steps=-1,
        max_epochs=-1,
        check_val_every_n_epoch=None,
        val_check_interval=max(1, n_batches // N_VALIDATIONS),
        num_sanity_val_steps=0,
        use_distributed_sampler=False,
        # Some CUDA kernels have no deterministic form; on the CPU all that we use do.
        deterministic="warn" if compute.device.type == "cuda" else True,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=callbacks,
        plugins=[SafeCheckpointIO(), *([TorchElasticEnvironment()] if n_processes > 1 else [])],
    )
    # Deterministic mode would also fill every new tensor with NaN, to expose reads of uninitialised memory: slow.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]  # set on the module
    return trainer


def _strategy(compute: Compute) -> Strategy:
    """Return how several processes train one model."""
    if compute.strategy == "fsdp":
        return FSDPStrategy(state_dict_type="full")
    return DDPStrategy()


@contextmanager
def _quiet() -> Iterator[None]:
    """Drop Lightning's remarks that do not concern a user of ours."""
    loggers = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric")]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings():
        for logger in loggers:
            logger.setLevel(logging.ERROR)  # hardware summary, tips
        # Lightning 2.6 asks torch's pytree the old way; nothing that a user could change.
        warnings.filterwarnings("ignore", r".*LeafSpec.* is deprecated")
        # What a module averages over the processes itself, Lightning would average again.
        warnings.filterwarnings("ignore", r".*sync_dist=True.* when logging on epoch level")
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)
