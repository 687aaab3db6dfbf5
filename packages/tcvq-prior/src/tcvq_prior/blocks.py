"""The transformer block of the spiking prior."""

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from tcvq_neurons import LIF, merge_time
from tcvq_prior.attention import attend
from tcvq_prior.config import PriorConfig


class SpikingBlock(nn.Module):
    """x += W_o attend(LIF(W_qkv LN(x)));  x += W_2 LIF(W_1 LN(x)) on sequences ``(T, B, L, C)``.

    The neurons run over the SNN steps T and start from rest for every token, so no membrane crosses tokens.

    Args:
        config: Sizes.
    """

    def __init__(self, config: PriorConfig) -> None:
        super().__init__()
        width = config.width
        self.n_head = config.n_head
        self.ln1 = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.qkv_lif = LIF()
        self.proj = nn.Linear(width, width)
        self.ln2 = nn.LayerNorm(width)
        self.fc = nn.Linear(width, 4 * width)
        self.fc_lif = LIF()
        self.out = nn.Linear(4 * width, width)
        self.dropout = nn.Dropout(config.dropout)

    def forward(
        self, x_seq: Float[Tensor, "T B L C"], state: Float[Tensor, "T B heads d d"] | None = None
    ) -> tuple[Float[Tensor, "T B L C"], Float[Tensor, "T B heads d d"]]:
        """Map a chunk of tokens, given the attention state of the tokens before it."""
        spikes = self.qkv_lif(merge_time(lambda x: self.qkv(self.ln1(x)), x_seq))
        q, k, v = rearrange(spikes, "t b l (three heads d) -> three t b heads l d", three=3, heads=self.n_head)
        y, state = attend(q, k, v, state)
        x_seq = x_seq + self.dropout(self.proj(rearrange(y, "t b heads l d -> t b l (heads d)")))
        h = self.fc_lif(merge_time(lambda x: self.fc(self.ln2(x)), x_seq))
        return x_seq + self.dropout(self.out(h)), state

    def reset_parameters(self, gain: float) -> None:
        """Draw weights with deviation ``gain / √fan_in`` and zero biases."""
        for linear in (self.qkv, self.proj, self.fc, self.out):
            nn.init.normal_(linear.weight, std=gain * linear.in_features**-0.5)
            nn.init.zeros_(linear.bias)


def firing_rates(block: SpikingBlock, x_seq: Float[Tensor, "T B L C"]) -> dict[str, Float[Tensor, ""]]:
    """Mean firing rate of the queries, keys and values, and of the MLP of a block."""
    with torch.no_grad():
        spikes = block.qkv_lif(block.qkv(block.ln1(x_seq)))
        mlp = block.fc_lif(block.fc(block.ln2(x_seq)))
    rates = {name: part.mean() for name, part in zip("qkv", spikes.chunk(3, dim=-1), strict=True)}
    return {**rates, "mlp": mlp.mean()}
