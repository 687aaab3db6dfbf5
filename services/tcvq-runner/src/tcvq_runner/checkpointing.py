"""When training is saved and how it is taken up again: the Lightning side of checkpoints."""

import random
import shutil
import signal
import time
from pathlib import Path
from typing import Any

import lightning
import numpy as np
import torch
from lightning.pytorch.plugins.io import CheckpointIO

from tcvq_runner.checkpoints import STATE, Checkpoint, CheckpointStore, rank_file, read_state, write_state
from tcvq_runner.curves import Curves
from tcvq_runner.distributed import barrier, on_first
from tcvq_runner.failures import STOP_SIGNALS, Interrupted, StopRequest

SCORES = ("val/bits", "val/mse")  # of stage 2, of stage 1


class SafeCheckpointIO(CheckpointIO):
    """Reads and writes Lightning's checkpoints without ever running code from them."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """Write and flush a checkpoint."""
        write_state(Path(path), checkpoint)

    def load_checkpoint(self, path: Any, map_location: Any = None, weights_only: bool | None = None) -> dict[str, Any]:
        """Read a checkpoint, tensors and plain values only."""
        return read_state(Path(path))

    def remove_checkpoint(self, path: Any) -> None:
        """Do nothing: the store decides what is kept."""


class Keeper(lightning.Callback):
    """Saves the state of training when it is due, and before a signal ends the process.

    The moment is always the end of a step, after its validation if there is one: nothing is then in flight, and the
    step after it begins as if nothing had been between.
    """

    def __init__(
        self,
        store: CheckpointStore,
        curves: Curves,
        metrics: Path,
        *,
        stage: str,
        max_steps: int,
        start: Checkpoint | None,
        stop: StopRequest | None,
    ) -> None:
        self._store, self._curves, self._metrics = store, curves, metrics
        self._stage, self._max_steps, self._start = stage, max_steps, start
        self._stop = stop or StopRequest()
        self._saved_at = self._began_at = time.monotonic()
        self._saved_step = self._seen = start.step if start else 0
        self._handlers = {each: signal.getsignal(each) for each in STOP_SIGNALS}
        self._generators = _generators()
        self.seconds_before = 0.0

    def on_train_start(self, trainer: lightning.Trainer, pl_module: Any) -> None:
        """Put our handlers in place of Lightning's, and the random generators where they were.

        That is where the checkpoint found them, or where they stood before Lightning began: with several processes it
        sets them back to the seed, and the run would not be the one that a single process does.
        """
        for each, handler in self._handlers.items():
            signal.signal(each, handler)
        start = self._start
        _restore_generators(self._generators if start is None else read_state(start.rank(trainer.global_rank)))
        self._saved_at = self._began_at = time.monotonic()

    def on_train_batch_end(
        self, trainer: lightning.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Save if it is due, unless this step is going to be validated first."""
        if not _validates_now(trainer):
            self._save_if_due(trainer, pl_module)

    def on_validation_end(self, trainer: lightning.Trainer, pl_module: Any) -> None:
        """Save if it is due."""
        self._save_if_due(trainer, pl_module)

    def state_dict(self) -> dict[str, Any]:
        """Return how long the training has taken so far."""
        return {"seconds": self.seconds_before + time.monotonic() - self._began_at}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on counting seconds."""
        self.seconds_before = float(state_dict["seconds"])

    def _save_if_due(self, trainer: lightning.Trainer, pl_module: Any) -> None:
        step = pl_module.batches_seen
        if step == self._seen or step >= self._max_steps:
            return  # gradients are being accumulated, or the stage writes its result now
        agree = trainer.strategy.reduce_boolean_decision  # every process stops and saves at the same step
        stopping = self._stop.signum is not None
        if agree(stopping or (trainer.is_global_zero and self._is_due(step)), all=False):
            self._save(trainer, step)
            if agree(stopping, all=False):
                signum = self._stop.signum or signal.SIGTERM
                raise Interrupted(signum, f"at step {step} of {self._stage}, which is saved")
        self._seen = step

    def _is_due(self, step: int) -> bool:
        config = self._store.config
        by_steps = config.every_steps is not None and step - self._saved_step >= config.every_steps
        minutes = (time.monotonic() - self._saved_at) / 60
        return by_steps or (config.every_minutes is not None and minutes >= config.every_minutes)

    def _save(self, trainer: lightning.Trainer, step: int) -> None:
        partial = self._store.partial(step)
        try:
            on_first(lambda: self._store.begin(step))
            trainer.save_checkpoint(partial / STATE)
            write_state(partial / rank_file(trainer.global_rank), _generators())
            barrier()
            on_first(lambda: self._store.commit(partial, step, self._score()))
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)
            raise
        on_first(lambda: self._curves.write(self._metrics))
        self._saved_step, self._saved_at = step, time.monotonic()

    def _score(self) -> float | None:
        """Return the latest validation, lower is better; None if there was none."""
        for name in SCORES:
            if values := [value for _, found, value in self._curves.rows if found == name]:
                return values[-1]
        return None


def _validates_now(trainer: lightning.Trainer) -> bool:
    """Return whether Lightning is about to validate after this batch."""
    loop = trainer.fit_loop.epoch_loop
    every = trainer.val_check_batch
    return bool(trainer.enable_validation and every and (loop.total_batch_idx + 1) % every == 0)


def _generators() -> dict[str, Any]:
    """Return the state of every random generator of this process, as tensors and plain values."""
    kind, keys, position, has_gauss, cached = np.random.get_state(legacy=True)
    return {
        "torch": torch.get_rng_state(),
        "numpy": [str(kind), torch.from_numpy(np.asarray(keys, np.int64)), position, has_gauss, cached],
        "python": random.getstate(),
        "cuda": torch.cuda.get_rng_state() if torch.cuda.is_initialized() else None,
    }


def _restore_generators(state: dict[str, Any]) -> None:
    kind, keys, *rest = state["numpy"]
    torch.set_rng_state(state["torch"])
    np.random.set_state((kind, keys.numpy().astype(np.uint32), *rest))
    random.setstate(state["python"])
    if state["cuda"] is not None and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])
