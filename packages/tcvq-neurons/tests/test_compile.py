"""Compiled, exported and checkpointed programs compute what the plain ones compute."""

import io

import jaxtyping
import pytest
import torch
from torch.utils.checkpoint import checkpoint

from tcvq_neurons import LAUNCHES, LIF, LIFGate, QuadraticGate, lif, lif_gate, merge_time
from tcvq_neurons.config import LIFConfig, TensorConfig
from tcvq_neurons.lif import IF
from tcvq_neurons.state import carry_state

pytestmark = pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor:UserWarning")  # read by torch's tracer


class Flat(QuadraticGate):
    """A surrogate that no kernel has in compiled form."""

    def __call__(self, u):
        return torch.ones_like(u)


class Block(torch.nn.Module):
    """A neuron between layers without memory, as networks use it."""

    def __init__(self, neuron):
        super().__init__()
        self.conv, self.neuron = torch.nn.Conv2d(2, 3, 3, padding=1), neuron

    def forward(self, x_seq):
        return self.neuron(merge_time(self.conv, x_seq))


NEURONS = {
    "gate": LIFGate,
    "soft": lambda: LIF(reset="soft", tau=1.7),
    "if": IF,
    "learned": lambda: LIFGate(learn=("tau", "v_threshold"), channels=3),
    "unregistered": lambda: LIF(surrogate=Flat()),
    "reference": lambda: LIF(backend="reference"),
}


@pytest.fixture(autouse=True)
def _as_users_run_it(monkeypatch):
    """Without the run-time shape checks of these tests, which cannot be traced, and with nothing compiled before."""
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    for config in (LIFConfig, TensorConfig):
        for name in ("__init__", "__post_init__"):
            checked = getattr(config, name)
            monkeypatch.setattr(config, name, getattr(checked, "__wrapped__", checked))
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def results(call, net, x):
    """Output and gradients of one pass."""
    x = x.clone().requires_grad_()
    y = call(x)
    return [y, *torch.autograd.grad((y * torch.linspace(-1, 1, y.numel()).view_as(y)).sum(), (x, *net.parameters()))]


@pytest.mark.parametrize("name", NEURONS)
def test_whole_graph_compiles_and_gives_the_same_bits(name):
    net, x = Block(NEURONS[name]()), torch.randn(4, 2, 2, 5, 5)
    compiled = torch.compile(net, fullgraph=True, backend="aot_eager")
    for a, b in zip(results(compiled, net, x), results(net, net, x), strict=True):
        assert torch.equal(a, b)
    with torch.no_grad():
        assert torch.equal(compiled(x), net(x))


def test_compiled_functions_take_options_and_constants():
    def neuron(x, v0, tau):
        return (*lif(x, v0, tau=3.0, reset="soft"), *lif_gate(x, v0, v_threshold=0.3), *lif(x, v0, tau=tau))

    arguments = torch.randn(4, 3, 5), torch.rand(3, 5), torch.full((5,), 2.5)
    compiled = torch.compile(neuron, fullgraph=True, backend="aot_eager")
    for a, b in zip(compiled(*arguments), neuron(*arguments), strict=True):
        assert torch.equal(a, b)


def test_one_graph_serves_all_sizes_when_shapes_are_dynamic():
    net = LIFGate()
    compiled = torch.compile(net, fullgraph=True, dynamic=True, backend="aot_eager")
    with torch._dynamo.config.patch(error_on_recompile=True):
        for shape in ((4, 2, 6), (5, 3, 7), (9, 8, 4)):
            x = torch.randn(shape)
            for a, b in zip(results(compiled, net, x), results(net, net, x), strict=True):
                assert torch.equal(a, b)


def test_inductor_keeps_the_layout_that_the_operator_asks_for():
    net, x = Block(LIFGate()), torch.randn(4, 2, 2, 5, 5).transpose(3, 4)
    compiled = torch.compile(net, fullgraph=True)
    for a, b in zip(results(compiled, net, x), results(net, net, x), strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("name", ["gate", "learned"])
def test_membrane_is_carried_through_compiled_code(name):
    net, x = Block(NEURONS[name]()), torch.randn(6, 2, 2, 5, 5)
    compiled = torch.compile(net, fullgraph=True, backend="aot_eager")
    found = []
    for call in (net, compiled):
        with carry_state(call):
            found.append(results(lambda x, call=call: torch.cat([call(chunk) for chunk in x.split(2)]), net, x))
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))
    assert torch.equal(compiled(x), net(x))


@pytest.mark.parametrize("name", ["gate", "learned", "unregistered"])
def test_exported_program_can_be_stored_and_run(name):
    net, x = Block(NEURONS[name]()), torch.randn(4, 2, 2, 5, 5)
    file = io.BytesIO()
    torch.export.save(torch.export.export(net, (x,)), file)
    file.seek(0)
    program = torch.export.load(file).module()
    assert torch.equal(program(x), net(x))


def test_exported_program_holds_one_operator_and_chooses_its_backend_when_it_runs(monkeypatch):
    x = torch.randn(4, 2, 5)
    program = torch.export.export(LIF(), (x,))
    calls = [node.target for node in program.graph.nodes if node.op == "call_function"]
    assert calls.count(torch.ops.tcvq.lif.default) == 1
    monkeypatch.setattr("tcvq_neurons.ops.choose", lambda *_: pytest.fail("a backend was chosen while exporting"))
    torch.export.export(LIF(), (x,))
    monkeypatch.undo()
    before = LAUNCHES.copy()
    program.module()(x)
    assert sum((LAUNCHES - before).values()) == 1


@pytest.mark.parametrize("reentrant", [True, False])
@pytest.mark.parametrize("name", ["gate", "learned", "unregistered"])
def test_activation_checkpointing_changes_nothing(name, reentrant):
    net, x = Block(NEURONS[name]()), torch.randn(4, 2, 2, 5, 5)
    expected = results(net, net, x)
    leaf = x.clone().requires_grad_()
    y = checkpoint(net, leaf, use_reentrant=reentrant)
    (y * torch.linspace(-1, 1, y.numel()).view_as(y)).sum().backward()
    actual = [y, leaf.grad, *(parameter.grad for parameter in net.parameters())]
    assert all(torch.equal(a, b) for a, b in zip(actual, expected, strict=True))
