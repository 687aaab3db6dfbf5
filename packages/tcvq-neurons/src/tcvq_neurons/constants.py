"""Constants of a neuron that are learned or differ between channels: their parameters, their checks, their shapes."""

from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from tcvq_neurons.config import ConstantName, LIFConfig
from tcvq_neurons.dynamics import state_dtype


def checked(name: ConstantName, value: Float[Tensor, "*C"], config: LIFConfig) -> Float[Tensor, "*C"]:
    """Return the values of a constant, ``()`` or ``(C,)``, each of which must be one that the config would take.

    Raises:
        ValueError: If the shape is another, or a value is out of range.
    """
    if value.ndim > 1:
        raise ValueError(f"LIF.{name} has shape {tuple(value.shape)}; it is one number or one per channel, (C,)")
    for number in value.reshape(-1).tolist():
        replace(config, tau=number) if name == "tau" else replace(config, v_threshold=number)
    return value


def to_weight(name: ConstantName, value: Float[Tensor, "*C"]) -> Float[Tensor, "*C"]:
    """Return the parameter that stands for a constant; the inverse of `from_weight`.

    Raises:
        ValueError: If no finite parameter does, as for a ``tau`` of 1 or infinity.
    """
    value = value.detach().to(state_dtype(value))
    w = -(value - 1).log() if name == "tau" else value.log()
    if not bool(w.isfinite().all()):
        raise ValueError(f"LIF.tau is {value.tolist()}; one that is learned must start finite and above 1")
    return w


def from_weight(name: ConstantName, w: Float[Tensor, "*C"]) -> Float[Tensor, "*C"]:
    """Return ``tau = 1 / sigmoid(w) = 1 + exp(-w)``, or ``v_threshold = exp(w)``, in the membrane's precision."""
    w = w.to(state_dtype(w))
    return 1 + torch.exp(-w) if name == "tau" else torch.exp(w)


def per_channel(
    name: ConstantName, value: Float[Tensor, "*C"], x_seq: Float[Tensor, "T *site"]
) -> Float[Tensor, "*broadcast"]:
    """Return a constant that broadcasts against one step ``(B, C, ...)`` of ``x_seq``.

    Raises:
        ValueError: If ``x_seq`` does not have as many channels.
    """
    value = value.to(state_dtype(x_seq))
    if value.ndim == 0:
        return value
    if x_seq.ndim < 3 or x_seq.shape[2] != len(value):
        shape = tuple(x_seq.shape)
        raise ValueError(
            f"{name} has {len(value)} channels; x_seq has shape {shape}, and its axis 2 must be the channels"
        )
    return value.view(-1, *[1] * (x_seq.ndim - 3))


def per_site(
    name: ConstantName, value: Float[Tensor, "*constant"], x_seq: Float[Tensor, "T *site"]
) -> Float[Tensor, "*constant"]:
    """Return a constant in the membrane's dtype.

    Raises:
        ValueError: If it does not broadcast against one step of ``x_seq``.
    """
    site = tuple(x_seq.shape[1:])
    pairs = zip(reversed(value.shape), reversed(site), strict=False)
    if value.ndim > len(site) or any(size not in {1, wanted} for size, wanted in pairs):
        raise ValueError(f"{name} has shape {tuple(value.shape)}; it must broadcast against one step, {site}")
    return value.to(state_dtype(x_seq))
