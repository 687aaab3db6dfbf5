"""A chain over time does what calling its layers by hand does."""

import pytest
import torch
from torch import nn

from tcvq_neurons import LIF, LIFGate, merge_time
from tcvq_neurons.sequential import SpikingSequential
from tcvq_neurons.state import carry_state


class Block(nn.Module):
    """A residual block that minds time itself."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 3, padding=1)
        self.gate = LIFGate()

    def forward(self, x_seq):
        return x_seq + merge_time(self.conv, self.gate(x_seq))


@pytest.mark.parametrize("container", [nn.Sequential, SpikingSequential])
def test_neurons_see_the_sequence_and_other_layers_each_step(container):
    conv, linear, block, gate, neuron = nn.Conv2d(2, 3, 3), nn.Linear(48, 5), Block(), LIFGate(), LIF(v_threshold=0.1)
    net = SpikingSequential(conv, gate, block, container(nn.Flatten(), linear, neuron))
    x_seq = torch.randn(4, 2, 2, 6, 6) * 4
    y_seq = block(gate(merge_time(conv, x_seq)))
    expected = neuron(merge_time(linear, y_seq.flatten(2)))
    assert torch.equal(net(x_seq), expected)
    assert 0 < expected.mean() < 1


def test_a_chain_streams_step_by_step():
    net = SpikingSequential(nn.Linear(3, 4), LIF(), nn.Linear(4, 5), LIF())
    x_seq = torch.randn(6, 2, 3) * 3
    with carry_state(net):
        streamed = torch.cat([net(x_seq[t : t + 1]) for t in range(6)])
    assert torch.equal(streamed, net(x_seq))
