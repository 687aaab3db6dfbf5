"""Leaky integrate-and-fire neurons: two functions over a whole sequence, and two modules that call them."""

from dataclasses import replace
from typing import Unpack

from jaxtyping import Float
from torch import Tensor, nn

from tcvq_neurons.backends import BackendName, run
from tcvq_neurons.config import LIFConfig, LIFOptions
from tcvq_neurons.dynamics import state_dtype
from tcvq_neurons.interface import NeuronOutput


def lif(
    x_seq: Float[Tensor, "T *site"],
    v0: Float[Tensor, "*site"] | None = None,
    *,
    backend: BackendName = "auto",
    **options: Unpack[LIFOptions],
) -> NeuronOutput:
    """Run a LIF neuron over all steps.

    ``h_t = v_{t-1} + (x_t - v_{t-1}) / tau``; ``s_t = 1 if h_t - v_threshold > 0 else 0``; ``v_t = h_t (1 - s_t)``.
    The membrane is float32 (float64 for float64 input); spikes come in the input's dtype.

    Args:
        x_seq: Input current, time first.
        v0: Membrane before the first step; None is rest, 0.
        backend: ``auto``, ``reference``, ``torch`` or ``numba``; see `tcvq_neurons.backends`.
        **options: Fields of `LIFConfig`.

    Returns:
        Spikes of every step and the membrane after the last; to go on from there, pass ``v`` as the next ``v0``
        (detached, to cut the gradient there).

    Raises:
        TypeError: If ``x_seq`` is not floating point or an option does not exist.
        ValueError: If a shape, device or option value does not fit.
        RuntimeError: If the backend asked for is not installed.
    """
    return _neuron(x_seq, v0, LIFConfig(**options), backend, gate=False)


def lif_gate(
    x_seq: Float[Tensor, "T *site"],
    v0: Float[Tensor, "*site"] | None = None,
    *,
    backend: BackendName = "auto",
    **options: Unpack[LIFOptions],
) -> NeuronOutput:
    """Run the LIF-nonlinearity ``y_t = x_t s_t`` with ``s = lif(x)``, fused: it saves ``x`` once for the backward.

    Arguments, results and errors as for `lif`, with ``x * spikes`` in place of spikes.
    """
    return _neuron(x_seq, v0, LIFConfig(**options), backend, gate=True)


class LIF(nn.Module):
    """A LIF neuron that starts every call at rest; no state, no parameters, no buffers.

    Args:
        config: Constants of the neuron; None is `LIFConfig()`.
        backend: Which implementation runs; see `tcvq_neurons.backends`.
        **options: Fields of `LIFConfig` that replace those of ``config``: ``LIF(tau=4.0)``.
    """

    _gate = False

    def __init__(
        self, config: LIFConfig | None = None, *, backend: BackendName = "auto", **options: Unpack[LIFOptions]
    ) -> None:
        super().__init__()
        self.config = replace(config or LIFConfig(), **options)
        self.backend = backend

    def forward(self, x_seq: Float[Tensor, "T *site"]) -> Float[Tensor, "T *site"]:
        """Return the spikes of every step; errors as for `lif`."""
        _check_sequence(x_seq)
        return run(x_seq, None, self.config, gate=self._gate, backend=self.backend, need_v=False)[0]

    def extra_repr(self) -> str:
        """Show the constants when printed."""
        return f"{self.config}, backend={self.backend!r}"


class LIFGate(LIF):
    """The LIF-nonlinearity ``x * LIF(x)``: passes the current of the steps at which the neuron fires."""

    _gate = True


def _neuron(x_seq: Tensor, v0: Tensor | None, config: LIFConfig, backend: BackendName, *, gate: bool) -> NeuronOutput:
    _check_sequence(x_seq)
    if v0 is not None:
        _check_state(v0, x_seq)
        v0 = v0.to(state_dtype(x_seq))
    y_seq, v = run(x_seq, v0, config, gate=gate, backend=backend, need_v=True)
    assert v is not None
    return NeuronOutput(y_seq, v)


def _check_sequence(x_seq: Tensor) -> None:
    if not x_seq.is_floating_point():
        raise TypeError(f"x_seq has dtype {x_seq.dtype}; a neuron takes floating-point currents, call .float() first")
    if x_seq.ndim == 0 or x_seq.shape[0] == 0:
        raise ValueError(f"x_seq has shape {tuple(x_seq.shape)}; axis 0 is time and needs at least one step")


def _check_state(v0: Tensor, x_seq: Tensor) -> None:
    if v0.shape != x_seq.shape[1:]:
        raise ValueError(f"v0 has shape {tuple(v0.shape)}; one step of x_seq has {tuple(x_seq.shape[1:])}")
    if v0.device != x_seq.device:
        raise ValueError(f"v0 is on {v0.device} and x_seq on {x_seq.device}; move one of them")
