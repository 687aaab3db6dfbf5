"""A chain of layers over whole sequences."""

from jaxtyping import Float
from torch import Tensor, nn

from tcvq_neurons.state import CarriesState
from tcvq_neurons.steps import merge_time


class SpikingSequential(nn.Sequential):
    """``nn.Sequential`` with time on axis 0: what holds neurons sees the sequence, any other layer each step.

    Layers without neurons run through `merge_time` and so must treat every sample alone: convolution, linear map, group
    norm, pooling, ``nn.Flatten``; not batch norm in training mode, and not dropout. An ``nn.Sequential`` inside is run
    as part of the chain; any other module that holds neurons is called with the sequence.
    """

    def forward(self, x_seq: Float[Tensor, "T B *in"]) -> Float[Tensor, "T B *out"]:
        """Return the output of the last layer at every step."""
        return _run(self, x_seq)


def _run(layer: nn.Module, x_seq: Tensor) -> Tensor:
    if isinstance(layer, nn.Sequential):
        for inner in layer:
            x_seq = _run(inner, x_seq)
        return x_seq
    if any(isinstance(module, CarriesState) for module in layer.modules()):
        return layer(x_seq)
    return merge_time(layer, x_seq)
