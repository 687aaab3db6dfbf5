"""Stage-2 training: cross-entropy of code grids, on any number of processes, resumable bit for bit."""

import math
from typing import Any, cast

import lightning
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor
from torch.distributed.fsdp import FullyShardedDataParallel
from torch.optim.lr_scheduler import LambdaLR
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from tcvq_prior.config import PriorConfig
from tcvq_prior.noise import Corruption
from tcvq_prior.training import Stage2Config, learning_rate_factor, parameter_groups
from tcvq_prior.transformer import CodeTransformer, build_prior


class LitPrior(lightning.LightningModule):
    """Trains a prior and stops by itself after ``train.total_steps``.

    All that a later process needs to go on bit for bit is in the checkpoint, gradients of a step that is not complete
    included. What is random in training follows from a seed, the step and the number of the grid in its batch, so that
    neither a restart nor the number of processes changes it.

    Args:
        config: Architecture.
        train: Optimizer and schedule.
        code_features: Fixed description of each code; see `CodeTransformer`.
        n_pixels: Values of one image, for bits per pixel; None does not log them.

    Raises:
        ValueError: If classes are to be dropped and the prior has no null class.
    """

    noise_seed: Tensor

    def __init__(
        self,
        config: PriorConfig,
        train: Stage2Config,
        code_features: Float[Tensor, "K F"] | None = None,
        *,
        n_pixels: int | None = None,
    ) -> None:
        super().__init__()
        if train.class_dropout and not config.null_class:
            raise ValueError(
                f"stage2.class_dropout is {train.class_dropout} but prior.null_class is false; "
                "set prior.null_class=true"
            )
        self.automatic_optimization = False  # Muon and AdamW step together
        self.model = build_prior(config, code_features)
        self.train_config = train
        self.n_pixels = n_pixels
        average = get_ema_multi_avg_fn(train.ema_decay)
        self.averaged = (
            AveragedModel(self.model, multi_avg_fn=average).requires_grad_(False) if train.ema_decay else None
        )
        self.register_buffer("noise_seed", torch.tensor(torch.initial_seed() % 2**63))
        self.model.checkpoint_blocks = train.grad_checkpoint
        if train.compile:
            self.model.compile()
        self.batches_seen = 0
        self._accumulated = 0
        self._train_bits = (0.0, 0)  # sum and number since the last validation
        self._held_out = torch.zeros(2, dtype=torch.float64)  # sum of bits, and number of grids
        self._gradients: dict[str, Tensor] = {}  # of a step that a checkpoint found incomplete

    @property
    def trained(self) -> CodeTransformer:
        """The network to keep: the average of the weights where there is one."""
        return self.model if self.averaged is None else cast(CodeTransformer, self.averaged.module)

    @property
    def total_steps(self) -> int:
        """Steps of the whole training; needs a trainer where the configuration counts epochs.

        Raises:
            ValueError: If epochs are counted and the training data have no length.
        """
        if self.train_config.max_steps is not None:
            return self.train_config.max_steps
        self.trainer.fit_loop.setup_data()
        batches = self.trainer.num_training_batches
        if not math.isfinite(batches):
            raise ValueError("stage2.max_epochs counts passes over data without a length; set stage2.max_steps instead")
        return self.train_config.total_steps(int(batches))

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """AdamW, where weights of Linear layers decay and nothing else does; with Muon for those inside the blocks."""
        train = self.train_config
        groups = parameter_groups(self.model, self.model.blocks)
        optimizers: list[torch.optim.Optimizer] = []
        linear = groups.linear
        if train.optimizer == "muon":
            optimizers.append(
                torch.optim.Muon(groups.hidden, lr=train.muon_learning_rate, weight_decay=train.weight_decay)
            )
        else:
            linear = groups.hidden + linear
        decays = [
            {"params": linear, "weight_decay": train.weight_decay},
            {"params": groups.rest, "weight_decay": 0.0},
        ]
        optimizers.append(torch.optim.AdamW(decays, lr=train.peak_learning_rate, betas=train.betas))
        total_steps = self.total_steps

        def factor(step: int) -> float:  # a plain function: LambdaLR would put a method's attributes into checkpoints
            return learning_rate_factor(train, step, total_steps)

        return optimizers, [LambdaLR(optimizer, factor) for optimizer in optimizers]

    def bits(
        self, indices: Int[Tensor, "B H W"], labels: Int[Tensor, " B"], model: CodeTransformer | None = None
    ) -> Float[Tensor, ""]:
        """Mean negative log-likelihood in bits per code, of ``model`` instead of the one in training if given."""
        tokens = indices.flatten(1)
        model = self.model if model is None else model
        logits = model(tokens[:, :-1], labels if model.n_classes else None)
        return cross_entropy(logits, tokens) / math.log(2)

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        """Add the gradient of one batch; after ``train.accumulate`` of them, change the weights.

        Raises:
            FloatingPointError: If the loss is not finite; says at which step.
        """
        tokens, labels = batch[0].flatten(1), batch[1]
        corruption = self._corruption(len(tokens))
        inputs, labels = corruption(tokens, labels)
        with corruption.dropout(self.device):
            logits = self.model(inputs[:, :-1], labels if self.model.n_classes else None)
        loss = cross_entropy(logits, tokens, self.train_config.label_smoothing)
        if not torch.isfinite(loss):
            raise FloatingPointError(
                f"stage 2: the loss is {loss.item()} at batch {self.batches_seen}; "
                "lower stage2.learning_rate or set stage2.grad_clip"
            )
        with torch.no_grad():
            bits = (
                cross_entropy(logits, tokens) / math.log(2) if self.train_config.label_smoothing else loss / math.log(2)
            )
            bits = self.trainer.strategy.reduce(bits.detach(), reduce_op="mean")
        self._log("train", bits)
        self._train_bits = (self._train_bits[0] + float(bits), self._train_bits[1] + 1)
        if not self._accumulated:
            self.zero_grad(set_to_none=True)
        self.manual_backward(loss / self.train_config.accumulate)
        self._accumulated += 1
        if self._accumulated == self.train_config.accumulate:
            self._step()

    def _step(self) -> None:
        """Clip, then optimizer, schedule and average."""
        self._clip()
        optimizers, schedulers = self.optimizers(), self.lr_schedulers()
        for stepped in (optimizers, schedulers):  # each is a list, or the only one
            for one in stepped if isinstance(stepped, list) else [stepped]:
                assert one is not None
                one.step()
        if self.averaged is not None:
            self.averaged.update_parameters(self.model)
        self._accumulated = 0
        self.batches_seen += 1
        if self.batches_seen >= self.total_steps:
            self.trainer.should_stop = True

    def _clip(self) -> None:
        if not self.train_config.grad_clip:
            return
        root = self.trainer.strategy.model
        if isinstance(root, FullyShardedDataParallel):  # a process sees its share of the gradient only
            root.clip_grad_norm_(self.train_config.grad_clip)
        else:
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.train_config.grad_clip)

    def _corruption(self, rows: int) -> Corruption:
        """The random choices for the next batch of this process; batches lie side by side, a rank after the other."""
        train, world_size = self.train_config, self.trainer.world_size
        return Corruption(
            seed=int(self.noise_seed),
            step=self.batches_seen,
            n_rows=rows * world_size * train.accumulate,
            first=rows * (world_size * self._accumulated + self.trainer.global_rank),
            n_embed=self.model.n_embed,
            n_classes=self.model.n_classes,
            pkeep=train.pkeep,
            class_dropout=train.class_dropout,
        )

    def _log(self, split: str, bits: Float[Tensor, ""], **options: Any) -> None:
        self.log(f"{split}/bits", bits, **options)
        if self.n_pixels is not None:
            self.log(f"{split}/bits_per_pixel", bits * self.model.config.n_tokens / self.n_pixels, **options)

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        """Add up the bits of held-out grids."""
        rows = len(batch[0])
        found = [self.bits(*batch, self.trained).item() * rows, float(rows)]
        self._held_out += torch.tensor(found, dtype=torch.float64)

    def on_validation_epoch_end(self) -> None:
        """Log the bits per code of all ranks' grids, and how many more they are than in training of late."""
        # Not by Lightning's own mean over ranks, which rounds the mean number of grids down.
        total = self.trainer.strategy.reduce(self._held_out.to(self.device), reduce_op="sum")
        bits, (train_bits, n) = total[0] / total[1], self._train_bits
        self._log("val", bits, sync_dist=self.trainer.world_size > 1)
        if n:
            self.log("val/gap", bits - train_bits / n, sync_dist=self.trainer.world_size > 1)
        self._held_out = torch.zeros(2, dtype=torch.float64)
        self._train_bits = (0.0, 0)  # here, before callbacks take a checkpoint at the end of the validation

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Persist the counters, and the gradient of a step that is not complete."""
        checkpoint["batches_seen"] = self.batches_seen
        checkpoint["train_bits"] = self._train_bits
        checkpoint["accumulated"] = self._accumulated
        if self._accumulated:
            checkpoint["gradients"] = {k: p.grad for k, p in self.model.named_parameters() if p.grad is not None}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restore what `on_save_checkpoint` stored."""
        self.batches_seen = int(checkpoint["batches_seen"])
        self._train_bits = tuple(checkpoint["train_bits"])
        self._accumulated = int(checkpoint["accumulated"])
        self._gradients = checkpoint.get("gradients", {})

    def on_train_start(self) -> None:
        """Put the gradient of a step that was not complete in its place; Lightning has cleared all before."""
        for name, parameter in self.model.named_parameters():
            if name in self._gradients:
                parameter.grad = self._gradients[name].to(parameter)
        self._gradients = {}

    def on_validation_model_zero_grad(self) -> None:
        """Keep the gradient of a step that is not complete."""
        if not self._accumulated:
            super().on_validation_model_zero_grad()


def cross_entropy(
    logits: Float[Tensor, "B L K"], tokens: Int[Tensor, "B L"], label_smoothing: float = 0.0
) -> Float[Tensor, ""]:
    """Mean negative log-likelihood of the tokens in nats, in float32 at least."""
    wide = logits.flatten(0, 1).to(torch.promote_types(logits.dtype, torch.float32))
    return F.cross_entropy(wide, tokens.flatten(), label_smoothing=label_smoothing)
