"""The neurons and the attention of one token as compiled loops on the CPU; importing this file imports numba.

The bits are those of the torch operations in `tcvq_prior.stepping` and `tcvq_prior.attention`: neurons round as those
do, and counts of spikes are exact in any order. A row of the state is read and written only where a key or query fires.
"""
# ruff: noqa: PLR0917 - numba passes arguments by position

from collections.abc import Callable
from typing import Any, no_type_check

import numpy as np
import torch
from jaxtyping import Float
from numba import njit
from numpy.typing import NDArray
from torch import Tensor

from tcvq_neurons import LIFConfig

Array = NDArray[Any]


def _jit(kernel: Callable[..., Any]) -> Callable[..., Any]:
    """Compile on first use; keep the machine code on disk if there is a folder that can be written to."""
    try:
        return njit(cache=True, nogil=True, error_model="numpy")(kernel)
    except RuntimeError:  # numba found no such folder
        return njit(nogil=True, error_model="numpy")(kernel)


def fire(x_seq: Float[Tensor, "T_or_1 *site"], n_steps: int, config: LIFConfig) -> Float[Tensor, "T *site"]:
    """Return the spikes of neurons that start at rest; one step of input stands for all.

    Args:
        x_seq: Input currents, contiguous, on the CPU.
        n_steps: SNN steps T.
        config: Constants of a neuron that `tcvq_prior.stepping.is_plain_step` lets pass.
    """
    spikes = x_seq.new_empty(n_steps, *x_seq.shape[1:])
    _fire(x_seq.view(len(x_seq), -1).numpy(), *_constants(x_seq, config), spikes.view(n_steps, -1).numpy())
    return spikes


def attend(
    x_seq: Float[Tensor, "T_or_1 B C3"], state: Float[Tensor, "T B heads d d"], config: LIFConfig
) -> Float[Tensor, "T B C"]:
    """Let queries, keys and values fire, add k ⊗ v to the state in place, and return d^(-1/2) q S.

    Args:
        x_seq: Input currents of the queries, keys and values of one token, contiguous, on the CPU.
        state: Σ k ⊗ v over the earlier tokens, contiguous.
        config: Constants of their neurons, as for `fire`.
    """
    n_steps, n_batch, n_head, d = state.shape[:4]
    y = x_seq.new_empty(n_steps, n_batch, n_head * d)
    scale = y.numpy().dtype.type(d**-0.5)
    _attend(x_seq.numpy(), state.numpy(), *_constants(x_seq, config), scale, y.numpy())
    return y


def _constants(x_seq: Tensor, config: LIFConfig) -> tuple[Any, Any]:
    """Return 1 / tau and the threshold in the dtype of the currents."""
    number = np.float64 if x_seq.dtype == torch.float64 else np.float32
    return number(1 / config.tau), number(config.v_threshold)


@_jit
@no_type_check
def _fire(x: Array, share: np.float32, v_threshold: np.float32, spikes: Array) -> None:
    zero, one = share - share, share / share
    h = np.empty_like(spikes[0])
    for n in range(len(h)):
        h[n] = x[0, n] * share
        spikes[0, n] = one if h[n] > v_threshold else zero
    for t in range(1, len(spikes)):
        x_t, before, s = x[min(t, len(x) - 1)], spikes[t - 1], spikes[t]
        for n in range(len(h)):
            v = h[n] - h[n] * before[n]
            h[n] = v + share * (x_t[n] - v)
            s[n] = one if h[n] > v_threshold else zero


@_jit
@no_type_check
def _attend(x: Array, state: Array, share: np.float32, v_threshold: np.float32, scale: np.float32, y: Array) -> None:
    n_steps, n_batch, n_head, d = state.shape[:4]
    spikes = np.empty((n_steps, n_batch, 3, n_head, d), x.dtype)
    _fire(x.reshape(len(x), -1), share, v_threshold, spikes.reshape(n_steps, -1))
    for t in range(n_steps):
        for b in range(n_batch):
            for head in range(n_head):
                q, k, v = spikes[t, b, 0, head], spikes[t, b, 1, head], spikes[t, b, 2, head]
                out = y[t, b, head * d : (head + 1) * d]
                out[:] = 0
                for i in range(d):
                    row = state[t, b, head, i]
                    if k[i] > 0:
                        for j in range(d):
                            row[j] += v[j]
                    if q[i] > 0:
                        for j in range(d):
                            out[j] += row[j]
                for j in range(d):
                    out[j] *= scale
