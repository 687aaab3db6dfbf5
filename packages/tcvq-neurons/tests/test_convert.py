"""Which neurons of other packages become ours, which do not and why, and that the numbers stay.

The rules are checked on stand-ins with the names and attributes of the real classes; the real ones come with
``nox -s peers``.
"""

import copy
import importlib
import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch import nn

from tcvq_neurons import LIF, LIFConfig, QuadraticGate
from tcvq_neurons.convert import convert
from tcvq_neurons.lif import IF
from tcvq_neurons.sequential import SpikingSequential
from tcvq_neurons.surrogate import ATan, Rectangle, Sigmoid, SuperSpike


def stand_in(module, name, base=nn.Module, **attributes):
    """Return an object whose class has this module and name."""
    node = type(name, (base,), {"__module__": module})()
    for key, value in attributes.items():
        setattr(node, key, value)
    return node


def sj_surrogate(name="PiecewiseQuadratic", **attributes):
    return stand_in("spikingjelly.activation_based.surrogate", name, **{"alpha": 2.0, "spiking": True, **attributes})


def spikingjelly(name="LIFNode", **attributes):
    return stand_in(
        "spikingjelly.activation_based.neuron.lif",
        name,
        **{
            "tau": 2.0, "decay_input": True, "v_threshold": 1.0, "v_reset": 0.0, "v": 0.0, "detach_reset": False,
            "step_mode": "m", "store_v_seq": False, "surrogate_function": sj_surrogate(),
            "w": nn.Parameter(torch.tensor(0.5)),
        } | attributes,
    )  # fmt: skip


def snn_surrogate(name, module="snntorch.surrogate", **given):
    """Return a closure as snntorch's factories do, named ``name.<locals>.inner``."""
    source = f"def {name}({', '.join(given)}):\n def inner(x):\n  return ({', '.join(given)},)\n return inner"
    scope = {"__name__": module}
    exec(source, scope)
    return scope[name](**given)


def snntorch(name="Leaky", **attributes):
    return stand_in(
        "snntorch._neurons.leaky",
        name,
        **{
            "beta": torch.tensor(0.5), "threshold": torch.tensor(1.0), "graded_spikes_factor": torch.tensor(1.0),
            "inhibition": False, "state_quant": False, "surrogate_disable": False, "init_hidden": True, "output": False,
            "reset_mechanism": "zero", "reset_delay": True, "mem": torch.zeros(0),
            "spike_grad": snn_surrogate("atan", alpha=2.0),
        } | attributes,
    )  # fmt: skip


def bc_surrogate(name="QGateGrad", alpha=2.0, requires_grad=False):
    return stand_in("braincog.base.strategy.surrogate", name, alpha=nn.Parameter(torch.tensor(alpha), requires_grad))


def braincog(name="LIFNode", **attributes):
    return stand_in(
        "braincog.base.node.node",
        name,
        **{
            "tau": 2.0, "threshold": nn.Parameter(torch.tensor(0.5), requires_grad=False), "v_reset": 0.0, "dt": 1.0,
            "requires_fp": False, "requires_mem": False, "mem_detach": False, "groups": 1, "layer_by_layer": False,
            "sigmoid_thres": False, "mem": 0.0, "act_fun": bc_surrogate(), "w": nn.Parameter(torch.tensor(0.5)),
        } | attributes,
    )  # fmt: skip


