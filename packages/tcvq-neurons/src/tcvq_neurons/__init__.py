"""Spiking neurons for PyTorch: an exact reference, fused CPU and CUDA kernels, surrogates, coding, monitor, interop."""

from importlib.metadata import version

from tcvq_neurons.backends import BackendName, BackendStatus, backends, fuses_norm, set_default_backend
from tcvq_neurons.backends.fused import LAUNCHES
from tcvq_neurons.coding import DecoderMode, EncoderMode, LatencyLaw, SpikeDecoder, SpikeEncoder, latency, poisson
from tcvq_neurons.config import LIFConfig
from tcvq_neurons.convert import Conversion, convert
from tcvq_neurons.interface import INTERFACE_VERSION, CompiledSurrogate, Neuron, NeuronOutput, Surrogate
from tcvq_neurons.lif import IF, LIF, IFGate, LIFGate, lif, lif_gate
from tcvq_neurons.monitor import NeuronActivity, Record, SynapseActivity, monitor
from tcvq_neurons.nir_graph import from_nir, to_nir
from tcvq_neurons.norm import norm_lif
from tcvq_neurons.reference import drop_neuron_constants
from tcvq_neurons.sequential import SpikingSequential
from tcvq_neurons.state import CarriedState, carry_state
from tcvq_neurons.steps import merge_time
from tcvq_neurons.surrogate import (
    ATan,
    QuadraticGate,
    Rectangle,
    Sigmoid,
    SuperSpike,
    Triangle,
    register_surrogate,
)

__version__ = version("tcvq-neurons")

__all__ = [
    "IF",
    "INTERFACE_VERSION",
    "LAUNCHES",
    "LIF",
    "ATan",
    "BackendName",
    "BackendStatus",
    "CarriedState",
    "CompiledSurrogate",
    "Conversion",
    "DecoderMode",
    "EncoderMode",
    "IFGate",
    "LIFConfig",
    "LIFGate",
    "LatencyLaw",
    "Neuron",
    "NeuronActivity",
    "NeuronOutput",
    "QuadraticGate",
    "Record",
    "Rectangle",
    "Sigmoid",
    "SpikeDecoder",
    "SpikeEncoder",
    "SpikingSequential",
    "SuperSpike",
    "Surrogate",
    "SynapseActivity",
    "Triangle",
    "__version__",
    "backends",
    "carry_state",
    "convert",
    "drop_neuron_constants",
    "from_nir",
    "fuses_norm",
    "latency",
    "lif",
    "lif_gate",
    "merge_time",
    "monitor",
    "norm_lif",
    "poisson",
    "register_surrogate",
    "set_default_backend",
    "to_nir",
]
