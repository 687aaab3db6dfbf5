"""The contract of tcvq-neurons: what a neuron takes and returns, and the version of that promise."""

from typing import NamedTuple, Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor

INTERFACE_VERSION = "0.2"


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
class Neuron(Protocol):
    """A module that maps a sequence of input currents to a sequence of outputs, time first."""

    def __call__(self, x_seq: Float[Tensor, "T *site"]) -> Float[Tensor, "T *site"]:
        """Run all steps from rest; nothing is carried over to the next call."""
        ...