LEAK = {"decay_input": False}
FROM_SJ = {"v_threshold": 1.0, "detach_reset": False, "fire_at_threshold": True}
SIMPLE = [
    (spikingjelly(), LIFConfig(**FROM_SJ)),
    (spikingjelly(tau=1.7, **LEAK, v_reset=None), LIFConfig(tau=1.7, reset="soft", **LEAK, **FROM_SJ)),
    (spikingjelly("IFNode", detach_reset=True), IF(**FROM_SJ | {"detach_reset": True}).config),
    (spikingjelly(surrogate_function=sj_surrogate("ATan", alpha=3.0)), LIFConfig(surrogate=ATan(3.0), **FROM_SJ)),
    (spikingjelly(surrogate_function=sj_surrogate("Sigmoid", alpha=4.0)), LIFConfig(surrogate=Sigmoid(4.0), **FROM_SJ)),
    (spikingjelly(surrogate_function=sj_surrogate("Rect")), LIFConfig(surrogate=Rectangle(0.5), **FROM_SJ)),
    (spikingjelly(surrogate_function=sj_surrogate("SuperSpike", alpha=1)),
     LIFConfig(surrogate=SuperSpike(1.0), **FROM_SJ)),
    (snntorch(), LIFConfig(v_threshold=1.0, surrogate=ATan(2.0), **LEAK)),
    (snntorch(beta=torch.tensor(0.0)), LIFConfig(tau=1.0, v_threshold=1.0, surrogate=ATan(2.0), **LEAK)),
    (snntorch(beta=torch.tensor(0.875), reset_delay=False),
     LIFConfig(tau=8.0, v_threshold=1.0, surrogate=ATan(2.0), detach_reset=False, **LEAK)),
    (snntorch(beta=torch.tensor(1.0), reset_mechanism="none", spike_grad=snn_surrogate("fast_sigmoid", slope=25)),
     IF(v_threshold=1.0, reset="none", surrogate=SuperSpike(25.0)).config),
    (snntorch(spike_grad=snn_surrogate("sigmoid", slope=25)),
     LIFConfig(v_threshold=1.0, surrogate=Sigmoid(25.0), **LEAK)),
    (braincog(), LIFConfig()),
    (braincog("IFNode", act_fun=bc_surrogate("AtanGrad")), IF(surrogate=ATan(2.0)).config),
    (braincog(tau=3.0, act_fun=bc_surrogate("SigmoidGrad")),
     LIFConfig(tau=3.0, surrogate=Sigmoid(2.0), fire_at_threshold=True)),
    (braincog(act_fun=bc_surrogate("GateGrad")), LIFConfig(surrogate=Rectangle(1.0))),
]  # fmt: skip


@pytest.mark.parametrize(("node", "config"), SIMPLE)
def test_a_neuron_with_a_counterpart_becomes_it(node, config):
    report = convert(nn.Sequential(copy.deepcopy(node).eval()), single_step=True)
    assert report.refused == {}
    assert report.module[0].config == config
    assert not report.module[0].training
    assert "starts every call at rest" in report.converted["0"]


