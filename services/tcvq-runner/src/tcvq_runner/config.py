"""Everything that decides a run, as one value; each section is checked when it is built, then how they fit together."""

import re
from dataclasses import dataclass, field
from typing import Literal

from tcvq_prior import PriorConfig, Stage2Config
from tcvq_vqvae import LossConfig, Stage1Config, VQVAEConfig

FOLLOWS_VQVAE = ("n_embed", "grid")  # fields of `prior` that the VQ-VAE decides


@dataclass(frozen=True, kw_only=True, slots=True)
class DataConfig:
    """Which images or recordings, and how they are read; their size, channels and steps follow ``vqvae``.

    Attributes:
        name: Name of a dataset that ``tcvq_data.open_dataset`` knows; `tcvq data list` shows them.
        root: Folder of all datasets; null takes ``$TCVQ_DATA``, else ``~/.cache/tcvq/data``.
        limit: Use only the first so many samples of each split; null uses all.
        seed: Of splits where a dataset has no official ones, and of simulated recordings.
        hflip: Mirror half of the training images; null does as the paper does with this dataset.
        workers: Processes that decode images; null follows the dataset and the machine.
        bin_rule: How recordings are divided into steps: equal ``time``, equal ``count`` of events, or as ``tonic``.
        denoise_us: Time constant of the filter against isolated events, in microseconds; 0 leaves it out.
        stabilise: Undo N-MNIST's saccades.
        resize: How event frames get their size: ``bilinear`` or ``count``.
        scale: Count that becomes +1: the largest of the training split (``fixed``), or of the recording
            (``per_sample``).
    """

    name: str = "fashion-mini"
    root: str | None = None
    limit: int | None = None
    seed: int = 0
    hflip: bool | None = None
    workers: int | None = None
    bin_rule: Literal["time", "count", "tonic"] = "time"
    denoise_us: int = 10_000
    stabilise: bool = False
    resize: Literal["bilinear", "count"] = "bilinear"
    scale: Literal["fixed", "per_sample"] = "fixed"

    def __post_init__(self) -> None:
        """Reject numbers out of range."""
        if self.limit is not None and self.limit < 1:
            raise ValueError(f"data.limit is {self.limit}; it must be at least 1, or null for every image")
        for name in ("seed", "workers", "denoise_us"):
            value = getattr(self, name)
            if value is not None and value < 0:
                raise ValueError(f"data.{name} is {value}; it must not be negative")


@dataclass(frozen=True, kw_only=True, slots=True)
class SampleConfig:
    """How images are drawn after training.

    Attributes:
        n: Images to draw; the Fréchet distance wants about 2,000.
        temperature: Divides the logits; below 1 is safer and less varied, 0 always takes the likeliest code.
        top_k: Draw from the k likeliest codes only; null does not restrict.
        top_p: Draw from the smallest set of codes with this probability; null does not restrict.
        min_p: Draw from the codes at least so probable as this times the likeliest; null does not restrict.
        guidance: Scale of classifier-free guidance: above 1 the class is followed more strictly; needs a prior with
            ``null_class`` that was trained with ``class_dropout``.
        cache: What the prior remembers of earlier codes; ``auto`` takes what is smaller for this grid.
        micro_batch: Grids drawn at once; changes memory and speed. null takes as many as memory allows.
    """

    n: int = 2000
    temperature: float = 1.0
    top_k: int | None = None
    top_p: float | None = None
    min_p: float | None = None
    guidance: float = 1.0
    cache: Literal["auto", "state", "kv", "none"] = "auto"
    micro_batch: int | None = 200

    def __post_init__(self) -> None:
        """Reject settings that no draw can follow."""
        for name in ("n", "micro_batch"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"sample.{name} is {value}; it must be at least 1")
        if self.temperature < 0:
            raise ValueError(f"sample.temperature is {self.temperature}; it must not be negative")
        if self.top_k is not None and self.top_k < 1:
            raise ValueError(f"sample.top_k is {self.top_k}; it must be at least 1, or null")
        if self.top_p is not None and not 0 < self.top_p <= 1:
            raise ValueError(f"sample.top_p is {self.top_p}; it must lie in (0, 1], or be null")
        if self.min_p is not None and not 0 <= self.min_p <= 1:
            raise ValueError(f"sample.min_p is {self.min_p}; it must lie in [0, 1], or be null")


@dataclass(frozen=True, kw_only=True, slots=True)
class EvalConfig:
    """What is measured.

    Attributes:
        batch_size: Images encoded and decoded at once.
    """

    batch_size: int = 100

    def __post_init__(self) -> None:
        """Reject an empty batch."""
        if self.batch_size < 1:
            raise ValueError(f"eval.batch_size is {self.batch_size}; it must be at least 1")


