"""How stage 2 is trained: its settings, its learning rates, and which weights decay."""

import math
from dataclasses import dataclass
from typing import Literal

from torch import nn


@dataclass(frozen=True, kw_only=True, slots=True)
class Stage2Config:
    """How stage 2 is trained. A step is one update of the weights.

    Attributes:
        max_steps: Steps to train for; null where ``max_epochs`` says it.
        max_epochs: Passes over the training codes to train for; null where ``max_steps`` says it.
        batch_size: Grids per step, over all processes and accumulated batches together.
        accumulate: Batches whose gradients make one step; saves memory, changes nothing else.
        optimizer: ``adamw`` for all weights, as in the paper; ``muon`` (Jordan et al. 2024) for the matrices of the
            blocks and AdamW for the rest, which learns more per step.
        learning_rate: Peak learning rate of AdamW; null where ``base_lr`` says it.
        base_lr: Peak learning rate of AdamW per grid of a batch, as the paper counts: base_lr x batch_size is the
            rate; null where ``learning_rate`` says it.
        muon_learning_rate: Peak learning rate of Muon.
        betas: AdamW's moment decays.
        weight_decay: Decay of Linear weights only.
        schedule: ``constant``, or ``cosine`` to zero over all steps.
        warmup_steps: Steps of linear learning-rate warm-up.
        grad_clip: Largest gradient norm; 0 does not clip.
        label_smoothing: Share of the target's probability that is spread over all codes.
        pkeep: Probability that training shows the network a true earlier code; the others are replaced by random ones,
            as in the released code.
        class_dropout: Probability that training hides the class of a grid, which classifier-free guidance needs;
            needs ``prior.null_class``. LlamaGen takes 0.1.
        ema_decay: Decay per step of an average of the weights, which is then validated and saved; 0 keeps none.
        grad_checkpoint: Compute the blocks again in the backward pass: less memory, about a third more time.
        compile: Compile the network with torch.compile; pays off in long runs.
    """

    max_steps: int | None = 100_000
    max_epochs: int | None = None
    batch_size: int = 64
    accumulate: int = 1
    optimizer: Literal["adamw", "muon"] = "adamw"
    learning_rate: float | None = 6.4e-5  # base 1e-6 x batch 64
    base_lr: float | None = None
    muon_learning_rate: float = 0.02
    betas: tuple[float, float] = (0.9, 0.95)
    weight_decay: float = 0.01
    schedule: Literal["constant", "cosine"] = "constant"
    warmup_steps: int = 0
    grad_clip: float = 1.0
    label_smoothing: float = 0.0
    pkeep: float = 1.0
    class_dropout: float = 0.0
    ema_decay: float = 0.0
    grad_checkpoint: bool = False
    compile: bool = False

    def __post_init__(self) -> None:
        """Reject schedules that cannot run."""
        for one, other in (("max_steps", "max_epochs"), ("learning_rate", "base_lr")):
            if (getattr(self, one) is None) == (getattr(self, other) is None):
                raise ValueError(
                    f"stage2.{one} is {getattr(self, one)} and stage2.{other} is {getattr(self, other)}; "
                    "set exactly one of them, the other to null"
                )
        for name in ("max_steps", "max_epochs", "batch_size", "accumulate"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"stage2.{name} is {value}; it must be at least 1")
        for name in ("weight_decay", "warmup_steps", "grad_clip"):
            if getattr(self, name) < 0:
                raise ValueError(f"stage2.{name} is {getattr(self, name)}; it must not be negative")
        for name in ("learning_rate", "base_lr", "muon_learning_rate"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ValueError(f"stage2.{name} is {value}; it must be positive")
        for name in ("label_smoothing", "class_dropout", "ema_decay"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"stage2.{name} is {getattr(self, name)}; it must lie in [0, 1)")
        if not 0 < self.pkeep <= 1:
            raise ValueError(f"stage2.pkeep is {self.pkeep}; it must lie in (0, 1]")
        self.micro_batch_size()

    @property
    def peak_learning_rate(self) -> float:
        """Peak learning rate of AdamW."""
        if self.learning_rate is not None:
            return self.learning_rate
        assert self.base_lr is not None
        return self.base_lr * self.batch_size

    def micro_batch_size(self, world_size: int = 1) -> int:
        """Return the grids that one process takes at a time.

        Raises:
            ValueError: The batch does not divide over so many processes and accumulated batches.
        """
        parts = world_size * self.accumulate
        if self.batch_size % parts:
            raise ValueError(
                f"stage2.batch_size is {self.batch_size}; it must be a multiple of {parts}, "
                f"{world_size} processes x stage2.accumulate={self.accumulate}"
            )
        return self.batch_size // parts

    def total_steps(self, batches_per_epoch: int) -> int:
        """Return the steps of the whole training.

        Args:
            batches_per_epoch: Batches that one process takes in an epoch, each of ``micro_batch_size``.
        """
        if self.max_steps is not None:
            return self.max_steps
        assert self.max_epochs is not None
        return max(1, self.max_epochs * batches_per_epoch // self.accumulate)


def learning_rate_factor(config: Stage2Config, step: int, total_steps: int) -> float:
    """Return the share of the peak learning rate that a step takes: linear warm-up times the schedule."""
    warm = min(1.0, (step + 1) / (config.warmup_steps + 1))
    if config.schedule == "constant":
        return warm
    return warm * 0.5 * (1.0 + math.cos(math.pi * min(1.0, step / total_steps)))


@dataclass(frozen=True, kw_only=True, slots=True)
class ParameterGroups:
    """All weights of a prior, each in one group.

    Attributes:
        hidden: Weights of the Linear layers inside of the blocks.
        linear: Weights of the other Linear layers.
        rest: Everything else: biases, norms, tables; does not decay.
    """

    hidden: list[nn.Parameter]
    linear: list[nn.Parameter]
    rest: list[nn.Parameter]


def parameter_groups(model: nn.Module, blocks: nn.Module) -> ParameterGroups:
    """Sort the weights of a model, shared ones once."""
    inside = {id(p) for p in blocks.parameters()}
    weights = {id(m.weight) for m in model.modules() if isinstance(m, nn.Linear)}
    hidden = [p for p in model.parameters() if id(p) in weights and id(p) in inside]
    linear = [p for p in model.parameters() if id(p) in weights and id(p) not in inside]
    rest = [p for p in model.parameters() if id(p) not in weights]
    return ParameterGroups(hidden=hidden, linear=linear, rest=rest)
