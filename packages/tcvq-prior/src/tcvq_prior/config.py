"""Every size and option of the prior, checked when it is built; sizes default to the paper's."""

from dataclasses import dataclass, replace
from typing import Literal, get_args

PriorKind = Literal["spiking", "gpt"]


@dataclass(frozen=True, kw_only=True, slots=True)
class PriorConfig:
    """Architecture of the autoregressive prior.

    Attributes:
        kind: ``spiking`` is the paper's; ``gpt`` the usual GPT with the same inputs, to compare it with.
        n_embed: Number of code ids K; the head has exactly K outputs.
        grid: Height and width of the grid of indices.
        n_classes: Number of classes; 0 is an unconditional prior.
        null_class: Have one more label, ``n_classes``, for "no class", as classifier-free guidance needs.
        n_layer: Transformer blocks.
        n_head: Attention heads.
        width: Channels C; a multiple of ``n_head``.
        n_steps: SNN steps, independent of the codec's.
        dropout: Dropout after attention and MLP.
        neighbourhood: Radius r of the causal stem: the embeddings of the known codes within r rows and columns of a
            site are added to its input; 0 is the plain GPT of the paper, which sees the previous code only.
        class_everywhere: Add the class embedding at every position, not only at the first.
        code_features: Width F of a fixed description of each code (its codebook entry), from which input embeddings
            and output weights are predicted in addition to their learned tables; 0 learns the tables alone.
        positions: ``learned``: a vector per site; ``grid``: the sum of one per row and one per column.
        rotary: Turn queries and keys by row and column, so that attention knows distances; the width of a head must be
            a multiple of 4. The state of a spiking prior is then no longer made of integers.
        attention_norm: ``position`` divides the attention of a spiking prior at position n by n + 1, so that it does
            not grow along the sequence; ``none`` is the paper's.
        distance_weights: Each head of a spiking prior multiplies the count of a pair of tokens by a learned number for
            their offset in rows and columns; far pairs begin with less. There is then no running state, only ``kv``.
        attention_chunk: Tokens whose pairs a spiking prior forms at a time in training, so that memory grows with the
            length instead of its square; 0 forms all at once.
        tie_weights: The head scores codes by the table that embeds them.
        per_step: How indices of single time steps are modelled, T = ``n_code_steps`` grids one below the other:
            ``joint`` as one sequence, ``independent`` each without knowing the others, as the paper's ablation;
            ``none`` for indices of whole trajectories.
        n_code_steps: Grids that lie one below the other; 1 unless ``per_step``.
        surrogate_alpha: Height of the surrogate derivative max(0, α - α²|u|) of the neurons, and 1 / its half-width;
            2 is the paper's.
        init_gain: Gain c of the weights that feed a neuron, drawn with deviation c/√fan_in; 0.64 is the paper's 0.02
            at width 1024, and keeps narrow networks firing.
    """

    kind: PriorKind = "spiking"
    n_embed: int = 1024
    grid: tuple[int, int] = (2, 2)
    n_classes: int = 0
    null_class: bool = False
    n_layer: int = 24
    n_head: int = 16
    width: int = 1024
    n_steps: int = 2
    dropout: float = 0.0
    neighbourhood: int = 0
    class_everywhere: bool = False
    code_features: int = 0
    positions: Literal["learned", "grid"] = "learned"
    rotary: bool = False
    attention_norm: Literal["none", "position"] = "none"
    distance_weights: bool = False
    attention_chunk: int = 0
    tie_weights: bool = False
    per_step: Literal["none", "joint", "independent"] = "none"
    n_code_steps: int = 1
    surrogate_alpha: float = 2.0
    init_gain: float = 0.64

    def __post_init__(self) -> None:
        """Reject sizes that no network can be built from, naming the field."""
        if self.kind not in get_args(PriorKind):
            raise ValueError(f"prior.kind is {self.kind!r}; it must be one of {', '.join(get_args(PriorKind))}")
        for name in ("n_embed", "n_layer", "n_head", "width", "n_steps"):
            if getattr(self, name) < 1:
                raise ValueError(f"prior.{name} is {getattr(self, name)}; it must be at least 1")
        if min(self.grid) < 1:
            raise ValueError(f"prior.grid is {self.grid}; both sides must be at least 1")
        if self.n_classes < 0:
            raise ValueError(f"prior.n_classes is {self.n_classes}; it must not be negative")
        if self.null_class and not self.n_classes:
            raise ValueError("prior.null_class is set without classes; set prior.n_classes, or leave null_class out")
        if self.width % self.n_head:
            raise ValueError(f"prior.width is {self.width}; it must be a multiple of n_head {self.n_head}")
        if not 0.0 <= self.dropout < 1.0:
            raise ValueError(f"prior.dropout is {self.dropout}; it must lie in [0, 1)")
        self._check_options()
        for name in ("neighbourhood", "code_features", "attention_chunk"):
            if getattr(self, name) < 0:
                raise ValueError(f"prior.{name} is {getattr(self, name)}; it must not be negative")
        for name in ("surrogate_alpha", "init_gain"):
            if not getattr(self, name) > 0:
                raise ValueError(f"prior.{name} is {getattr(self, name)}; it must be positive")

    def _check_options(self) -> None:
        head = self.width // self.n_head
        if self.rotary and head % 4:
            raise ValueError(f"prior.rotary needs a multiple of 4 channels per head; width / n_head is {head}")
        if self.kind == "gpt" and (self.attention_norm != "none" or self.attention_chunk or self.distance_weights):
            raise ValueError(
                "prior.attention_norm, attention_chunk and distance_weights are for kind=spiking; a softmax needs none"
            )
        if self.distance_weights and self.attention_chunk:
            raise ValueError("prior.distance_weights needs all pairs of tokens at once; set prior.attention_chunk=0")
        if (self.per_step == "none") != (self.n_code_steps == 1):
            raise ValueError(
                f"prior.per_step is {self.per_step} with n_code_steps {self.n_code_steps}; "
                "indices of single steps need per_step=joint or independent and n_code_steps >= 2"
            )
        if self.n_code_steps < 1 or self.grid[0] % self.n_code_steps:
            raise ValueError(
                f"prior.n_code_steps is {self.n_code_steps}; it must divide the {self.grid[0]} rows of grid"
            )

    @property
    def site_grid(self) -> tuple[int, int]:
        """Height and width of the grid of one step."""
        return self.grid[0] // self.n_code_steps, self.grid[1]

    @property
    def sequence(self) -> "PriorConfig":
        """Configuration of what the network sees as one sequence: the grid, or that of a single independent step."""
        if self.per_step != "independent":
            return self
        return replace(self, grid=self.site_grid, per_step="none", n_code_steps=1)

    @property
    def n_tokens(self) -> int:
        """Length of a sequence: one token per cell of the grid."""
        return self.grid[0] * self.grid[1]