@dataclass(frozen=True, kw_only=True, slots=True)
class CheckpointConfig:
    """When the state of training is written, and how much of it is kept; decides nothing about the result.

    Attributes:
        every_steps: Write after this many steps; null does not count steps.
        every_minutes: Write when this much time has passed since the last one; null does not watch the clock.
        keep_last: Keep this many of the newest, so that a damaged one has a predecessor.
        keep_best: Keep also the one with the best validation, also when the stage is done.
    """

    every_steps: int | None = None
    every_minutes: float | None = 10.0
    keep_last: int = 2
    keep_best: bool = True

    def __post_init__(self) -> None:
        """Reject intervals that never end, and keeping nothing."""
        for name in ("every_steps", "every_minutes"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ValueError(f"checkpoint.{name} is {value}; it must be positive, or null")
        if self.keep_last < 1:
            raise ValueError(f"checkpoint.keep_last is {self.keep_last}; it must be at least 1")


@dataclass(frozen=True, kw_only=True, slots=True)
class TrackConfig:
    """Where training can be followed, besides ``metrics.csv``; decides nothing about the result.

    Attributes:
        tensorboard: Write event files into the folder ``tensorboard`` of the run.
        wandb: Follow the run in Weights & Biases; needs the extra ``wandb``.
        mlflow: Follow the run in MLflow; needs the extra ``mlflow``.
        project: Project of Weights & Biases, experiment of MLflow.
        mlflow_uri: MLflow's server; null takes ``$MLFLOW_TRACKING_URI``, else the folder ``mlflow`` of the run.
        offline: Keep what both get in the run folder, to be sent later; nothing touches the network.
    """

    tensorboard: bool = True
    wandb: bool = False
    mlflow: bool = False
    project: str = "tcvq"
    mlflow_uri: str | None = None
    offline: bool = False

    def __post_init__(self) -> None:
        """Reject a project without a name."""
        if not self.project.strip():
            raise ValueError("track.project is empty; name the project of Weights & Biases or MLflow")


@dataclass(frozen=True, kw_only=True, slots=True)
class Recipe:
    """Everything that decides a run.

    Attributes:
        name: Names the folder below ``runs/``; letters, digits, ``.``, ``_`` and ``-``.
        seed: Every random choice follows from it.
        data: Which images.
        vqvae: Architecture of stage 1.
        loss: Objective of stage 1.
        stage1: Training of stage 1.
        prior: Architecture of stage 2; ``n_embed`` and ``grid`` follow the VQ-VAE when a recipe leaves them out,
            and so does the width of ``code_features`` where it is not 0.
        stage2: Training of stage 2.
        sample: How images are drawn.
        eval: What is measured.
        checkpoint: When the state of training is written, so that an interrupted run can continue.
        track: Where training can be followed.
    """

    name: str = "custom"
    seed: int = 0
    data: DataConfig = field(default_factory=DataConfig)
    vqvae: VQVAEConfig = field(default_factory=VQVAEConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    stage1: Stage1Config = field(default_factory=Stage1Config)
    prior: PriorConfig = field(default_factory=PriorConfig)
    stage2: Stage2Config = field(default_factory=Stage2Config)
    sample: SampleConfig = field(default_factory=SampleConfig)
    eval: EvalConfig = field(default_factory=EvalConfig)
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)
    track: TrackConfig = field(default_factory=TrackConfig)

    def __post_init__(self) -> None:
        """Reject names that are no folder name, and a prior that cannot model the VQ-VAE's codes."""
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", self.name):
            raise ValueError(
                f"name is {self.name!r}; use letters, digits, '.', '_' and '-', beginning with a letter or digit"
            )
        if not 0 <= self.seed < 2**63:
            raise ValueError(f"seed is {self.seed}; it must lie in [0, 2**63)")
        for key in FOLLOWS_VQVAE:
            ours, theirs = getattr(self.prior, key), getattr(self.vqvae, key)
            if ours != theirs:
                raise ValueError(
                    f"prior.{key} is {ours} but the VQ-VAE has {theirs}; leave prior.{key} out, it follows vqvae"
                )
        if self.prior.code_features not in (0, self.vqvae.entry_size):
            raise ValueError(
                f"prior.code_features is {self.prior.code_features}; it must be 0 or {self.vqvae.entry_size}, the "
                "numbers of a codebook entry that vqvae.n_steps and vqvae.embed_dim give"
            )
        if self.sample.cache == "state" and (self.prior.kind == "gpt" or self.prior.distance_weights):
            raise ValueError(
                "sample.cache is 'state', but a prior with kind=gpt or distance_weights has no running state; use auto"
            )