REFUSALS = [
    (spikingjelly(step_mode="s"), "functional.set_step_mode"),
    (spikingjelly(v_reset=-0.1), "v_reset=-0.1; ours resets to 0"),
    (spikingjelly(v=torch.ones(3)), "holds a membrane from a call before; call spikingjelly's functional.reset_net"),
    (spikingjelly(store_v_seq=True), "store_v_seq=True"),
    (spikingjelly(_neuron_precision=("fp16", "fp16", "fp16")), "_neuron_precision"),
    (spikingjelly(v_threshold=-1.0), "v_threshold=-1.0; ours must be finite and positive"),
    (spikingjelly(surrogate_function=sj_surrogate("Erf")), "surrogate Erf(alpha=2.0) has no counterpart"),
    (spikingjelly(surrogate_function=sj_surrogate("SuperSpike")), "surrogate SuperSpike(alpha=2.0) has no counterpart"),
    (spikingjelly(surrogate_function=sj_surrogate(spiking=False)), "ours always spikes"),
    (spikingjelly("ParametricLIFNode"), "rounded differently; pass rounding=True"),
    (snntorch(), "takes one step per call"),
    (snntorch(beta=torch.tensor(0.9)), "takes one step per call"),
    (snntorch(reset_mechanism="subtract"), "'zero' and 'none' agree"),
    (snntorch(init_hidden=False), "returns (spk, mem)"),
    (snntorch(output=True), "returns (spk, mem)"),
    (snntorch(beta=nn.Parameter(torch.tensor(0.5))), "learns beta"),
    (snntorch(graded_spikes_factor=torch.tensor(2.0)), "our spikes are 0 or 1"),
    (snntorch(inhibition=True), "inhibition=True"),
    (snntorch(mem=torch.ones(2)), "call its reset_mem() first"),
    (snntorch("Synaptic", base=type("SpikingNeuron", (nn.Module,), {"__module__": "snntorch._neurons.neurons"})),
     "snntorch._neurons.leaky.Synaptic has no counterpart"),
    (braincog(), "takes one step per call"),
    (braincog(layer_by_layer=True), "folds time into the batch"),
    (braincog(mem_detach=True), "mem_detach=True"),
    (braincog(v_reset=0.1), "v_reset=0.1"),
    (braincog("IFNode", dt=0.5), "dt=0.5"),
    (braincog(threshold=nn.Parameter(torch.tensor(0.5))), "learns its threshold"),
    (braincog(mem=torch.ones(2)), "call its n_reset() first"),
]  # fmt: skip
REFUSALS_OF_STEPS = [
    (snntorch(beta=torch.tensor(0.9)), "h = beta v + x with beta=0.9 is v - v / tau + x with tau=10"),
    (snntorch(beta=torch.tensor(1.5)), "beta=1.5 is clamped"),
    (snntorch(beta=torch.tensor([0.5, 0.75])), "beta differs between neurons, shape (2,)"),
    (snntorch(spike_grad=snn_surrogate("triangular", threshold=1)), "surrogate triangular has no counterpart"),
    (snntorch(spike_grad=snn_surrogate("atan", module="mine", alpha=2.0)), "surrogate atan has no counterpart"),
    (braincog(act_fun=bc_surrogate(requires_grad=True)), "learns its alpha"),
    (braincog(act_fun=bc_surrogate("STDPGrad")), "surrogate STDPGrad has no counterpart"),
    (braincog("PLIFNode"), "rounded differently; pass rounding=True"),
]


@pytest.mark.parametrize(
    ("node", "reason", "single_step"),
    [(*case, False) for case in REFUSALS] + [(*case, True) for case in REFUSALS_OF_STEPS],
)
def test_a_neuron_without_a_counterpart_stays_and_the_report_says_why(node, reason, single_step):
    net = nn.Sequential(nn.Linear(2, 2), node)
    report = convert(net, single_step=single_step)
    assert report.converted == {}
    assert list(report.refused) == ["1"]
    assert reason in report.refused["1"]
    assert "\n" not in report.refused["1"]
    assert net[1] is node
    assert str(report) == f"refused 1: {report.refused['1']}"


@pytest.mark.parametrize("node", [spikingjelly("ParametricLIFNode"), braincog("PLIFNode")])
def test_a_learned_time_constant_keeps_its_parameter_so_that_an_optimizer_keeps_it(node):
    neuron = convert(node, single_step=True, rounding=True).module
    assert neuron.w_tau is node.w
    torch.testing.assert_close(1 / neuron.tau, torch.sigmoid(node.w))


def test_rounding_lets_any_decay_of_snntorch_through():
    neuron = convert(snntorch(beta=torch.tensor(0.9)), single_step=True, rounding=True).module
    assert neuron.tau == pytest.approx(10.0)
    assert not neuron.config.decay_input


def test_shared_nested_and_lone_neurons_are_replaced_everywhere_and_nothing_else_is():
    node, linear = spikingjelly(), nn.Linear(2, 2)
    net = nn.ModuleDict({"a": node, "b": nn.Sequential(linear, node), "c": spikingjelly("QIFNode"), "d": LIF()})
    own = net["d"]
    report = convert(net)
    assert report.module is net
    assert isinstance(net["a"], LIF)
    assert net["b"][1] is net["a"]
    assert net["b"][0] is linear
    assert net["d"] is own
    assert list(report.converted) == ["a"]
    assert isinstance(convert(node).module, LIF)
    assert list(convert(node).converted) == ["LIFNode"]


