"""NIR graphs: round trips that change no bit, the units, and everything that has no place in them."""

import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from tcvq_neurons import LIF, LIFConfig, LIFGate, lif
from tcvq_neurons.lif import IF
from tcvq_neurons.nir_graph import from_nir, to_nir
from tcvq_neurons.sequential import SpikingSequential
from tcvq_neurons.surrogate import ATan

nir = pytest.importorskip("nir", reason='needs nir; pip install "tcvq-neurons[nir]"')

X = torch.randint(-64, 192, (6, 4, 10)).float() / 64


def make_net():
    return SpikingSequential(
        nn.Conv2d(2, 4, 3, padding=1, stride=2), LIF(tau=1.7, v_threshold=0.1),
        nn.Sequential(nn.Conv2d(4, 4, 3, bias=False, dilation=(1, 2)), LIF(tau=3.0, decay_input=False)),
        nn.Flatten(), nn.Linear(12, 7, bias=False), IF(v_threshold=0.3), nn.Linear(7, 3),
        LIF(tau=torch.tensor([2.0, 3.0, 1.5]), v_threshold=0.1),
    )  # fmt: skip


@pytest.mark.parametrize("dt", [1e-4, 1e-3, 0.003, 1.0])
@pytest.mark.parametrize("through_file", [False, True])
def test_a_network_comes_back_with_equal_outputs(dt, through_file, tmp_path):
    torch.manual_seed(1)
    net = make_net()
    graph = to_nir(net, dt=dt, input_shape=(2, 9, 9))
    if through_file:
        nir.write(tmp_path / "net.nir", graph)
        graph = nir.read(tmp_path / "net.nir")
    x = torch.rand(5, 2, 2, 9, 9) * 3
    y = from_nir(graph, dt=dt)(x)
    assert torch.equal(y, net(x))
    assert 0.05 < y.mean() < 0.95


@pytest.mark.parametrize(
    "neuron",
    [LIF(), LIF(tau=1.0), LIF(tau=1.1, v_threshold=0.7), LIF(tau=12.3, decay_input=False), IF(), IF(v_threshold=0.123)],
)
@pytest.mark.parametrize("dt", [1e-4, 1e-3, 1 / 3])
def test_a_neuron_comes_back_with_equal_constants(neuron, dt):
    graph = to_nir(neuron, dt=dt, input_shape=(10,))
    (node,) = (node for node in graph.nodes.values() if isinstance(node, nir.LIF | nir.IF))
    for again in (from_nir(graph, dt=dt)[0], from_nir(node, dt=dt)):
        assert type(again) is type(neuron)
        assert (
            abs(again.tau / neuron.tau - 1) < 2.3e-16 or again.tau == neuron.tau
        )  # one unit in the last place of float64
        assert replace(again.config, tau=neuron.tau) == neuron.config
        assert torch.equal(again(X), neuron(X))


def test_time_constants_of_any_value_survive_in_float32():
    tau = 1 + 20 * torch.rand(2000)
    for dt in (1e-4, 1e-3, 0.7):
        again = from_nir(to_nir(LIF(tau=tau), dt=dt, input_shape=(2000,)), dt=dt)[0]
        assert torch.equal(again.tau, tau)


def test_units_are_seconds_and_euler_steps():
    node = to_nir(LIF(tau=4.0, v_threshold=0.3), dt=1e-3, input_shape=(2,)).nodes["lif"]
    np.testing.assert_allclose(node.tau, [4e-3, 4e-3], rtol=1e-15)
    assert node.r.tolist() == [1, 1]
    assert node.v_threshold.tolist() == [0.3, 0.3]
    assert node.v_leak.tolist() == node.v_reset.tolist() == [0, 0]
    assert to_nir(LIF(tau=4.0, decay_input=False), dt=1e-3, input_shape=()).nodes["lif"].r == 4
    assert to_nir(IF(), dt=1e-3, input_shape=()).nodes["if"].r == 1000
    # one Euler step of tau dv/dt = -v + r I from v = 0.2 at I = 0.4
    dt, tau, v, current = 1e-3, 4e-3, 0.2, 0.4
    out = lif(torch.tensor([current]), torch.tensor(v), tau=4.0)
    assert out.v.item() == pytest.approx(v + dt / tau * (-v + current))


def test_another_dt_simulates_the_same_neuron_with_another_step():
    graph = to_nir(LIF(tau=4.0), dt=1e-3, input_shape=())
    assert from_nir(graph, dt=2e-3)[0].tau == 2
    with pytest.raises(ValueError, match=r"shorter than one step; pass a smaller dt than 0.005"):
        from_nir(graph, dt=5e-3)


def test_training_options_are_left_out_on_request_and_given_again_on_import():
    neuron = LIF(surrogate=ATan(), detach_reset=False, learn=("tau",))
    with pytest.raises(ValueError, match=r"lif has surrogate=ATan.*, detach_reset=False, learned tau.*inference=True"):
        to_nir(neuron, dt=1e-3, input_shape=(10,))
    graph = to_nir(neuron, dt=1e-3, input_shape=(10,), inference=True)
    again = from_nir(graph, dt=1e-3, surrogate=ATan(), detach_reset=False)[0]
    assert again.config == LIFConfig(surrogate=ATan(), detach_reset=False)
    assert torch.equal(again(X), neuron(X))


