"""How steps are counted, and how the learning rate goes with them."""

import math

from tcvq_vqvae.train_config import Stage1Config


def learning_rate_factor(step: int, total_steps: int, train: Stage1Config) -> float:
    """Return the factor on the peak learning rate at a step, counted from 0.

    Warm-up: min(1, (s+1)/(w+1)) over w steps; ``cosine`` multiplies it by (1 + cos(π s/S))/2 over S steps.
    """
    warm = min(1.0, (step + 1) / (train.warmup_steps + 1))
    if train.schedule == "constant":
        return warm
    return warm * 0.5 * (1.0 + math.cos(math.pi * min(1.0, step / total_steps)))


def steps_per_epoch(batches: int | float, accumulate: int) -> int:
    """Return the number of steps of an epoch of so many batches.

    Raises:
        ValueError: If the number of batches is infinite or unknown.
    """
    if not math.isfinite(batches):
        raise ValueError("stage1.max_epochs and a disc_start in epochs need batches of known number; use steps")
    return max(1, int(batches) // accumulate)