def test_a_class_derived_from_a_known_neuron_is_refused_by_its_own_name():
    derived = stand_in("mine", "Adaptive", base=type(spikingjelly()))
    assert convert(nn.Sequential(derived)).refused == {"0": "mine.Adaptive has no counterpart here"}


def test_hooks_are_not_lost_silently():
    node = spikingjelly()
    node.register_forward_hook(lambda *args: None)
    assert "has hooks" in convert(nn.Sequential(node)).refused["0"]


def test_converting_imports_none_of_the_other_packages():
    before = {name.split(".")[0] for name in sys.modules}
    convert(nn.Sequential(spikingjelly(), snntorch(), braincog()), single_step=True)
    assert {name.split(".")[0] for name in sys.modules} == before


# The real packages. Currents are multiples of 1 / 64, so that many meet the threshold exactly.


def peer(name):
    return pytest.importorskip(name, reason=f"needs {name.split('.')[0]}; nox -s peers has it")


@pytest.fixture(scope="module")
def braincog_nodes():
    """The module of braincog's neurons, loaded without the imports of its packages."""
    found = importlib.util.find_spec("braincog")
    if found is None:
        pytest.skip("needs braincog; nox -s peers has it")
    pytest.importorskip("einops")
    root = Path(found.submodule_search_locations[0])
    stubs = ["braincog", "braincog.base", "braincog.base.node", "braincog.base.strategy"]
    for name in stubs:
        sys.modules[name] = ModuleType(name)
        sys.modules[name].__path__ = [str(root.joinpath(*name.split(".")[1:]))]
    yield importlib.import_module("braincog.base.node.node")
    for name in [name for name in sys.modules if name.split(".")[0] == "braincog"]:
        del sys.modules[name]


def currents(*shape):
    return torch.randint(-64, 192, shape).float() / 64


def compare(theirs, ours, x, tolerance):
    """Spikes are equal bit for bit, gradients up to rounding."""
    inputs = [x.clone().requires_grad_() for _ in range(2)]
    outputs = [theirs(inputs[0]), ours(inputs[1])]
    assert torch.equal(*outputs)
    assert 0.02 < outputs[0].mean() < 0.98
    weight = torch.randn_like(outputs[0])
    for y in outputs:
        y.backward(weight)
    torch.testing.assert_close(inputs[1].grad, inputs[0].grad, rtol=tolerance, atol=tolerance)
    assert inputs[0].grad.any()


@pytest.mark.peer
@pytest.mark.parametrize("surrogate", ["PiecewiseQuadratic", "ATan", "Sigmoid", "Rect"])
@pytest.mark.parametrize("detach_reset", [True, False])
@pytest.mark.parametrize("v_reset", [0.0, None])
@pytest.mark.parametrize("kind", ["lif", "leak", "if"])
def test_spikingjelly_neurons_keep_their_spikes_and_gradients(kind, v_reset, detach_reset, surrogate):
    neuron = peer("spikingjelly.activation_based.neuron")
    functions = peer("spikingjelly.activation_based.surrogate")
    function = getattr(functions, surrogate)(alpha=1.5)
    options = {"v_reset": v_reset, "detach_reset": detach_reset, "surrogate_function": function, "step_mode": "m"}
    make = {
        "lif": lambda: neuron.LIFNode(tau=1.7, **options),
        "leak": lambda: neuron.LIFNode(tau=4.0, decay_input=False, **options),
        "if": lambda: neuron.IFNode(**options),
    }
    theirs = make[kind]()
    report = convert(make[kind]())
    assert report.refused == {}
    compare(theirs, report.module, currents(6, 4, 100), 1e-5)


