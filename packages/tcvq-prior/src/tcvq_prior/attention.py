"""Causal spiking attention and the running state that makes its sampling exact.

Without a softmax the sum over earlier tokens factorises: Σ_{m≤n} (q_n · k_m) v_m = q_n S_n with
S_n = S_{n-1} + k_nᵀ v_n (Katharopoulos et al. 2020, eq. 16-18). For binary k and v, S counts coincident spikes: its
entries are integers, so float32 sums are exact in any order.
"""

from jaxtyping import Float
from torch import Tensor


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
    k_t = k.transpose(-2, -1)
    y = (q @ k_t).tril() @ v
    after = k_t @ v
    if state is not None:
        y = y + q @ state
        after = state + after
    return y * q.shape[-1] ** -0.5, after
