"""Stage-2 training: cross-entropy of code grids, AdamW with decay on matrices only, or Muon for them."""

import math
from typing import Any

import lightning
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR

from tcvq_prior.config import PriorConfig, Stage2Config
from tcvq_prior.transformer import build_prior


class LitPrior(lightning.LightningModule):
    """Trains a prior and stops by itself after ``train.max_steps`` batches.

    Args:
        config: Architecture.
        train: Optimizer and schedule.
        code_features: Fixed description of each code; see `SpikingPrior`.
    """

    def __init__(
        self, config: PriorConfig, train: Stage2Config, code_features: Float[Tensor, "K F"] | None = None
    ) -> None:
        super().__init__()
        self.automatic_optimization = False  # Muon and AdamW step together
        self.model = build_prior(config, code_features)
        self.train_config = train
        self.batches_seen = 0

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """AdamW, where weights of Linear layers decay and nothing else does; with Muon for those inside the blocks."""
        train = self.train_config
        linear = {id(m.weight): m.weight for m in self.model.modules() if isinstance(m, nn.Linear)}
        hidden = [m.weight for m in self.model.blocks.modules() if isinstance(m, nn.Linear)]
        optimizers: list[torch.optim.Optimizer] = []
        if train.optimizer == "muon":
            optimizers.append(torch.optim.Muon(hidden, lr=train.muon_learning_rate, weight_decay=train.weight_decay))
            linear = {key: weight for key, weight in linear.items() if key not in set(map(id, hidden))}
        left_out = set(linear) | (set(map(id, hidden)) if optimizers else set())
        others = [p for p in self.model.parameters() if id(p) not in left_out]
        groups = [
            {"params": list(linear.values()), "weight_decay": train.weight_decay},
            {"params": others, "weight_decay": 0.0},
        ]
        optimizers.append(torch.optim.AdamW(groups, lr=train.learning_rate, betas=train.betas))

        def factor(step: int) -> float:  # a plain function: LambdaLR would put a method's attributes into checkpoints
            return self._learning_rate_factor(step)

        return optimizers, [LambdaLR(optimizer, factor) for optimizer in optimizers]

    def _learning_rate_factor(self, step: int) -> float:
        train = self.train_config
        warm = min(1.0, (step + 1) / (train.warmup_steps + 1))
        if train.schedule == "constant":
            return warm
        return warm * 0.5 * (1.0 + math.cos(math.pi * min(1.0, step / train.max_steps)))

    def bits(self, indices: Int[Tensor, "B H W"], labels: Int[Tensor, " B"]) -> Float[Tensor, ""]:
        """Mean negative log-likelihood in bits per code."""
        tokens = indices.flatten(1)
        logits = self.model(tokens[:, :-1], labels if self.model.n_classes else None)
        return F.cross_entropy(logits.flatten(0, 1).float(), tokens.flatten()) / math.log(2)

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        """Take one optimizer step on one batch.

        Raises:
            FloatingPointError: If the loss is not finite; says at which batch.
        """
        bits = self.bits(*batch)
        if not torch.isfinite(bits):
            raise FloatingPointError(
                f"stage 2: the loss is {bits.item()} at batch {self.batches_seen}; "
                "lower stage2.learning_rate or set stage2.grad_clip"
            )
        self.log("train/bits", bits.detach())
        self._step(bits * math.log(2))
        self.batches_seen += 1
        if self.batches_seen >= self.train_config.max_steps:
            self.trainer.should_stop = True

    def _step(self, loss: Float[Tensor, ""]) -> None:
        """Backward, clip, optimizer and schedule steps."""
        optimizers, schedulers = self.optimizers(), self.lr_schedulers()
        self.zero_grad(set_to_none=True)
        self.manual_backward(loss)
        if self.train_config.grad_clip:
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.train_config.grad_clip)
        for stepped in (optimizers, schedulers):  # each is a list, or the only one
            for one in stepped if isinstance(stepped, list) else [stepped]:
                assert one is not None
                one.step()

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        """Log the bits per code of held-out grids."""
        self.log("val/bits", self.bits(*batch), on_epoch=True, batch_size=batch[0].shape[0])

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Persist the batch counter."""
        checkpoint["batches_seen"] = self.batches_seen

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restore the batch counter."""
        self.batches_seen = int(checkpoint["batches_seen"])
