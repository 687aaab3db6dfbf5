"""The contract of tcvq-neurons: what a neuron takes and returns, and the version of that promise."""

from typing import ClassVar, NamedTuple, Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor

INTERFACE_VERSION = "0.3"


class NeuronOutput(NamedTuple):
    """What a neuron returns for a sequence.

    Attributes:
        s_seq: Output of each step: spikes in {0, 1}, or ``x * spikes`` for a gate; dtype of the input.
        v: Membrane potential after the last step; float32 (float64 for float64 input).
    """

    s_seq: Float[Tensor, "T *site"]
    v: Float[Tensor, "*site"]


@runtime_checkable
class Surrogate(Protocol):
    """Derivative used in place of the Heaviside step's in the backward pass."""

    def __call__(self, u: Float[Tensor, "*any"]) -> Float[Tensor, "*any"]:
        """Return ds/du at the distance ``u = h - v_threshold`` from the threshold."""
        ...


@runtime_checkable
class CompiledSurrogate(Surrogate, Protocol):
    """A surrogate that compiled kernels can run too, rounding as ``__call__`` does for float32, operation by operation.

    Attributes:
        c_expression: A float32 C expression of ``u``, ``k0``, ``k1`` and ``k2``; it may call ``fabsf`` and ``tcvq_exp``
            (`tcvq_neurons.exponential`).
    """

    c_expression: ClassVar[str]

    def constants(self) -> tuple[float, ...]:
        """Return the values of ``k0``, ``k1``, ``k2``, which the kernels round to float32; missing ones are 0."""
        ...

    def primitive(self, u: Float[Tensor, "*any"]) -> Float[Tensor, "*any"]:
        """Return the smooth step whose derivative this is."""
        ...


@runtime_checkable
class Neuron(Protocol):
    """A module that maps a sequence of input currents to a sequence of outputs, time first."""

    def __call__(self, x_seq: Float[Tensor, "T *site"]) -> Float[Tensor, "T *site"]:
        """Run all steps from rest; nothing is carried over to the next call."""
        ...
