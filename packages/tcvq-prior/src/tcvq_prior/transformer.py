"""The priors: a GPT whose queries, keys, values and MLP are spikes, and the usual GPT behind the same protocol."""

from typing import ClassVar, cast

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from tcvq_prior.blocks import Block, GPTBlock, SpikingBlock
from tcvq_prior.cache import AttentionCache
from tcvq_prior.config import PriorConfig
from tcvq_prior.embedding import CodeEmbedding, CodeTable
from tcvq_prior.interface import Cache, CacheChoice, CacheKind
from tcvq_prior.sampling import sample_grids


class CodeTransformer(nn.Module):
    """Autoregressive distribution over grids of code indices, optionally given a class; subclasses choose the blocks.

    The start token and the classes have embeddings of their own, apart from the codes; the head has K outputs. Logits
    are the head applied to the mean of the final features over the SNN steps.

    Args:
        config: Sizes and options.
        features: Fixed description of each code, needed where ``config.code_features`` is not 0; it is centred and
            scaled to unit variance. May be left to `load_state_dict`.

    Attributes:
        checkpoint_blocks: Compute each block again in the backward instead of keeping its activations.

    Raises:
        ValueError: If the features do not have the shape that the configuration names.
    """

    block_type: ClassVar[type[Block]]
    features: Tensor

    def __init__(self, config: PriorConfig, features: Float[Tensor, "K F"] | None = None) -> None:
        super().__init__()
        self.config, self.sequence = config, config.sequence
        self.n_embed, self.grid, self.n_classes = config.n_embed, config.grid, config.n_classes
        self.null_class = config.n_classes if config.null_class else None
        self.n_steps = config.n_steps
        self.checkpoint_blocks = False
        self.register_buffer("features", torch.zeros(config.n_embed, config.code_features))
        if features is not None and config.code_features:
            if features.shape != self.features.shape:
                raise ValueError(
                    f"code features are {tuple(features.shape)}; the prior was built for {tuple(self.features.shape)}"
                )
            centred = features - features.mean(0)
            self.features.copy_(centred / centred.std().clamp(min=1e-12))
        self.table = CodeTable(config)
        self.embedding = CodeEmbedding(self.sequence)
        blocks = [self.block_type(self.sequence) for _ in range(config.n_layer)]
        for block in blocks:
            block.reset_parameters(config.init_gain)
        self.blocks = nn.ModuleList(blocks)
        self.ln_f = nn.LayerNorm(config.width)
        self.head = self.table if config.tie_weights else CodeTable(config)

    @property
    def device(self) -> torch.device:
        """Where the prior computes."""
        return self.features.device

    def forward(
        self, tokens: Int[Tensor, "B L"], labels: Int[Tensor, " B"] | None = None
    ) -> Float[Tensor, "B L_out K"]:
        """Return the logits of positions 0 … min(L, H·W − 1); output i depends on tokens before i only.

        Args:
            tokens: The known codes, raster order.
            labels: Class of each row; ``null_class``, or None for all rows, where the prior knows "no class".

        Raises:
            ValueError: If there are more tokens than cells, or labels are missing or not wanted.
        """
        return self._logits(tokens, labels, 0, None)

    def extend(
        self, tokens: Int[Tensor, "B L"], labels: Int[Tensor, " B"] | None, position: int, cache: Cache | None
    ) -> tuple[Float[Tensor, "B P K"], AttentionCache]:
        """Compute the positions from ``position`` on, given a cache of all positions before it.

        Args:
            tokens: All codes known so far, raster order; the first ``position`` of them are in the cache already.
            labels: Class of each row, as for `forward`.
            position: Number of positions that the cache has seen.
            cache: From `new_cache` or the call before, used up by this one; None begins with an empty one.

        Returns:
            Logits of positions ``position`` … min(L, H·W − 1), and the cache after them.

        Raises:
            ValueError: As for `forward`, or if the cache has seen another number of positions.
        """
        if cache is None:
            cache = self.new_cache()
        if cache.length != position:
            raise ValueError(
                f"position is {position}, but the cache has seen {cache.length} positions; pass its length"
            )
        cache = cast(AttentionCache, cache)
        if cache.kind == "none":
            logits = self._logits(tokens, labels, 0, None)[:, position:]
        else:
            logits = self._logits(tokens, labels, position, cache)
        cache.length = position + logits.shape[1]
        return logits, cache

    def new_cache(self, kind: CacheChoice = "auto") -> AttentionCache:
        """Return an empty cache.

        Args:
            kind: ``auto``, or one of the prior's own kinds.

        Raises:
            ValueError: If the prior has no cache of that kind.
        """
        return AttentionCache(self.cache_kind(kind), self.config.n_layer, self.sequence.n_tokens)

    def cache_kind(self, kind: CacheChoice = "auto") -> CacheKind:
        """Return the kind that ``auto`` stands for.

        Raises:
            ValueError: If the prior has no cache of that kind.
        """
        raise NotImplementedError

    def cache_bytes(self, rows: int, kind: CacheChoice = "auto") -> int:
        """Return the bytes that a cache of ``rows`` full grids holds."""
        raise NotImplementedError

    def _logits(self, tokens: Tensor, labels: Tensor | None, position: int, cache: AttentionCache | None) -> Tensor:
        if tokens.shape[1] > self.config.n_tokens:
            raise ValueError(
                f"{tokens.shape[1]} tokens for a grid of {self.grid}, which has {self.config.n_tokens} cells"
            )
        labels, stop = self._labels(labels, tokens), min(tokens.shape[1] + 1, self.config.n_tokens)
        table, head = self._tables(cache)
        parts, length = [head.new_zeros(len(tokens), 0, self.n_embed)], self.sequence.n_tokens
        while position < stop:  # once, but for steps that know nothing of each other: each is a sequence of its own
            begin = position - position % length
            end = min(stop, begin + length)
            if cache is not None and position == begin:
                cache.clear()
            span = slice(position - begin, end - begin)
            x = self.embedding(table, tokens[:, begin : begin + length], labels, span)
            parts.append(self._features(x, span.start, cache) @ head.t())
            position = end
        return torch.cat(parts, dim=1) if len(parts) > 2 else parts[-1]

    def _features(self, x: Float[Tensor, "B P C"], first: int, cache: AttentionCache | None) -> Float[Tensor, "B P C"]:
        """Return what the head sees of the positions from ``first`` on."""
        x_seq = x.expand(self.n_steps, *x.shape)
        for i, block in enumerate(self.blocks):
            if self.checkpoint_blocks and cache is None and torch.is_grad_enabled():
                x_seq = checkpoint(block, x_seq, use_reentrant=False)
            else:
                x_seq = block(x_seq, None if cache is None else cache.layers[i], first)
        return self.ln_f(x_seq).mean(0)

    def _tables(self, cache: AttentionCache | None) -> tuple[Float[Tensor, "K C"], Float[Tensor, "K C"]]:
        """Return what embeds the codes and what scores them; a cache keeps them from one position to the next."""
        if cache is not None and cache.tables is not None:
            return cache.tables
        table = self.table(self.features)
        tables = table, table if self.head is self.table else self.head(self.features)
        if cache is not None and not torch.is_grad_enabled():
            cache.tables = tables
        return tables

    def _labels(self, labels: Tensor | None, tokens: Tensor) -> Tensor:
        if labels is None and self.null_class is not None:
            return tokens.new_full(tokens.shape[:1], self.null_class)
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
        """Draw grids; see `tcvq_prior.sampling.sample_grids`."""
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


