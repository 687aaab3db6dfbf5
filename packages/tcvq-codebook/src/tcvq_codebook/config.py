"""The options of a codebook, checked when they are given."""

import math
from dataclasses import dataclass
from typing import Any, Literal, TypedDict, get_args

Init = Literal["kmeans", "data", "uniform"]
Similarity = Literal["l2", "cosine"]
Norm = Literal["trajectory", "step"]
Update = Literal["gradient", "ema"]
Estimator = Literal["straight_through", "rotation"]


@dataclass(frozen=True, kw_only=True, slots=True)
class CodebookConfig:
    """Sizes and options of a temporal codebook.

    Attributes:
        n_embed: Number of entries K.
        embed_dim: Width D of one step of an entry.
        n_steps: Number of steps T.
        beta: Weight of the commitment term (van den Oord et al. 2017, eq. 3).
        legacy_beta: Put ``beta`` on the codebook term instead, as the paper's released code does.
        init: Where the first codes come from. ``uniform`` is U(−1/K, 1/K) at construction, as in the paper. ``data``
            (random sites) and ``kmeans`` (their clusters) wait for training latents.
        similarity: ``l2`` compares latents and entries as they are; ``cosine`` scales both to unit length first, and
            output and loss are those of the scaled ones.
        norm: What has unit length under ``cosine``: the whole ``trajectory``, or every ``step`` of it.
        update: Entries follow the ``gradient`` of the codebook term, or are moving averages (``ema``) of their sites.
        decay: γ of the moving averages.
        eps: Laplace smoothing ε of the moving counts.
        estimator: How the gradient of the output reaches the latents: ``straight_through`` copies it, ``rotation``
            turns and scales it as the latent had to be turned and scaled to become the entry.
        step_weights: w_t of each step in the distance Σ_t w_t ‖z_t − e_t‖² that the search minimises; None is 1. The
            loss and the averages do not use them: what is best for an entry does not depend on them.
        max_bytes: Bound on the extra memory of the search, in bytes.
    """

    n_embed: int
    embed_dim: int
    n_steps: int
    beta: float = 0.25
    legacy_beta: bool = False
    init: Init = "kmeans"
    similarity: Similarity = "l2"
    norm: Norm = "trajectory"
    update: Update = "gradient"
    decay: float = 0.99
    eps: float = 1e-5
    estimator: Estimator = "straight_through"
    step_weights: tuple[float, ...] | None = None
    max_bytes: int = 64 * 2**20

    def __post_init__(self) -> None:
        """Reject what no codebook can be built from.

        Raises:
            ValueError: If a size, number or name is out of range; says which.
        """
        if min(self.n_embed, self.embed_dim, self.n_steps) < 1:
            sizes = f"n_embed={self.n_embed}, embed_dim={self.embed_dim}, n_steps={self.n_steps}"
            raise ValueError(f"codebook sizes must be at least 1, got {sizes}")
        if not (math.isfinite(self.beta) and self.beta >= 0):
            raise ValueError(f"beta must be finite and 0 or more, got {self.beta}")
        if not 0 <= self.decay < 1:
            raise ValueError(f"decay must be at least 0 and below 1, got {self.decay}")
        if not (math.isfinite(self.eps) and self.eps > 0):
            raise ValueError(f"eps must be finite and above 0, got {self.eps}; 1e-5 suits most codebooks")
        if self.max_bytes < 1:
            raise ValueError(f"max_bytes must be at least 1, got {self.max_bytes}")
        for name, names in _NAMES.items():
            if getattr(self, name) not in get_args(names):
                raise ValueError(f"{name} must be one of {', '.join(get_args(names))}, got {getattr(self, name)!r}")
        self._check_step_weights()

    def _check_step_weights(self) -> None:
        weights = self.step_weights
        if weights is None:
            return
        if len(weights) != self.n_steps:
            raise ValueError(f"step_weights has {len(weights)} weights for {self.n_steps} steps; give one for each")
        if not all(math.isfinite(w) and w >= 0 for w in weights) or sum(weights) == 0:
            raise ValueError(f"step_weights must be finite, 0 or more, and not all 0, got {weights}")


class CodebookOptions(TypedDict, total=False):
    """The fields of `CodebookConfig` that are not sizes, as keyword arguments."""

    beta: float
    legacy_beta: bool
    init: Init
    similarity: Similarity
    norm: Norm
    update: Update
    decay: float
    eps: float
    estimator: Estimator
    step_weights: tuple[float, ...] | None
    max_bytes: int


_NAMES: dict[str, Any] = {
    "init": Init,
    "similarity": Similarity,
    "norm": Norm,
    "update": Update,
    "estimator": Estimator,
}
