"""What is random in training, as a function of seed, step and place in the batch."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor


@dataclass(frozen=True, kw_only=True, slots=True)
class Corruption:
    """The random choices for the rows ``first`` … of one step's batch.

    Every step draws its numbers for the whole batch from a generator of its own, so that a restart changes nothing, nor
    does the division of the batch over processes.

    Attributes:
        seed: Of the training.
        step: Number of the step.
        n_rows: Grids in the step's whole batch.
        first: Place of the first grid of this process in it.
        n_embed: Number of codes.
        n_classes: Number of classes; also the label that means "no class".
        pkeep: Probability that a code stays.
        class_dropout: Probability that a class is hidden.
    """

    seed: int
    step: int
    n_rows: int
    first: int
    n_embed: int
    n_classes: int
    pkeep: float
    class_dropout: float

    def __call__(
        self, tokens: Int[Tensor, "B L"], labels: Int[Tensor, " B"]
    ) -> tuple[Int[Tensor, "B L"], Int[Tensor, " B"]]:
        """Return tokens of which some are replaced by random codes, and labels of which some are hidden."""
        rng = np.random.default_rng([self.seed, self.step])
        mine = slice(self.first, self.first + len(tokens))

        def drawn(values: np.ndarray) -> Tensor:
            return torch.from_numpy(values[mine]).to(tokens.device)

        if self.class_dropout:
            labels = labels.masked_fill(drawn(rng.random(self.n_rows) < self.class_dropout), self.n_classes)
        if self.pkeep < 1:
            shape = (self.n_rows, tokens.shape[1])
            kept, others = drawn(rng.random(shape) < self.pkeep), drawn(rng.integers(self.n_embed, size=shape))
            tokens = torch.where(kept, tokens, others)
        return tokens, labels

    @contextmanager
    def dropout(self, device: torch.device) -> Iterator[None]:
        """Give torch's own generators, which dropout draws from, a state of this step and place for a while."""
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            torch.manual_seed(int(np.random.SeedSequence([self.seed, self.step, self.first]).generate_state(1)[0]))
            yield
