"""Every size and option of the prior, checked when it is built; sizes default to the paper's."""

from dataclasses import dataclass
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
        for name in ("neighbourhood", "code_features"):
            if getattr(self, name) < 0:
                raise ValueError(f"prior.{name} is {getattr(self, name)}; it must not be negative")
        if not self.init_gain > 0:
            raise ValueError(f"prior.init_gain is {self.init_gain}; it must be positive")

    @property
    def n_tokens(self) -> int:
        """Length of a sequence: one token per cell of the grid."""
        return self.grid[0] * self.grid[1]