class SpikingPrior(CodeTransformer):
    """The spiking GPT of the paper; attention has no softmax, so its cache may be one d×d state of counts per head."""

    block_type = SpikingBlock

    def cache_kind(self, kind: CacheChoice = "auto") -> CacheKind:
        """Return the kind of cache; ``auto`` is the smaller of ``kv`` at full length and ``state``.

        Raises:
            ValueError: For ``state``, if pairs of tokens are weighed by their distance.
        """
        if self.config.distance_weights:
            if kind == "state":
                raise ValueError(
                    "cache kind is 'state'; weights of distances (prior.distance_weights) have none, use 'kv', 'none' "
                    "or 'auto'"
                )
            return "kv" if kind == "auto" else kind
        if kind == "auto":
            return "kv" if self.cache_bytes(1, "kv") < self.cache_bytes(1, "state") else "state"
        return kind

    def cache_bytes(self, rows: int, kind: CacheChoice = "auto") -> int:
        """Return the bytes that a cache of ``rows`` full grids holds: one byte per spike, or one number per count."""
        kind = self.cache_kind(kind)
        neurons = self.config.n_layer * self.n_steps * rows * self.config.width
        if kind == "kv":
            return 2 * neurons * self.sequence.n_tokens
        number = torch.promote_types(self.ln_f.weight.dtype, torch.float32).itemsize
        return neurons * (self.config.width // self.config.n_head) * number if kind == "state" else 0


class GPTPrior(CodeTransformer):
    """The non-spiking baseline: softmax attention and GELU, with the same inputs, options and protocol.

    ``config.n_steps`` has no meaning here.
    """

    block_type = GPTBlock

    def __init__(self, config: PriorConfig, features: Float[Tensor, "K F"] | None = None) -> None:
        super().__init__(config, features)
        self.n_steps = 1

    def cache_kind(self, kind: CacheChoice = "auto") -> CacheKind:
        """Return the kind of cache; ``auto`` is ``kv``.

        Raises:
            ValueError: For ``state``: a softmax has no running state.
        """
        if kind == "state":
            raise ValueError("cache kind is 'state'; softmax attention has none, use 'kv', 'none' or 'auto'")
        return "kv" if kind == "auto" else kind

    def cache_bytes(self, rows: int, kind: CacheChoice = "auto") -> int:
        """Return the bytes that a cache of ``rows`` full grids holds."""
        numbers = 2 * self.config.n_layer * rows * self.config.width * self.sequence.n_tokens
        return numbers * self.ln_f.weight.element_size() if self.cache_kind(kind) == "kv" else 0


def build_prior(config: PriorConfig, features: Float[Tensor, "K F"] | None = None) -> CodeTransformer:
    """Return the prior that a configuration names, with the arguments of `SpikingPrior`."""
    return {"spiking": SpikingPrior, "gpt": GPTPrior}[config.kind](config, features)
