"""Objective and training of stage 1 as values, checked when they are built; they default to the paper's."""

import math
import re
from dataclasses import dataclass
from typing import Literal

BASE_LR = 4.5e-6  # per image of the global batch, in all released configurations
DEFAULT_STEPS = 100_000
VGG16_SHA256 = "397923af8e79cdbb6a7127f12361acd7a2f83e06b05044ddf496e83de57a5bf0"  # torchvision's vgg16-397923af.pth


def start_batch(start: int | str, steps_per_epoch: int | None = None) -> int:
    """Return the batch, counted from 0, that a ``disc_start`` names.

    Args:
        start: A number of batches, or a text: ``"15001 batches"``; ``"30001 steps"``, optimizer steps as the released
            code counts them, two per batch, so that this is batch 15001; or ``"10 epochs"``.
        steps_per_epoch: Batches of one epoch; only epochs need them.

    Raises:
        ValueError: If it is no such text, or epochs are asked for without ``steps_per_epoch``.
    """
    found = re.fullmatch(r"(\d+)(?: (batch|step|epoch)(?:e?s)?)?", str(start))
    if found is None:
        raise ValueError(f'loss.disc_start is {start!r}; write 15001, "30001 steps" or "10 epochs"')
    n, unit = int(found[1]), found[2]
    if unit == "step":
        return math.ceil(n / 2)
    if unit == "epoch":
        if steps_per_epoch is None:
            raise ValueError(f"loss.disc_start is {start!r}, but the number of batches per epoch is not known")
        return n * steps_per_epoch
    return n