@pytest.mark.peer
@torch.no_grad()
def test_a_spikingjelly_network_keeps_its_outputs():
    base, layer, neuron = (peer(f"spikingjelly.activation_based.{name}") for name in ("functional", "layer", "neuron"))
    net = nn.Sequential(
        layer.Conv2d(2, 6, 3), neuron.LIFNode(), layer.Flatten(), layer.Linear(216, 5), neuron.ParametricLIFNode()
    )
    base.set_step_mode(net, "m")
    x = torch.randn(4, 3, 2, 8, 8) * 3
    expected = net(x)
    assert "holds a membrane" in convert(net).refused["1"]
    base.reset_net(net)
    ours = convert(copy.deepcopy(net))
    assert "pass rounding=True" in ours.refused["4"]
    assert torch.equal(ours.module(x), expected)
    base.reset_net(net)
    report = convert(net, rounding=True)
    assert list(report.converted) == ["1", "4"]
    assert (report.module(x) != expected).float().mean() < 0.02  # tau = 2 to rounding


@pytest.mark.peer
@pytest.mark.parametrize("surrogate", ["atan", "sigmoid", "fast_sigmoid"])
@pytest.mark.parametrize("options", [{}, {"reset_delay": False}, {"reset_mechanism": "none"}, {"beta": 1.0}])
def test_a_loop_over_an_snntorch_network_equals_one_call_of_ours(options, surrogate):
    snn, functions = peer("snntorch"), peer("snntorch.surrogate")
    given = {"beta": 0.75, "threshold": 0.5, "reset_mechanism": "zero", "init_hidden": True, **options}

    def make(**changed):
        torch.manual_seed(0)
        leaky = snn.Leaky(spike_grad=getattr(functions, surrogate)(3.0), **given | changed)
        return SpikingSequential(nn.Linear(5, 40), leaky)

    theirs, report = make(), convert(make(), single_step=True)
    assert report.refused == {}
    loop = lambda x_seq: torch.stack([nn.Sequential(*theirs)(x) for x in x_seq])  # noqa: E731
    compare(loop, report.module, torch.randn(6, 4, 5), 1e-5)
    assert "'zero' and 'none' agree" in convert(make(reset_mechanism="subtract"), single_step=True).refused["1"]


@pytest.mark.peer
@pytest.mark.parametrize("delay", [True, False])
def test_snntorch_s_subtraction_is_indeed_another_neuron(delay):
    snn = peer("snntorch")
    leaky = snn.Leaky(beta=0.5, threshold=1.0, init_hidden=True, reset_delay=delay)
    x = currents(8, 200) * 2
    ours = LIF(tau=2.0, v_threshold=1.0, decay_input=False, reset="soft")(x)
    assert not torch.equal(torch.stack([leaky(step) for step in x]), ours)


@pytest.mark.peer
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("kind", "act_fun"),
    [
        ("LIFNode", "QGateGrad"),
        ("LIFNode", "AtanGrad"),
        ("LIFNode", "SigmoidGrad"),
        ("LIFNode", "GateGrad"),
        ("IFNode", "QGateGrad"),
    ],
)
def test_braincog_neurons_keep_their_spikes_and_gradients(braincog_nodes, kind, act_fun):
    make = lambda: getattr(braincog_nodes, kind)(act_fun=getattr(braincog_nodes, act_fun))  # noqa: E731
    theirs, report = make(), convert(make(), single_step=True)
    assert report.refused == {}
    compare(lambda x_seq: torch.stack([theirs(x) for x in x_seq]), report.module, currents(6, 4, 100), 1e-5)


@pytest.mark.peer
@pytest.mark.filterwarnings("ignore")
def test_the_paper_s_neuron_keeps_its_gradients_bit_for_bit(braincog_nodes):
    theirs, ours = braincog_nodes.LIFNode(), convert(braincog_nodes.LIFNode(), single_step=True).module
    assert ours.config == LIFConfig(surrogate=QuadraticGate(2.0))
    compare(lambda x_seq: torch.stack([theirs(x) for x in x_seq]), ours, currents(6, 4, 100), 0)
