"""What the monitor counts, against counting by hand; and that it changes nothing."""

import copy
import json

import pytest
import torch
from torch import nn

from tcvq_neurons import LIF, LIFGate, SpikeEncoder, merge_time
from tcvq_neurons.lif import IF
from tcvq_neurons.monitor import monitor
from tcvq_neurons.sequential import SpikingSequential
from tcvq_neurons.state import carry_state


def make_net():
    return SpikingSequential(
        nn.Conv2d(2, 4, 3, padding=1),
        LIFGate(),
        nn.Conv2d(4, 4, 3, stride=2),
        LIF(),
        nn.Flatten(),
        nn.Linear(36, 5),
        IF(),
    )


@pytest.fixture
def spikes_by_hand():
    """Currents of one neuron per column, and the spikes of ``LIF(tau=1)`` at them, which fires where x > 0.5."""
    x = torch.tensor([[[0.0, 1.0, 1.0], [0.0, 1.0, 0.0]], [[0.0, 1.0, 0.0], [0.0, 1.0, 0.0]]])  # (T, B, C)
    return x, (x > 0.5).float()


def test_rates_and_silent_and_saturated_fractions_by_hand(spikes_by_hand):
    x, s_seq = spikes_by_hand
    neuron = LIF(tau=1.0)
    assert torch.equal(neuron(x), s_seq)
    with monitor(neuron) as record:
        neuron(x)
    (activity,) = record.neurons().values()
    # 5 of 12 outputs fire, 3 of 6 at step 0, 2 of 6 at step 1; neuron 0 never, neuron 1 always, neuron 2 sometimes
    assert (activity.neurons, activity.samples) == (3, 2)
    assert activity.rate == 5 / 12
    assert activity.rate_per_step == [3 / 6, 2 / 6]
    assert (activity.silent, activity.saturated) == (1 / 3, 1 / 3)


def test_counts_add_up_over_calls_and_a_neuron_that_fires_once_is_not_silent(spikes_by_hand):
    x, _ = spikes_by_hand
    neuron = LIF(tau=1.0)
    with monitor(neuron) as record:
        neuron(x)
        neuron(x.flip(-1)[:1])  # one step more, with neurons 0 and 2 exchanged
    activity = record.neurons()["LIF"]
    assert activity.samples == 4
    assert activity.rate == 8 / 18
    assert activity.rate_per_step == [6 / 12, 2 / 6]
    assert (activity.silent, activity.saturated) == (0, 1 / 3)


def test_a_gate_counts_the_outputs_that_are_not_zero():
    x = torch.randn(4, 3, 50)
    gate, neuron = LIFGate(), LIF()
    with monitor(nn.ModuleList([gate, neuron])) as record:
        assert torch.equal(gate(x) != 0, neuron(x) != 0)
    assert record.neurons()["0"] == record.neurons()["1"]


def test_linear_synops_are_non_zero_inputs_times_outputs():
    linear = nn.Linear(3, 7)
    spikes = torch.tensor([[1.0, 0.0, 1.0], [0.0, 0.0, 0.0]])
    with monitor(nn.ModuleDict({"out": linear})) as record:
        linear(spikes)
        linear(spikes[:1])
    activity = record.synapses()["out"]
    assert (activity.kind, activity.calls, activity.operation) == ("Linear", 2, "ac")
    assert activity.dense_macs == 9 * 7
    assert activity.synops == 4 * 7
    assert activity.density == 4 / 9


def test_graded_inputs_are_multiplied_and_binary_ones_added():
    def operation(x):
        linear = nn.Linear(2, 2)
        with monitor(linear) as record:
            linear(torch.tensor([[1.0, 0.0]]))
            linear(torch.tensor([x]))
        return record.synapses()["Linear"].operation

    assert [operation(x) for x in ([0.0, 0.0], [1.0, 1.0], [0.5, 0.0], [1.0, 2.0], [-1.0, 0.0])] == [
        "ac", "ac", "mac", "mac", "mac"
    ]  # fmt: skip
    assert operation([float("nan"), 0.0]) == "mac"


@pytest.mark.parametrize(
    ("layer", "macs"),
    [
        (nn.Conv2d(4, 6, 3, padding=1), 2 * 6 * 8 * 8 * 4 * 9),
        (nn.Conv2d(4, 6, 3, stride=2, groups=2), 2 * 6 * 3 * 3 * 2 * 9),
        (nn.ConvTranspose2d(4, 6, 2, stride=2), 2 * 4 * 8 * 8 * 6 * 4),
    ],
)
def test_convolutions_count_dense_macs_times_density(layer, macs):
    x = (torch.rand(2, 4, 8, 8) < 0.25).float()
    with monitor(layer) as record:
        layer(x)
    (activity,) = record.synapses().values()
    assert activity.dense_macs == macs
    assert activity.density == x.mean().item()
    assert activity.synops == pytest.approx(activity.density * macs, rel=1e-12)


