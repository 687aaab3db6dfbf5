"""Stage-1 training: optimizers, schedules and the order of the two passes; the mathematics lives in `losses`."""

import math
from typing import Any

import lightning
import torch
import torch.nn.functional as F
from jaxtyping import Float
from lightning.pytorch.core.optimizer import LightningOptimizer
from torch import Tensor
from torch.optim.lr_scheduler import LambdaLR

from tcvq_data import Sample
from tcvq_vqvae.config import VQVAEConfig
from tcvq_vqvae.discriminator import PatchDiscriminator
from tcvq_vqvae.losses import adaptive_weight, generator_loss, hinge_discriminator_loss
from tcvq_vqvae.model import SpikingVQVAE
from tcvq_vqvae.optim import FusedAdam, lay_out
from tcvq_vqvae.train_config import LossConfig, Stage1Config, start_batch

_INIT_BATCHES = 8  # batches whose latents seed the codebook: enough sites for k-means, little memory


class LitVQVAE(lightning.LightningModule):
    """Trains a `SpikingVQVAE` with manual optimization and stops by itself after ``train.max_steps`` batches.

    One forward per batch serves both passes: the autoencoder step with the discriminator frozen, then the discriminator
    step on the same reconstruction. Adversarial terms are neither computed nor logged before ``loss.disc_start``.

    Args:
        config: Architecture.
        loss: Weights of the objective.
        train: Optimizers and schedule.

    Raises:
        ValueError: If the discriminator is too deep for the images.
    """

    def __init__(self, config: VQVAEConfig, loss: LossConfig, train: Stage1Config) -> None:
        super().__init__()
        if loss.disc_weight > 0 and config.image_size < 3 * 2**loss.disc_layers:  # else no patch is left
            raise ValueError(
                f"loss.disc_layers is {loss.disc_layers}, which needs images of {3 * 2**loss.disc_layers} pixels, not "
                f"{config.image_size}; use fewer layers, or disc_weight 0"
            )
        self.automatic_optimization = False
        self.model = SpikingVQVAE(config)
        lay_out(self.model)
        self.loss = loss
        self.train_config = train
        self.discriminator = (
            PatchDiscriminator(config.in_channels, loss.disc_width, loss.disc_layers) if loss.disc_weight > 0 else None
        )
        self.batches_seen = 0
        self._initial_latents: list[Tensor] = []

    def configure_optimizers(self) -> tuple[list[torch.optim.Optimizer], list[LambdaLR]]:
        """Two Adams, one for the autoencoder and one for the discriminator, each scheduled by its own steps."""
        modules = [self.model] if self.discriminator is None else [self.model, self.discriminator]
        train = self.train_config
        optimizers = [FusedAdam(m.parameters(), lr=train.lr, betas=train.betas) for m in modules]

        def factor(step: int) -> float:  # a plain function: LambdaLR would put a method's attributes into checkpoints
            return self._learning_rate_factor(step)

        return list(optimizers), [LambdaLR(o, factor) for o in optimizers]

    @property
    def total_steps(self) -> int:
        """Number of steps of the whole training."""
        return self.train_config.total_steps(1)

    def _learning_rate_factor(self, step: int) -> float:
        train = self.train_config
        warm = min(1.0, (step + 1) / (train.warmup_steps + 1))
        if train.schedule == "constant":
            return warm
        return warm * 0.5 * (1.0 + math.cos(math.pi * min(1.0, step / self.total_steps)))

    def training_step(self, batch: Sample, batch_idx: int) -> None:
        """Run one batch through the autoencoder and, once it is on, the discriminator.

        Raises:
            FloatingPointError: If the loss is not finite; says at which batch.
        """
        events = self.model.config.encoding == "event"
        x = batch.image.transpose(0, 1) if events else batch.image  # batches of events are (B, T, C, H, W)
        x_hat, objective, l1 = self._reconstruct(x)
        adversarial = self.discriminator is not None and self.batches_seen >= start_batch(self.loss.disc_start)
        if adversarial:
            objective = objective + self._adversarial_term(l1, x_hat)
        if not torch.isfinite(objective):
            raise FloatingPointError(
                f"stage 1: the loss is {objective.item()} at batch {self.batches_seen}; "
                "lower stage1.learning_rate or set stage1.grad_clip"
            )
        self.log("train/loss", objective.detach())
        self._step(0, objective)
        if adversarial:
            self._step(1, self._discriminator_objective(x, x_hat.detach()))
        self.batches_seen += 1
        if self.batches_seen >= self.total_steps:
            self.trainer.should_stop = True

    def _reconstruct(self, x: Tensor) -> tuple[Tensor, Float[Tensor, ""], Float[Tensor, ""]]:
        """Return reconstruction, objective without adversarial term, and its L1 part."""
        train, seen = self.train_config, self.batches_seen
        z = self.model.latents(x)
        if seen < train.unquantized_steps:
            if seen >= train.unquantized_steps - _INIT_BATCHES:
                self._initial_latents.append(z.detach())
            x_hat = self.model.decode(z)
            l1 = F.l1_loss(x_hat, x)
            self.log("train/l1", l1.detach())
            return x_hat, l1, l1
        if self._initial_latents and not self.model.codebook.initted:
            self.model.codebook.initialize(torch.cat(self._initial_latents, dim=1))
            self._initial_latents.clear()
        quantized = self.model.codebook(z)
        if train.revive_every and (seen + 1) % train.revive_every == 0:
            self._revive(z)
        x_hat = self.model.decode(quantized.z_q)
        l1 = F.l1_loss(x_hat, x)
        self.log_dict(
            {
                "train/l1": l1.detach(),
                "train/codebook": quantized.loss.detach(),
                "train/perplexity": quantized.perplexity,
            }
        )
        return x_hat, l1 + self.loss.codebook_weight * quantized.loss, l1

    def _revive(self, z: Tensor) -> None:
        """Replace dead entries and forget the optimizer's moments of the replaced rows."""
        revived = self.model.codebook.revive(z.detach())
        state: dict[str, Any] = self._optimizer(0).state.get(self.model.codebook.codebook, {})
        for name in ("exp_avg", "exp_avg_sq"):
            if name in state:
                state[name][revived] = 0.0

    def _adversarial_term(self, l1: Tensor, x_hat: Tensor) -> Float[Tensor, ""]:
        """λ·L_G, or 0 for a batch whose λ is not finite (counted in the log)."""
        assert self.discriminator is not None
        self.discriminator.requires_grad_(False)
        generator = generator_loss(self.discriminator(_frames(x_hat)))
        weight = self.loss.disc_weight * adaptive_weight(l1, generator, self.model.decoder.conv_out.weight)
        finite = torch.isfinite(weight)
        self.log_dict(
            {
                "train/generator": generator.detach(),
                "train/adaptive_weight": weight,
                "train/adaptive_weight_dropped": 1.0 - finite.float(),
            }
        )
        return weight * generator if finite else torch.zeros_like(generator)

    def _discriminator_objective(self, x: Tensor, x_hat: Tensor) -> Float[Tensor, ""]:
        assert self.discriminator is not None
        self.discriminator.requires_grad_(True)
        loss = hinge_discriminator_loss(self.discriminator(_frames(x)), self.discriminator(_frames(x_hat)))
        self.log("train/discriminator", loss.detach())
        return loss

    def _optimizer(self, index: int) -> LightningOptimizer:
        optimizers = self.optimizers()
        optimizer = optimizers[index] if isinstance(optimizers, list) else optimizers
        assert isinstance(optimizer, LightningOptimizer)
        return optimizer

    def _step(self, index: int, objective: Tensor) -> None:
        """Backward, clip, optimizer step, schedule step."""
        optimizer = self._optimizer(index)
        optimizer.zero_grad(set_to_none=True)
        self.manual_backward(objective)
        if self.train_config.grad_clip:
            parameters = [p for group in optimizer.param_groups for p in group["params"]]
            torch.nn.utils.clip_grad_norm_(parameters, self.train_config.grad_clip)
        optimizer.step()
        schedulers = self.lr_schedulers()
        scheduler = schedulers[index] if isinstance(schedulers, list) else schedulers
        assert scheduler is not None
        scheduler.step()

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Persist the batch counter, by which the discriminator's start is decided."""
        checkpoint["batches_seen"] = self.batches_seen

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restore the batch counter."""
        self.batches_seen = int(checkpoint["batches_seen"])


def _frames(x: Float[Tensor, "*batch C H W"]) -> Float[Tensor, "N C H W"]:
    """Fold the time axis of event frames into the batch; leave still images alone."""
    return x.flatten(0, 1) if x.dim() == 5 else x
