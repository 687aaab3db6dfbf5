"""Apply a layer that has no memory to every time step at once."""

from collections.abc import Callable

from jaxtyping import Float
from torch import Tensor


def merge_time(fn: Callable[[Tensor], Tensor], x_seq: Float[Tensor, "T B *in"]) -> Float[Tensor, "T B *out"]:
    """Apply ``fn`` to ``(T*B, ...)`` and give the time axis back.

    A sequence that is the same at every step (an ``expand`` over time, as direct coding makes) is computed once and
    expanded again: the same numbers for a T-th of the work. Memory formats such as channels_last pass without a copy.

    Args:
        fn: A deterministic function that treats every sample alone: convolution, linear map, group norm. Not batch
            norm in training mode, and not dropout, whose mask would be shared by the steps of a constant sequence.
        x_seq: Input of every step.
    """
    n_steps, n_batch = x_seq.shape[:2]
    if n_steps > 1 and x_seq.stride(0) == 0:
        y = fn(x_seq[0])
        return y.expand(n_steps, *y.shape)
    y = fn(x_seq.flatten(0, 1))
    return y.view(n_steps, n_batch, *y.shape[1:])