def test_a_constant_sequence_counts_once_as_merge_time_computes_it_once():
    conv = nn.Conv2d(1, 2, 1)
    x_seq = SpikeEncoder("direct", n_steps=4)(torch.rand(3, 1, 5, 5))
    with monitor(conv) as record:
        merge_time(conv, x_seq)
    assert record.synapses()["Conv2d"].dense_macs == 3 * 2 * 25
    with monitor(conv) as record:
        merge_time(conv, x_seq.contiguous())
    assert record.synapses()["Conv2d"].dense_macs == 4 * 3 * 2 * 25


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_outputs_gradients_and_random_numbers_are_the_same_under_the_monitor(dtype):
    net = make_net().to(dtype)
    twin = copy.deepcopy(net)
    x = (torch.randn(4, 3, 2, 8, 8) * 3).to(dtype)
    state = torch.get_rng_state()
    net(x).sum().backward()
    with monitor(twin) as record:
        y = twin(x)
        y.sum().backward()
    assert torch.equal(y, net(x))
    assert torch.equal(torch.get_rng_state(), state)
    for expected, parameter in zip(net.parameters(), twin.parameters(), strict=True):
        assert torch.equal(parameter.grad, expected.grad)
    assert len(record.neurons()) == 3
    assert [a.operation for a in record.synapses().values()] == ["mac", "mac", "ac"]


def test_hooks_are_gone_after_the_block_and_after_an_exception_in_it():
    net = make_net()
    with pytest.raises(RuntimeError, match="on purpose"), monitor(net):
        raise RuntimeError("on purpose")
    with monitor(net) as record:
        net(torch.randn(2, 1, 2, 8, 8))
    assert not any(module._forward_hooks for module in net.modules())
    before = record.to_dict()
    net(torch.randn(2, 1, 2, 8, 8))
    assert record.to_dict() == before


def test_counting_never_waits_for_the_device(monkeypatch):
    def refuse(*args):
        raise AssertionError("a value was read")

    for reading in ("item", "tolist", "nonzero", "__bool__", "__int__", "__float__", "__index__"):
        monkeypatch.setattr(torch.Tensor, reading, refuse)
    net = make_net()
    with monitor(net) as record:
        net(torch.randn(4, 3, 2, 8, 8))
    for read in (record.neurons, record.synapses):
        with pytest.raises(AssertionError, match="a value was read"):
            read()


def test_the_record_is_plain_enough_for_json_and_leaves_out_what_was_not_called():
    net = make_net()
    with monitor(net) as record:
        assert record.to_dict() == {"neurons": {}, "synapses": {}}
        net[:2](torch.randn(2, 3, 2, 8, 8))
    plain = record.to_dict()
    assert json.loads(json.dumps(plain)) == plain
    assert {kind: list(layers) for kind, layers in plain.items()} == {"neurons": ["1"], "synapses": ["0"]}
    assert set(plain["neurons"]["1"]) == {"neurons", "samples", "rate", "rate_per_step", "silent", "saturated"}


def test_layers_of_changing_size_are_counted_together():
    neuron = LIF(tau=1.0)
    with monitor(neuron) as record:
        neuron(torch.ones(2, 1, 3))
        neuron(torch.zeros(3, 1, 2, 1))
        neuron(torch.ones(3))
    activity = record.neurons()["LIF"]
    assert (activity.neurons, activity.samples) == (3 + 2 + 1, 3)
    assert activity.rate_per_step == [4 / 6, 4 / 6, 1 / 3]
    assert (activity.silent, activity.saturated) == (2 / 6, 4 / 6)


def test_empty_batches_count_nothing():
    net = make_net()
    with monitor(net) as record:
        net(torch.randn(2, 0, 2, 8, 8))
    assert record.to_dict() == {"neurons": {}, "synapses": {}}


def test_inference_mode_and_training_can_take_turns():
    net = nn.Sequential(nn.Linear(3, 3), LIF())
    x = torch.randn(2, 4, 3)
    with monitor(net) as record:
        with torch.inference_mode():
            net(x)
        net(x).sum().backward()
    assert record.neurons()["1"].samples == 8


def test_streamed_steps_count_as_calls_of_one_step():
    neuron = LIF()
    with monitor(neuron) as record, carry_state(neuron):
        for x in torch.randn(5, 2, 3):
            neuron.step(x)
    activity = record.neurons()["LIF"]
    assert activity.samples == 10
    assert len(activity.rate_per_step) == 1
