"""Stage-1 training: optimizers, schedules and the order of the two passes; the mathematics lives in `losses`."""

import math
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, cast

import lightning
import torch
from jaxtyping import Float
from lightning.pytorch.core.optimizer import LightningOptimizer
from lightning.pytorch.strategies import FSDPStrategy, ModelParallelStrategy, ParallelStrategy
from torch import Tensor
from torch.optim.lr_scheduler import LambdaLR

from tcvq_codebook import code_counts, perplexity
from tcvq_data import Sample
from tcvq_vqvae.averaging import averaged, copy_entries, trained_codes
from tcvq_vqvae.config import VQVAEConfig
from tcvq_vqvae.discriminator import build_discriminator
from tcvq_vqvae.first_codes import FirstCodes
from tcvq_vqvae.gradients import gradients_of, set_gradients, settle
from tcvq_vqvae.guard import not_finite
from tcvq_vqvae.memory import prepare_blocks
from tcvq_vqvae.model import SpikingVQVAE
from tcvq_vqvae.objective import Objective
from tcvq_vqvae.optim import FusedAdam, lay_out
from tcvq_vqvae.parallel import average_, gather_batch, world_size
from tcvq_vqvae.perceptual import build_perceptual
from tcvq_vqvae.preview import evaluating, reconstruct
from tcvq_vqvae.randomness import rng_states, set_rng_states
from tcvq_vqvae.schedule import learning_rate_factor, steps_per_epoch
from tcvq_vqvae.train_config import LossConfig, Stage1Config, start_batch