@dataclass(frozen=True, kw_only=True, slots=True)
class LossConfig:
    """Weights and schedule of the stage-1 objective (arXiv 2405.14474, released code).

    Attributes:
        pixel: Distance of pixels: mean absolute (``l1``, the paper) or squared (``l2``) difference.
        perceptual_weight: Weight of LPIPS beside the pixel distance; 1 in the paper, for images. 0 builds no network.
        perceptual_weights: The file of VGG16's weights for LPIPS, torchvision's ``vgg16-397923af.pth``. It is never
            downloaded.
        perceptual_sha256: The checksum that this file must have.
        codebook_weight: Weight of the codebook's loss.
        disc_weight: Factor on the adaptive weight of the adversarial term; 0 builds no discriminator.
        disc_start: When the discriminator begins to train: a number of batches, ``"30001 steps"`` (the released
            code's optimizer steps, two per batch) or ``"10 epochs"``.
        disc_warmup: Batches that the discriminator trains before its term enters the autoencoder's objective.
        disc_loss: Objective of the discriminator.
        disc_width: Channels of the discriminator's first layer.
        disc_layers: Hidden layers of the PatchGAN discriminator.
        disc_norm: Normalisation in the discriminator; ``batch`` takes its statistics over all processes.
        disc_input: What it judges of event recordings: every ``frame`` alone, or the whole ``clip`` with its T frames
            as channels, so that it can judge movement.
    """

    pixel: Literal["l1", "l2"] = "l1"
    perceptual_weight: float = 0.0
    perceptual_weights: str | None = None
    perceptual_sha256: str = VGG16_SHA256
    codebook_weight: float = 1.0
    disc_weight: float = 0.8
    disc_start: int | str = 15001  # "30001 steps"
    disc_warmup: int = 0
    disc_loss: Literal["hinge", "vanilla"] = "hinge"
    disc_width: int = 64
    disc_layers: int = 3
    disc_norm: Literal["batch", "group", "none"] = "batch"
    disc_input: Literal["frame", "clip"] = "frame"

    def __post_init__(self) -> None:
        """Reject weights and schedules that mean nothing."""
        for name in ("perceptual_weight", "codebook_weight", "disc_weight", "disc_warmup"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"loss.{name} is {getattr(self, name)}; it must not be negative")
        for name in ("disc_width", "disc_layers"):
            if getattr(self, name) < 1:
                raise ValueError(f"loss.{name} is {getattr(self, name)}; it must be at least 1")
        start_batch(self.disc_start, steps_per_epoch=1)
        if self.perceptual_weight and not self.perceptual_weights:
            raise ValueError(
                f"loss.perceptual_weight is {self.perceptual_weight} but loss.perceptual_weights names no file; give "
                "torchvision's vgg16-397923af.pth, or set loss.perceptual_weight=0"
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class Stage1Config:
    """How stage 1 is trained.

    A step is one update of the autoencoder with one global batch, in however many pieces it was computed; every
    number of batches here and in `LossConfig` counts steps.

    Attributes:
        max_steps: Steps to train for; at most one of this and ``max_epochs``, and 100,000 steps without either.
        max_epochs: Passes through the data to train for.
        batch_size: Images per step over all processes: each takes ``batch_size / (processes * accumulate)`` at once.
        learning_rate: Peak learning rate of both optimizers; at most one of this and ``base_lr``.
        base_lr: Peak learning rate per image of the batch: lr = base_lr · batch_size. 4.5e-6 without either.
        accumulate: Pieces of a batch whose gradients are added up before a step.
        betas: Adam's moment decays.
        schedule: ``constant``, or ``cosine`` to zero over the whole training.
        warmup_steps: Steps of linear learning-rate warm-up.
        grad_clip: Largest gradient norm; 0 does not clip.
        ema_decay: Decay γ of the moving average of the weights that is validated and saved; 0 keeps none.
        unquantized_steps: Steps at the start that bypass the codebook, so that its entries can be initialised from
            latents that already mean something.
        revive_every: Steps between revivals of dead codes; 0 never revives.
        grad_checkpoint: Compute residual and attention blocks again in the backward pass instead of keeping what they
            hold: less memory, more time.
        compile: Compile encoder, decoder and discriminator with ``torch.compile``.
    """

    max_steps: int | None = None
    max_epochs: int | None = None
    batch_size: int = 128
    learning_rate: float | None = None
    base_lr: float | None = None
    accumulate: int = 1
    betas: tuple[float, float] = (0.5, 0.9)
    schedule: Literal["constant", "cosine"] = "constant"
    warmup_steps: int = 0
    grad_clip: float = 0.0
    ema_decay: float = 0.0
    unquantized_steps: int = 0
    revive_every: int = 100
    grad_checkpoint: bool = False
    compile: bool = False

    def __post_init__(self) -> None:
        """Reject schedules that cannot run."""
        for one, other in (("max_steps", "max_epochs"), ("learning_rate", "base_lr")):
            if getattr(self, one) is not None and getattr(self, other) is not None:
                raise ValueError(f"stage1.{one} and stage1.{other} are both set; set one of them to null")
        for name in ("max_steps", "max_epochs", "batch_size", "accumulate"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"stage1.{name} is {value}; it must be at least 1")
        for name in ("warmup_steps", "unquantized_steps", "revive_every", "grad_clip"):
            if getattr(self, name) < 0:
                raise ValueError(f"stage1.{name} is {getattr(self, name)}; it must not be negative")
        for name in ("learning_rate", "base_lr"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ValueError(f"stage1.{name} is {value}; it must be positive")
        if not 0 <= self.ema_decay < 1:
            raise ValueError(f"stage1.ema_decay is {self.ema_decay}; it must be at least 0 and below 1")
        if self.batch_size % self.accumulate:
            raise ValueError(
                f"stage1.accumulate is {self.accumulate}; it must divide stage1.batch_size {self.batch_size}"
            )
        if self.max_epochs is None:
            self.total_steps(1)

    @property
    def lr(self) -> float:
        """The peak learning rate."""
        if self.learning_rate is not None:
            return self.learning_rate
        return (BASE_LR if self.base_lr is None else self.base_lr) * self.batch_size

    def total_steps(self, steps_per_epoch: int) -> int:
        """Return the number of steps to train for, given those of one epoch.

        Raises:
            ValueError: If all of them would bypass the codebook.
        """
        total = self.max_epochs * steps_per_epoch if self.max_epochs else self.max_steps or DEFAULT_STEPS
        if self.unquantized_steps >= total:
            raise ValueError(
                f"stage1.unquantized_steps is {self.unquantized_steps} of {total} max_steps; "
                "the codebook would never be trained"
            )
        return total
