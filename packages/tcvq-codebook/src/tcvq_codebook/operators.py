"""Operators on the time axis of quantized latents, for destruction studies: what does the decoder lose without order?

They apply after lookup and before the first layer of the decoder. All are pure, for any device and dtype, carry
gradients, and work on any tensor whose first axis is time.
"""

import re
from collections.abc import Callable
from functools import partial

import torch
from jaxtyping import Shaped
from torch import Tensor

TimeOperator = Callable[[Shaped[Tensor, "T *rest"]], Shaped[Tensor, "T *rest"]]


def keep(z: Shaped[Tensor, "T *rest"]) -> Shaped[Tensor, "T *rest"]:
    """Return ``z`` itself: the control that must reproduce plain decoding bit for bit."""
    return z


def reverse(z: Shaped[Tensor, "T *rest"]) -> Shaped[Tensor, "T *rest"]:
    """Return z'_t = z_{T−1−t}."""
    return z.flip(0)


def repeat(z: Shaped[Tensor, "T *rest"]) -> Shaped[Tensor, "T *rest"]:
    """Return z'_t = z_{T−1}: every step shows the last one."""
    return last_n(z, len(z))


def empty(z: Shaped[Tensor, "T *rest"]) -> Shaped[Tensor, "T *rest"]:
    """Return z'_0 = 0 and z'_t = z_t for t > 0."""
    return torch.cat([torch.zeros_like(z[:1]), z[1:]])


def last_n(z: Shaped[Tensor, "T *rest"], n: int) -> Shaped[Tensor, "T *rest"]:
    """Return z'_t = z_{T−1} for the last ``n`` steps, others unchanged: n = 1 changes nothing, n = T is `repeat`.

    Raises:
        ValueError: If ``n`` is not between 1 and T.
    """
    if not 1 <= n <= len(z):
        raise ValueError(f"last-{n} needs n between 1 and the number of steps, here {len(z)}")
    return torch.cat([z[: len(z) - n], z[-1:].expand(n, *z.shape[1:])])


def shuffle(z: Shaped[Tensor, "T *rest"], seed: int) -> Shaped[Tensor, "T *rest"]:
    """Return z'_t = z_{π(t)} with one random order π ≠ identity of the steps, drawn from ``seed``.

    All sites and samples share π, which depends on ``seed`` and T alone: sites stay in step with each other, and the
    result does not depend on the batch or the device. Repeat over seeds for a mean over orders. One step has one order.
    """
    generator = torch.Generator().manual_seed(seed)
    steps = torch.arange(len(z))
    order = steps
    while len(z) > 1 and torch.equal(order, steps):
        order = torch.randperm(len(z), generator=generator)
    return z[order.to(z.device)]


_OPERATORS: dict[str, TimeOperator] = {"none": keep, "reverse": reverse, "repeat": repeat, "empty": empty}


def time_operator(name: str, *, seed: int = 0) -> TimeOperator:
    """Return the operator that a name stands for, a function of a tensor whose first axis is time.

    Args:
        name: ``none``, ``reverse``, ``repeat``, ``empty``, ``last-1``, ``last-2``, … or ``shuffle``.
        seed: Seed of the order that ``shuffle`` draws.

    Raises:
        ValueError: If there is no operator of that name; the message lists those that exist.
    """
    if name in _OPERATORS:
        return _OPERATORS[name]
    if name == "shuffle":
        return partial(shuffle, seed=seed)
    if match := re.fullmatch("last-([1-9][0-9]*)", name):
        return partial(last_n, n=int(match[1]))
    raise ValueError(f"unknown time operator {name!r}; there are {', '.join(_OPERATORS)}, shuffle and last-1 … last-T")