class LitVQVAE(lightning.LightningModule):
    """Trains a `SpikingVQVAE` with manual optimization and stops by itself after ``total_steps`` steps.

    One forward per batch serves both passes: the autoencoder's, with the discriminator frozen, then the discriminator's
    on the same reconstruction. Adversarial terms are neither computed nor logged before they count. A step is one
    update of the autoencoder, of ``accumulate`` batches; ``batches_seen`` counts steps.

    With several processes, gradients are averaged here, once per step and network, and so is what must be that of the
    whole batch: adaptive weight, statistics of the discriminator's BatchNorm, codebook. DistributedDataParallel only
    makes the processes start alike; parameters that a pass does not use need no search.

    Args:
        config: Architecture.
        loss: Weights of the objective.
        train: Optimizers and schedule.
        debug_batch: File for the batch at which a number stopped being finite; None keeps none.

    Attributes:
        model: The network in training.
        batches_seen: Steps done.

    Raises:
        ValueError: If the objective does not fit the images.
        ArtifactError: If the weights of LPIPS are missing or damaged.
    """

    def __init__(
        self, config: VQVAEConfig, loss: LossConfig, train: Stage1Config, *, debug_batch: Path | None = None
    ) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.model = SpikingVQVAE(config)
        lay_out(self.model)
        self.discriminator = build_discriminator(config, loss)
        self.perceptual = build_perceptual(config, loss)
        self.average = averaged(self.model, train.ema_decay) if train.ema_decay else None
        self.objective = Objective(loss=loss, discriminator=self.discriminator, perceptual=self.perceptual)
        self.train_config, self.debug_batch = train, debug_batch
        self.batches_seen = 0
        self._pieces = 0  # batches of the step under way
        self._first_codes = FirstCodes(unquantized_steps=train.unquantized_steps)
        self._restored: dict[str, Any] = {}
        self._steps_per_epoch: int | None = None
        self._codes_used: Tensor | None = None
        self._prepared = False

    @property
    def trained(self) -> SpikingVQVAE:
        """The network to validate and to save: the moving average of the weights where there is one."""
        if self.average is None or not int(self.average.n_averaged):
            return self.model
        return cast(SpikingVQVAE, self.average.module)

    @property
    def quantizes(self) -> bool:
        """Whether images go through the codebook by now, and it has entries."""
        return self._first_codes.drawn(self.model, self.batches_seen)

    @property
    def total_steps(self) -> int:
        """Number of steps of the whole training; epochs are counted with the trainer's batches."""
        train = self.train_config
        return train.total_steps(self._epoch_length() if train.max_epochs else 1)

    def _epoch_length(self) -> int:
        """Return the number of steps of one epoch."""
        if self._steps_per_epoch is None:
            self.trainer.fit_loop.setup_data()
            self._steps_per_epoch = steps_per_epoch(self.trainer.num_training_batches, self.train_config.accumulate)
        return self._steps_per_epoch

    def _disc_start(self) -> int:
        in_epochs = "epoch" in str(self.objective.loss.disc_start)
        return start_batch(self.objective.loss.disc_start, self._epoch_length() if in_epochs else None)

    def configure_optimizers(self) -> tuple[list[torch.optim.Optimizer], list[LambdaLR]]:
        """Two Adams, one for the autoencoder and one for the discriminator, each scheduled by its own steps."""
        train, modules = self.train_config, filter(None, (self.model, self.discriminator))
        optimizers = [FusedAdam(m.parameters(), lr=train.lr, betas=train.betas) for m in modules]

        def factor(step: int) -> float:  # a plain function: LambdaLR would put a method's attributes into checkpoints
            return learning_rate_factor(step, self.total_steps, train)

        return list(optimizers), [LambdaLR(o, factor) for o in optimizers]

    def setup(self, stage: str) -> None:
        """Refuse to be sharded: λ and the norms of gradients are computed from whole parameters."""
        if isinstance(self.trainer.strategy, FSDPStrategy | ModelParallelStrategy):
            raise ValueError(
                "stage 1 does not shard its networks; train with strategy ddp, and grad_checkpoint for memory"
            )

    def on_fit_start(self) -> None:
        """Turn on recomputation and compilation, once."""
        prepared, self._prepared = self._prepared, True
        if not prepared:
            prepare_blocks(self.model, recompute=self.train_config.grad_checkpoint, compiled=self.train_config.compile)

    def on_train_batch_start(self, batch: Sample, batch_idx: int) -> None:
        """Go on with the gradients and random numbers of the checkpoint, from the first batch after it."""
        if self._restored:
            set_gradients(self, self._restored["gradients"])
            set_rng_states(self._restored["rng"])
            self._restored = {}

    def training_step(self, batch: Sample, batch_idx: int) -> None:
        """Run one batch through the autoencoder and, once it is on, the discriminator.

        Raises:
            FloatingPointError: If a term or gradient is not finite; names step and term, before any weight changes.
        """
        if self._pieces == 0:
            for module in filter(None, (self.model, self.discriminator)):
                module.zero_grad(set_to_none=True)
        terms: dict[str, Tensor] = {}
        x = self._images(batch)
        z = self.model.latents(x)
        finite = z.isfinite().all().float()
        average_([finite])
        if finite < 1:  # the codebook would stop, but without the step, and one process alone
            raise self._not_finite({"latents": math.nan}, batch)
        x_hat, quantization = self._decode(z, terms)
        reconstruction = self.objective.reconstruction(x, x_hat, terms)
        loss = reconstruction if quantization is None else reconstruction + quantization
        judged = self.discriminator is not None and self.batches_seen >= self._disc_start()
        if judged and self.batches_seen >= self._disc_start() + self.objective.loss.disc_warmup:
            last_layer = self.model.decoder.conv_out.weight
            loss = loss + self.objective.adversarial(reconstruction, x_hat, last_layer, terms, scale=self._loss_scale())
        terms["loss"] = loss
        self._backward(loss)
        if judged:
            self._backward(self.objective.discrimination(x, x_hat, terms))
        self._log_terms(terms, batch)
        self._pieces += 1
        if self._pieces == self.train_config.accumulate:
            self._finish_step(z.detach(), batch, judged=judged)

    def _images(self, batch: Sample) -> Float[Tensor, "*batch C H W"]:
        """Return images, or frames with time first: batches of recordings are (B, T, C, H, W)."""
        return batch.image.transpose(0, 1) if self.model.config.encoding == "event" else batch.image

    def _decode(self, z: Float[Tensor, "T B D h w"], terms: dict[str, Tensor]) -> tuple[Tensor, Tensor | None]:
        """Return the reconstruction and the weighted loss of the codebook, None where it is bypassed."""
        step = self.batches_seen
        if not self._first_codes.drawn(self.model, step):
            if not self._first_codes.draw(self.model, z, step):
                return self.model.decode(z), None
            if self.average is not None:
                copy_entries(self.model, self.average.module)
        quantized = self.model.codebook(z)
        terms |= {
            "codebook": quantized.loss,
            "codebook_loss": quantized.codebook_loss,
            "commitment": quantized.commitment_loss,
            "perplexity": quantized.perplexity,
        }
        return self.model.decode(quantized.z_q), self.objective.loss.codebook_weight * quantized.loss

    def _backward(self, objective: Tensor) -> None:
        """Add the gradients of this part of the batch, without a word to the other processes."""
        strategy = self.trainer.strategy
        silence: AbstractContextManager[None] = nullcontext()
        if isinstance(strategy, ParallelStrategy):
            silence = strategy.block_backward_sync()
        with silence:
            self.manual_backward(objective / self.train_config.accumulate)

    def _log_terms(self, terms: dict[str, Tensor], batch: Sample) -> None:
        """Log every term as its mean over the processes; stop if one is not finite."""
        dtype = torch.promote_types(terms["loss"].dtype, torch.float32)
        values = torch.stack([term.detach().to(dtype) for term in terms.values()])
        average_([values])
        if not values.isfinite().all():
            raise self._not_finite(dict(zip(terms, values.tolist(), strict=True)), batch)
        self.log_dict({f"train/{name}": value for name, value in zip(terms, values, strict=True)})

    def _not_finite(self, values: dict[str, float], batch: Sample) -> FloatingPointError:
        bad = {name: value for name, value in values.items() if not math.isfinite(value)}
        return not_finite(bad, self.batches_seen, batch, self.debug_batch, rank=self.global_rank)

    def _finish_step(self, z: Tensor, batch: Sample, *, judged: bool) -> None:
        """Update both networks, the average of the weights, dead codes and the counters."""
        scale = self._loss_scale()
        norm = self._update(0, scale, batch)
        if judged:
            self._update(1, scale, batch)
        self.log("train/grad_norm", norm)
        if self.average is not None:
            self.average.update_parameters(self.model)
        self.batches_seen += 1
        self._pieces = 0
        revive_every, last = self.train_config.revive_every, self.batches_seen >= self.total_steps
        if revive_every and self.batches_seen % revive_every == 0 and not last and self.quantizes:
            self._revive(z)
        if last:
            self.trainer.should_stop = True

    def _update(self, index: int, scale: float, batch: Sample) -> Tensor:
        """Settle the gradients of network 0 or 1, step its optimizer and schedule; return the gradient's norm.

        In float16 training gradients carry a factor, so that they do not underflow: ``scale``.
        """
        optimizer, now, clip = self._optimizer(index), self._loss_scale(), self.train_config.grad_clip
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        # The update of the other network may have changed the scale.
        norm = settle(parameters, factor=now / scale, max_norm=clip * now) / now
        if self._scaler() is None and not norm.isfinite():
            name = "gradient of the " + ("discriminator" if index else "autoencoder")
            raise self._not_finite({name: float(norm)}, batch)
        optimizer.step()
        if self._loss_scale() >= now:  # else float16 overflowed, and this update was left out
            schedulers = self.lr_schedulers()
            scheduler = schedulers[index] if isinstance(schedulers, list) else schedulers
            assert scheduler is not None
            scheduler.step()
        return norm

    def _optimizer(self, index: int) -> LightningOptimizer:
        optimizers = self.optimizers()
        optimizer = optimizers[index] if isinstance(optimizers, list) else optimizers
        assert isinstance(optimizer, LightningOptimizer)
        return optimizer

    def _scaler(self) -> torch.amp.GradScaler | None:
        return getattr(self.trainer.precision_plugin, "scaler", None)

    def _loss_scale(self) -> float:
        scaler = self._scaler()
        return 1.0 if scaler is None else float(scaler.get_scale())

    def _revive(self, z: Tensor) -> None:
        """Replace dead entries, also in the average, and forget the optimizer's moments of the replaced rows."""
        revived = self.model.codebook.revive(z)
        state: dict[str, Any] = self._optimizer(0).state.get(trained_codes(self.model).codebook, {})
        for name in ("exp_avg", "exp_avg_sq"):
            if name in state:
                state[name][revived] = 0.0
        if self.average is not None:
            copy_entries(self.model, self.average.module, revived)

    def on_validation_epoch_start(self) -> None:
        """Start to count the codes in use."""
        self._codes_used = torch.zeros(self.model.config.n_embed, dtype=torch.int64, device=self.device)

    def validation_step(self, batch: Sample, batch_idx: int) -> None:
        """Log the error of held-out images under the network that would be saved; nothing of the training changes."""
        x, model, terms = self._images(batch), self.trained, dict[str, Tensor]()
        with evaluating(model):
            z = model.latents(x)
            if self.quantizes:
                quantized = model.codebook(z)
                z, terms["codebook"] = quantized.z_q, quantized.loss
                if self._codes_used is not None:
                    self._codes_used += code_counts(quantized.indices, len(self._codes_used))
            x_hat = model.decode(z)
            self.objective.reconstruction(x, x_hat, terms)
            terms["mse"] = (x_hat.clamp(-1.0, 1.0) - x).square().mean()
        for name, term in terms.items():
            self.log(f"val/{name}", term, on_epoch=True, sync_dist=world_size() > 1, batch_size=len(batch.image))

    def on_validation_epoch_end(self) -> None:
        """Log how many codes the whole split uses, from their counts over all processes."""
        counts, self._codes_used = self._codes_used, None
        if counts is None or not self.quantizes:
            return
        counts = counts.double()
        average_([counts])
        self.log_dict({"val/perplexity": perplexity(counts).float(), "val/used": (counts > 0).float().mean()})

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Persist what the training remembers beside weights and optimizers, so that it goes on bit for bit."""
        checkpoint["batches_seen"] = self.batches_seen
        checkpoint["stage1"] = {
            "pieces": self._pieces,
            "initial_latents": [gather_batch(z) for z in self._first_codes.latents],
            "gradients": gradients_of(self) if self._pieces else {},
            "rng": rng_states(),
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restore it; each process takes its share of the latents that wait for the first codes."""
        state = checkpoint["stage1"]
        self.batches_seen, self._pieces = int(checkpoint["batches_seen"]), int(state["pieces"])
        share = [z.tensor_split(world_size(), dim=1)[self.global_rank] for z in state["initial_latents"]]
        self._first_codes.latents = [z.to(self.device) for z in share]
        self._restored = state


class Previews(lightning.Callback):
    """Hands reconstructions of fixed images or recordings to a writer at regular steps, and leaves no trace.

    Args:
        x: Images ``(B, C, H, W)`` or frames ``(T, B, C, H, W)`` in [-1, 1].
        write: Called with the step, ``x`` and the reconstruction, both on the CPU; in the first process only.
        every: Steps from one call to the next.
    """

    def __init__(
        self, x: Float[Tensor, "*batch C H W"], write: Callable[[int, Tensor, Tensor], None], *, every: int
    ) -> None:
        self.x, self.write, self.every = x, write, every
        self._last = -1

    def on_train_batch_end(
        self, trainer: lightning.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Reconstruct with the network that would be saved."""
        step = pl_module.batches_seen
        if not trainer.is_global_zero or step in (self._last, 0) or step % self.every:
            return
        self._last = step
        x_hat = reconstruct(pl_module.trained, self.x.to(pl_module.device), quantized=pl_module.quantizes)
        self.write(step, self.x, x_hat.cpu())
