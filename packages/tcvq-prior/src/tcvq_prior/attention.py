"""Causal spiking attention and the running state that makes its sampling exact.

Without a softmax the sum over earlier tokens factorises: Σ_{m≤n} (q_n · k_m) v_m = q_n S_n with
S_n = S_{n-1} + k_nᵀ v_n (Katharopoulos et al. 2020, eq. 16-18). For binary k and v, S counts coincident spikes: its
entries are integers, so float32 sums are exact in any order, and d^(-1/2) is applied after them. Under autocast the
sums stay float32, because bfloat16 has integers up to 256 only; without a cache
the products of spikes are taken in bfloat16, which rounds the sums themselves and their gradients, as a layer's.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from tcvq_prior.cache import LayerCache
from tcvq_prior.positions import Rotary

BF16_COUNT = 256  # up to here every integer is a bfloat16


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
    *,
    rotary: Rotary | None = None,
    weights: Float[Tensor, "heads L n"] | None = None,
    chunk: int = 0,
) -> Float[Tensor, "T B heads L d"]:
    """Attend as `attend` does, to the tokens in a cache too, and put the new ones in it.

    With weights w, y_n = d^(-1/2) Σ_{m≤n} w_nm (q_n · k_m) v_m, which no running state gives.

    Args:
        q: Spikes of the queries.
        k: Spikes of the keys.
        v: Spikes of the values.
        cache: Memory of the earlier tokens; None if there are none, and none of these is needed later.
        first: Number of earlier tokens.
        rotary: Turns queries and keys by their positions.
        weights: Factors of the pairs of new and all tokens, 0 for later ones; without a running state.
        chunk: Tokens whose pairs are formed at a time, where there is no cache; 0 forms all L² pairs at once.

    Raises:
        ValueError: Weights are given with a running state or with chunks.
    """
    if weights is not None and (chunk or (cache is not None and cache.kind == "state")):
        raise ValueError("weights of pairs need all pairs at once: neither a running state nor chunks")

    def known(pairs: Tensor) -> Tensor:
        return pairs.tril(first) if weights is None else pairs * weights.to(pairs.dtype)

    with torch.autocast(q.device.type, enabled=False):
        if q.dtype == torch.bfloat16 and cache is None and rotary is None and not chunk and q.shape[-1] <= BF16_COUNT:
            return known(q @ k.transpose(-2, -1)) @ v * q.shape[-1] ** -0.5  # q kᵀ is exact, weights round it
        q, k, v = (_at_least_float32(x) for x in (q, k, v))
        if cache is not None and cache.kind == "kv":
            k, v = cache.append(k, v, first, binary=True)
        if rotary is not None:
            q, k = rotary(q, first), rotary(k, first if cache is None or cache.kind == "state" else 0)
        if cache is not None and cache.kind == "state":
            y = _from_state(q, k, v, cache)
        elif cache is None and 0 < chunk < q.shape[-2]:
            y = _chunked(q, k, v, chunk)
        else:
            y = known(q @ k.transpose(-2, -1)) @ v
        return y * q.shape[-1] ** -0.5


def _from_state(q: Tensor, k: Tensor, v: Tensor, cache: LayerCache) -> Tensor:
    """Sum over a running state and the new tokens; one token joins the state first, and attends to nothing else."""
    if q.shape[-2] == 1 and cache.state is not None and not torch.is_grad_enabled():
        return q @ cache.state.addcmul_(k.transpose(-2, -1), v)
    kv = k.transpose(-2, -1) @ v
    if q.shape[-2] == 1:
        return q @ cache.add(kv)
    y = (q @ k.transpose(-2, -1)).tril() @ v
    if cache.state is not None:
        y = y + q @ cache.state  # before the new tokens join it, in place
    cache.add(kv)
    return y


def _chunked(q: Tensor, k: Tensor, v: Tensor, chunk: int) -> Tensor:
    """Sum chunk by chunk with a running state: memory and time grow with L, not with L²."""
    parts, state = [], q.new_zeros(*q.shape[:-2], q.shape[-1], q.shape[-1])
    for q_c, k_c, v_c in zip(*(x.split(chunk, dim=-2) for x in (q, k, v)), strict=True):
        k_t = k_c.transpose(-2, -1)
        parts.append((q_c @ k_t).tril() @ v_c + q_c @ state)
        state = state + k_t @ v_c
    return torch.cat(parts, dim=-2)


def softmax_attention(
    q: Float[Tensor, "T B heads L d"],
    k: Float[Tensor, "T B heads L d"],
    v: Float[Tensor, "T B heads L d"],
    cache: LayerCache | None = None,
    first: int = 0,
    *,
    rotary: Rotary | None = None,
) -> Float[Tensor, "T B heads L d"]:
    """Causal softmax attention (Vaswani et al. 2017, eq. 1) with the arguments of `spiking_attention`."""
    new = q.shape[-2]
    if rotary is not None:
        q, k = rotary(q, first), rotary(k, first)
    if cache is not None:
        k, v = cache.append(k, v, first, binary=False)
    if new == k.shape[-2]:
        return F.scaled_dot_product_attention(q, k, v, is_causal=True)
    seen = torch.ones(new, k.shape[-2], dtype=torch.bool, device=q.device).tril(first)
    return F.scaled_dot_product_attention(q, k, v, attn_mask=seen)


def _at_least_float32(x: Tensor) -> Tensor:
    return x.to(torch.promote_types(x.dtype, torch.float32))
