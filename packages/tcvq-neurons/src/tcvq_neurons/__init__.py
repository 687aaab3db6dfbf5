"""LIF neurons for PyTorch: an exact reference, fused CPU kernels, surrogate gradients, spike coding."""

from importlib.metadata import version

from tcvq_neurons.backends import BackendName, BackendStatus, backends, set_default_backend
from tcvq_neurons.backends.fused import LAUNCHES
from tcvq_neurons.coding import DecoderMode, EncoderMode, SpikeDecoder, SpikeEncoder
from tcvq_neurons.config import LIFConfig
from tcvq_neurons.interface import INTERFACE_VERSION, Neuron, NeuronOutput, Surrogate
from tcvq_neurons.lif import LIF, LIFGate, lif, lif_gate
from tcvq_neurons.reference import drop_neuron_constants
from tcvq_neurons.steps import merge_time
from tcvq_neurons.surrogate import QuadraticGate

__version__ = version("tcvq-neurons")

__all__ = [
    "INTERFACE_VERSION",
    "LAUNCHES",
    "LIF",
    "BackendName",
    "BackendStatus",
    "DecoderMode",
    "EncoderMode",
    "LIFConfig",
    "LIFGate",
    "Neuron",
    "NeuronOutput",
    "QuadraticGate",
    "SpikeDecoder",
    "SpikeEncoder",
    "Surrogate",
    "__version__",
    "backends",
    "drop_neuron_constants",
    "lif",
    "lif_gate",
    "merge_time",
    "set_default_backend",
]
