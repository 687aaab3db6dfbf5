"""The spiking autoregressive prior: a GPT whose queries, keys, values and MLP are spikes."""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from tcvq_prior.blocks import SpikingBlock
from tcvq_prior.config import PriorConfig
from tcvq_prior.embedding import CodeEmbedding, CodeTable
from tcvq_prior.sampling import sample_grids

State = list[Float[Tensor, "T B heads d d"]]


class SpikingPrior(nn.Module):
    """Autoregressive distribution over grids of code indices, optionally given a class.

    The start token and the classes have embeddings of their own, apart from the codes; the head has K outputs. Logits
    are the head applied to the mean of the final features over the SNN steps.

    Args:
        config: Sizes and options.
        features: Fixed description of each code, needed where ``config.code_features`` is not 0; it is centred and
            scaled to unit variance. May be left to `load_state_dict`.

    Raises:
        ValueError: If the features do not have the shape that the configuration names.
    """

    features: Tensor

    def __init__(self, config: PriorConfig, features: Float[Tensor, "K F"] | None = None) -> None:
        super().__init__()
        self.config = config
        self.n_embed, self.grid, self.n_classes = config.n_embed, config.grid, config.n_classes
        self.register_buffer("features", torch.zeros(config.n_embed, config.code_features))
        if features is not None and config.code_features:
            if features.shape != self.features.shape:
                raise ValueError(
                    f"code features are {tuple(features.shape)}; the prior was built for {tuple(self.features.shape)}"
                )
            centred = features - features.mean(0)
            self.features.copy_(centred / centred.std().clamp(min=1e-12))
        self.table = CodeTable(config)
        self.embedding = CodeEmbedding(config)
        blocks = [SpikingBlock(config) for _ in range(config.n_layer)]
        for block in blocks:
            block.reset_parameters(config.init_gain)
        self.blocks = nn.ModuleList(blocks)
        self.ln_f = nn.LayerNorm(config.width)
        self.head = CodeTable(config)

    def forward(
        self, tokens: Int[Tensor, "B L"], labels: Int[Tensor, " B"] | None = None
    ) -> Float[Tensor, "B L_out K"]:
        """Return the logits of positions 0 … min(L, H·W − 1); output i depends on tokens before i only.

        Raises:
            ValueError: If there are more tokens than cells, or labels are missing or not wanted.
        """
        if tokens.shape[1] > self.config.n_tokens:
            raise ValueError(
                f"{tokens.shape[1]} tokens for a grid of {self.grid}, which has {self.config.n_tokens} cells"
            )
        return self.extend(tokens, labels, 0, None)[0]

    def extend(
        self, tokens: Int[Tensor, "B L"], labels: Int[Tensor, " B"] | None, position: int, state: State | None
    ) -> tuple[Float[Tensor, "B P K"], State]:
        """Compute the positions from ``position`` on, given the state of all positions before it.

        Args:
            tokens: All codes known so far, raster order; the first ``position`` of them are in the state already.
            labels: Class of each row.
            position: Number of positions that the state has seen.
            state: One attention state per block; None at position 0.

        Returns:
            Logits of positions ``position`` … min(L, H·W − 1), and the state after them.
        """
        labels = self._check_labels(labels, tokens)
        stop = min(tokens.shape[1] + 1, self.config.n_tokens)
        x = self.embedding(self.table(self.features), tokens, labels, slice(position, stop))
        x_seq = x.expand(self.config.n_steps, *x.shape)
        after: State = []
        for i, block in enumerate(self.blocks):
            x_seq, s = block(x_seq, None if state is None else state[i])
            after.append(s)
        return self.ln_f(x_seq).mean(0) @ self.head(self.features).t(), after

    def _check_labels(self, labels: Tensor | None, tokens: Tensor) -> Tensor:
        if (labels is None) == bool(self.n_classes):
            raise ValueError(
                f"the prior has {self.n_classes} classes; labels were {'not ' if labels is None else ''}given"
            )
        return tokens.new_zeros(tokens.shape[0]) if labels is None else labels

    def sample(
        self,
        n: int,
        *,
        labels: Int[Tensor, " n"] | None = None,
        temperature: float = 1.0,
        top_k: int | None = None,
        top_p: float | None = None,
        seed: int = 0,
        micro_batch: int = 64,
    ) -> Int[Tensor, "n H W"]:
        """Draw grids with the running state; see `tcvq_prior.sampling.sample_grids`."""
        return sample_grids(
            self,
            n,
            labels=labels,
            temperature=temperature,
            top_k=top_k,
            top_p=top_p,
            seed=seed,
            micro_batch=micro_batch,
        )
