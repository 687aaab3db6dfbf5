"""Causal spiking attention and the running state that makes its sampling exact.

Without a softmax the sum over earlier tokens factorises: Σ_{m≤n} (q_n · k_m) v_m = q_n S_n with
S_n = S_{n-1} + k_nᵀ v_n (Katharopoulos et al. 2020, eq. 16-18). For binary k and v, S counts coincident spikes: its
entries are integers, so float32 sums are exact in any order, and d^(-1/2) is applied after them. Under autocast the
sums stay float32, because bfloat16 has integers up to 256 only.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from tcvq_prior.cache import LayerCache


def attend(
    q: Float[Tensor, "T B heads L d"],
    k: Float[Tensor, "T B heads L d"],
    v: Float[Tensor, "T B heads L d"],
    state: Float[Tensor, "T B heads d d"] | None = None,
) -> tuple[Float[Tensor, "T B heads L d"], Float[Tensor, "T B heads d d"]]:
    """Attend from a chunk of L new tokens to themselves and to all earlier tokens.

    y_n = d^(-1/2) Σ_{m≤n} (q_n · k_m) v_m.

    Args:
        q: Spikes of the queries.
        k: Spikes of the keys.
        v: Spikes of the values.
        state: Σ kᵀv over the earlier tokens; None before the first.

    Returns:
        The attention output of the new tokens, and the state after them.
    """
    with torch.autocast(q.device.type, enabled=False):
        q, k, v = (_at_least_float32(x) for x in (q, k, v))
        k_t = k.transpose(-2, -1)
        y = (q @ k_t).tril() @ v
        after = k_t @ v
        if state is not None:
            y = y + q @ state
            after = state + after
        return y * q.shape[-1] ** -0.5, after


def spiking_attention(
    q: Float[Tensor, "T B heads L d"],
    k: Float[Tensor, "T B heads L d"],
    v: Float[Tensor, "T B heads L d"],
    cache: LayerCache | None = None,
    first: int = 0,
) -> Float[Tensor, "T B heads L d"]:
    """Attend as `attend` does, to the tokens in a cache too, and put the new ones in it.

    Args:
        q: Spikes of the queries.
        k: Spikes of the keys.
        v: Spikes of the values.
        cache: Memory of the earlier tokens; None if there are none, and none of these is needed later.
        first: Number of earlier tokens.
    """
    with torch.autocast(q.device.type, enabled=False):
        q, k, v = (_at_least_float32(x) for x in (q, k, v))
        scale = q.shape[-1] ** -0.5
        if cache is not None and cache.kind == "state":
            state, new = cache.state, k.transpose(-2, -1) @ v
            if q.shape[-2] == 1:  # one token attends to itself as to the others: it joins the state first
                cache.add(new)
                return (q @ cache.tensors[0]) * scale
            y = (q @ k.transpose(-2, -1)).tril() @ v
            if state is not None:
                y = y + q @ state
            cache.add(new)
            return y * scale
        if cache is not None:
            k, v = cache.append(k, v, first, binary=True)
        return ((q @ k.transpose(-2, -1)).tril(first) @ v) * scale


def softmax_attention(
    q: Float[Tensor, "T B heads L d"],
    k: Float[Tensor, "T B heads L d"],
    v: Float[Tensor, "T B heads L d"],
    cache: LayerCache | None = None,
    first: int = 0,
) -> Float[Tensor, "T B heads L d"]:
    """Causal softmax attention (Vaswani et al. 2017, eq. 1) with the arguments of `spiking_attention`."""
    new = q.shape[-2]
    if cache is not None:
        k, v = cache.append(k, v, first, binary=False)
    if new == k.shape[-2]:
        return F.scaled_dot_product_attention(q, k, v, is_causal=True)
    seen = torch.ones(new, k.shape[-2], dtype=torch.bool, device=q.device).tril(first)
    return F.scaled_dot_product_attention(q, k, v, attn_mask=seen)


def _at_least_float32(x: Tensor) -> Tensor:
    return x.to(torch.promote_types(x.dtype, torch.float32))
