"""The transformer blocks: one that computes with spikes, and the usual one to compare it with."""

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from tcvq_neurons import LIF, QuadraticGate, merge_time
from tcvq_prior.attention import softmax_attention, spiking_attention
from tcvq_prior.cache import LayerCache
from tcvq_prior.config import PriorConfig
from tcvq_prior.positions import DistanceWeights, Rotary
from tcvq_prior.stepping import fire, is_plain_step, linear, loops_for


class Block(nn.Module):
    """x += W_o attend(φ(W_qkv LN(x)));  x += W_2 ψ(W_1 LN(x)) on sequences ``(T, B, L, C)``.

    A subclass says what φ, attend and ψ are.

    Args:
        config: Sizes.
    """

    def __init__(self, config: PriorConfig) -> None:
        super().__init__()
        width = config.width
        self.n_head = config.n_head
        self.ln1 = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)
        self.ln2 = nn.LayerNorm(width)
        self.fc = nn.Linear(width, 4 * width)
        self.out = nn.Linear(4 * width, width)
        self.dropout = nn.Dropout(config.dropout)
        self.rotary = Rotary(config.grid, width // config.n_head) if config.rotary else None

    def forward(
        self, x_seq: Float[Tensor, "T B L C"], cache: LayerCache | None = None, first: int = 0
    ) -> Float[Tensor, "T B L C"]:
        """Map a chunk of tokens, given a memory of the ``first`` tokens before it."""
        projected = self.project(x_seq)
        q, k, v = rearrange(projected, "t b l (three heads d) -> three t b heads l d", three=3, heads=self.n_head)
        y = self.attend(q, k, v, cache, first)
        x_seq = x_seq + self.dropout(self.proj(rearrange(y, "t b heads l d -> t b l (heads d)")))
        return x_seq + self.dropout(self.out(self.hidden(x_seq)))

    def project(self, x_seq: Float[Tensor, "T B L C"]) -> Float[Tensor, "T B L 3*C"]:
        """Return queries, keys and values."""
        raise NotImplementedError

    def attend(
        self,
        q: Float[Tensor, "T B heads L d"],
        k: Float[Tensor, "T B heads L d"],
        v: Float[Tensor, "T B heads L d"],
        cache: LayerCache | None,
        first: int,
    ) -> Float[Tensor, "T B heads L d"]:
        """Return what each token takes from itself and those before it."""
        raise NotImplementedError

    def hidden(self, x_seq: Float[Tensor, "T B L C"]) -> Float[Tensor, "T B L 4*C"]:
        """Return the hidden units of the MLP."""
        raise NotImplementedError

    def reset_parameters(self, gain: float) -> None:
        """Draw weights with deviation ``gain / √fan_in`` and zero biases."""
        for layer in (self.qkv, self.proj, self.fc, self.out):
            nn.init.normal_(layer.weight, std=gain * layer.in_features**-0.5)
            nn.init.zeros_(layer.bias)


class SpikingBlock(Block):
    """A block whose queries, keys, values and hidden units are spikes, and whose attention has no softmax.

    The neurons run over the SNN steps T and start from rest for every token, so no membrane crosses tokens.

    Args:
        config: Sizes.
    """

    def __init__(self, config: PriorConfig) -> None:
        super().__init__(config)
        self.chunk = config.attention_chunk
        self.by_position = config.attention_norm == "position"
        self.distance = (
            DistanceWeights(config.grid, config.n_head, config.n_code_steps) if config.distance_weights else None
        )
        self.qkv_lif, self.fc_lif = (LIF(surrogate=QuadraticGate(config.surrogate_alpha)) for _ in range(2))

    def forward(
        self, x_seq: Float[Tensor, "T B L C"], cache: LayerCache | None = None, first: int = 0
    ) -> Float[Tensor, "T B L C"]:
        """Map a chunk of tokens as `Block.forward` does; a single one in fewer calls where nobody needs the layers."""
        if cache is None or not is_plain_step(self, x_seq):
            return super().forward(x_seq, cache, first)
        return self._step(x_seq, cache, first)

    def _step(self, x_seq: Float[Tensor, "T B 1 C"], cache: LayerCache, first: int) -> Float[Tensor, "T B 1 C"]:
        n_steps, n_batch, _, width = x_seq.shape
        once = x_seq[:1] if x_seq.stride(0) == 0 else x_seq  # direct coding: every step is the same
        current = linear(self.qkv, self.ln1(once.reshape(-1, width))).view(-1, n_batch, 3 * width)
        y = self._attend_step(current, n_steps, cache, first)
        x = linear(self.proj, y.reshape(-1, width)).view(x_seq.shape).add_(x_seq).view(-1, width)
        hidden = fire(linear(self.fc, self.ln2(x)).view(n_steps, -1), n_steps, self.fc_lif)
        return x.add_(linear(self.out, hidden.view(len(x), -1))).view(x_seq.shape)

    def _attend_step(
        self, current: Float[Tensor, "T_or_1 B C3"], n_steps: int, cache: LayerCache, first: int
    ) -> Float[Tensor, "T B heads 1 d"]:
        """Attend from the token whose queries, keys and values have these input currents."""
        state = cache.state if cache.kind == "state" and self.rotary is None else None
        if state is not None and (state.requires_grad or state.shape[1] != current.shape[1]):
            state = None  # torch's operations see what is wrong
        if state is not None and (loops := loops_for(current, state)) is not None:
            y = loops.attend(current, state, self.qkv_lif.config)
            return self._normalised(y.view(n_steps, -1, self.n_head, 1, state.shape[-1]), first)
        spikes = fire(current, n_steps, self.qkv_lif)
        q, k, v = spikes.view(*spikes.shape[:2], 3, self.n_head, 1, -1).unbind(2)
        return self.attend(q, k, v, cache, first)

    def project(self, x_seq: Float[Tensor, "T B L C"]) -> Float[Tensor, "T B L 3*C"]:
        """Return the spikes of queries, keys and values."""
        if x_seq.stride(0) == 0:  # direct coding, before the first neuron: every step is the same
            return self.qkv_lif(self.qkv(self.ln1(x_seq[0])).expand(x_seq.shape[0], -1, -1, -1))
        return self.qkv_lif(merge_time(lambda x: self.qkv(self.ln1(x)), x_seq))

    def attend(
        self,
        q: Float[Tensor, "T B heads L d"],
        k: Float[Tensor, "T B heads L d"],
        v: Float[Tensor, "T B heads L d"],
        cache: LayerCache | None,
        first: int,
    ) -> Float[Tensor, "T B heads L d"]:
        """Count coincident spikes; with ``attention_norm`` their mean over the tokens seen."""
        weights = None if self.distance is None else self.distance(first, first + q.shape[-2])
        y = spiking_attention(q, k, v, cache, first, rotary=self.rotary, weights=weights, chunk=self.chunk)
        return self._normalised(y, first)

    def _normalised(self, y: Float[Tensor, "T B heads L d"], first: int) -> Float[Tensor, "T B heads L d"]:
        """Return the counts of coincident spikes, or their means over the tokens seen."""
        if not self.by_position:
            return y
        seen = torch.arange(first + 1, first + 1 + y.shape[-2], device=y.device)[:, None]
        return (y / seen.to(torch.promote_types(y.dtype, torch.float32))).to(y.dtype)  # bfloat16 counts to 256 only

    def hidden(self, x_seq: Float[Tensor, "T B L C"]) -> Float[Tensor, "T B L 4*C"]:
        """Return the spikes of the MLP."""
        return self.fc_lif(merge_time(lambda x: self.fc(self.ln2(x)), x_seq))


class GPTBlock(Block):
    """The block of a GPT: softmax attention and GELU (Radford et al. 2019); T is 1.

    Args:
        config: Sizes.
    """

    def project(self, x_seq: Float[Tensor, "T B L C"]) -> Float[Tensor, "T B L 3*C"]:
        """Return queries, keys and values."""
        return self.qkv(self.ln1(x_seq))

    def attend(
        self,
        q: Float[Tensor, "T B heads L d"],
        k: Float[Tensor, "T B heads L d"],
        v: Float[Tensor, "T B heads L d"],
        cache: LayerCache | None,
        first: int,
    ) -> Float[Tensor, "T B heads L d"]:
        """Weigh values by a softmax."""
        return softmax_attention(q, k, v, cache, first, rotary=self.rotary)

    def hidden(self, x_seq: Float[Tensor, "T B L C"]) -> Float[Tensor, "T B L 4*C"]:
        """Return the hidden units of the MLP."""
        return F.gelu(self.fc(self.ln2(x_seq)))


def firing_rates(block: SpikingBlock, x_seq: Float[Tensor, "T B L C"]) -> dict[str, Float[Tensor, ""]]:
    """Mean firing rate of the queries, keys and values, and of the MLP of a block."""
    with torch.no_grad():
        spikes, mlp = block.project(x_seq), block.hidden(x_seq)
    rates = {name: part.mean() for name, part in zip("qkv", spikes.chunk(3, dim=-1), strict=True)}
    return {**rates, "mlp": mlp.mean()}