@pytest.mark.parametrize(
    ("module", "error", "message"),
    [
        (LIF(reset="soft"), ValueError, "lif has reset='soft', which NIR cannot hold"),
        (LIF(reset="none"), ValueError, "lif has reset='none', which NIR cannot hold"),
        (LIF(fire_at_threshold=True), ValueError, "lif has fire_at_threshold=True"),
        (LIF(tau=1.0, decay_input=False), ValueError, "drop decay_input=False"),
        (LIF(tau=torch.ones(3) * 2), ValueError, r"lif has 3 channels and gets inputs of shape \(4,\)"),
        (LIFGate(), ValueError, "lifgate is a LIFGate, which NIR cannot hold"),
        (nn.Sequential(nn.Linear(4, 4), nn.ReLU()), TypeError, "1 is a ReLU; LIF, IF, Linear, Conv2d and Flatten"),
        (nn.Conv2d(4, 4, 1, padding_mode="circular"), TypeError, "padding_mode='circular'"),
        (nn.Conv2d(4, 4, 1, groups=2), ValueError, "conv2d has groups=2"),
        (nn.Sequential(nn.Flatten(0)), ValueError, "0 flattens the batch axis"),
        (nn.Sequential(nn.Linear(5, 4)), ValueError, r"0 does not take inputs of shape \(4,\); check input_shape"),
    ],
)
def test_what_nir_cannot_hold_is_refused_in_one_line(module, error, message):
    with pytest.raises(error, match=message) as raised:
        to_nir(module, dt=1e-3, input_shape=(4,))
    assert "\n" not in str(raised.value)


def lif_node(**changed):
    one = np.ones(3)
    return nir.LIF(**{"tau": 2e-3 * one, "r": one, "v_leak": 0 * one, "v_threshold": one, "v_reset": 0 * one} | changed)


def chain(*nodes, edges=None):
    nodes = dict(zip("abcdef", nodes, strict=False))
    return nir.NIRGraph(nodes, edges or list(zip(list(nodes)[:-1], list(nodes)[1:], strict=True)), type_check=False)


ENDS = nir.Input({"input": np.array([3])}), nir.Output({"output": np.array([3])})


@pytest.mark.parametrize(
    ("graph", "error", "message"),
    [
        (lif_node(v_reset=-np.ones(3)), ValueError, "node LIF has v_reset=-1; our neurons reset to 0"),
        (lif_node(v_leak=np.ones(3)), ValueError, "node LIF has v_leak=1; our neurons leak to 0"),
        (lif_node(r=3 * np.ones(3)), ValueError, "has r=3; with dt=0.001 our neurons need r = 1 or r = tau / dt = 2"),
        (nir.IF(r=np.ones(3), v_threshold=np.ones(3)), ValueError, "need r = 1 / dt = 1000"),
        (lif_node(v_threshold=np.zeros(3)), ValueError, "v_threshold is 0"),
        (chain(ENDS[0], nir.LI(*[np.ones(3)] * 3), ENDS[1]), TypeError, "node b is a nir.LI that cannot be imported"),
        (chain(ENDS[0], lif_node(), lif_node(), ENDS[1], edges=[("a", "b"), ("a", "c"), ("b", "d"), ("c", "d")]),
         ValueError, "node a feeds b, c; only chains"),
        (chain(ENDS[0], lif_node(), ENDS[1], edges=[("a", "b"), ("b", "a")]), ValueError, "a is not met once"),
        (chain(ENDS[0], lif_node(), ENDS[1], edges=[("a", "b")]), ValueError, "c is not met once"),
        ("graph.nir", TypeError, "graph is a str; pass a nir.NIRGraph"),
    ],
)  # fmt: skip
def test_what_our_neurons_do_not_do_is_refused_by_the_name_of_its_node(graph, error, message):
    with pytest.raises(error, match=message):
        from_nir(graph, dt=1e-3)


def test_constants_may_differ_between_channels_but_not_within_one():
    varied = np.arange(1.0, 7).reshape(3, 2)
    shape = {"tau": np.full((3, 2), 2e-3), "r": np.ones((3, 2)), "v_leak": np.zeros((3, 2)), "v_reset": None}
    by_channel = from_nir(nir.LIF(**shape, v_threshold=varied[:, :1].repeat(2, 1)), dt=1e-3)
    assert by_channel.v_threshold.tolist() == [1, 3, 5]
    with pytest.raises(ValueError, match="v_threshold that differs within a channel"):
        from_nir(nir.LIF(**shape, v_threshold=varied), dt=1e-3)


@pytest.mark.parametrize("dt", [0.0, -1e-3, float("nan")])
def test_a_step_without_length_is_refused(dt):
    with pytest.raises(ValueError, match=r"dt is .*in seconds"):
        to_nir(LIF(), dt=dt, input_shape=())


def test_without_nir_the_error_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "nir", None)
    with pytest.raises(ImportError, match=r'pip install "tcvq-neurons\[nir\]"'):
        to_nir(LIF(), dt=1e-3, input_shape=())


@pytest.mark.peer
@torch.no_grad()
@pytest.mark.parametrize("neuron", [LIF(tau=2.3), LIF(tau=3.0, decay_input=False), IF()])
def test_spikingjelly_reads_our_graph_as_the_same_neuron(neuron):
    exchange = pytest.importorskip(
        "spikingjelly.activation_based.nir_exchange", reason="needs spikingjelly and nirtorch; nox -s peers has them"
    )
    net = SpikingSequential(nn.Linear(10, 20), neuron)
    theirs, state, y = exchange.import_from_nir(to_nir(net, dt=1e-3, input_shape=(10,)), dt=1e-3), None, []
    for x in X:
        s, state = theirs(x, state)
        y.append(s)
    assert torch.equal(torch.stack(y), net(X))
    assert net(X).any()
