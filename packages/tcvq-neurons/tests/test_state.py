"""Carried state: streaming equals the whole sequence, gradients are cut where asked, mistakes name the layer."""

import contextlib
import copy
import pickle

import pytest
import torch
from torch.utils.checkpoint import checkpoint

from tcvq_neurons import LIF, LIFGate, QuadraticGate, lif
from tcvq_neurons.lif import IF
from tcvq_neurons.state import carry_state

NEURONS = {
    "LIF": LIF,
    "gate": lambda: LIFGate(reset="soft", tau=1.7),
    "IF": IF,
    "learned": lambda: LIF(learn=("tau", "v_threshold")),
    "reference": lambda: LIF(backend="reference"),
}


@pytest.fixture(params=NEURONS)
def neuron(request):
    """One neuron of each kind."""
    return NEURONS[request.param]()


def network():
    return torch.nn.Sequential(torch.nn.Linear(5, 4), LIF(), torch.nn.Linear(4, 3), LIFGate())


def test_sequence_at_once_equals_chunks_and_single_steps_bit_for_bit(neuron):
    x, g = torch.randn(6, 2, 7), torch.randn(6, 2, 7)
    runs = {
        "at once": neuron,
        "chunks": lambda x: torch.cat([neuron(x[:1]), neuron(x[1:4]), neuron(x[4:])]),
        "steps": lambda x: torch.stack([neuron.step(step) for step in x]),
    }
    found = {}
    for name, run in runs.items():
        leaf = x.clone().requires_grad_()
        with carry_state(neuron) as state:
            y = run(leaf)
            found[name] = (y, torch.autograd.grad(y, leaf, g)[0], state.membranes[type(neuron).__name__])
    for name in ("chunks", "steps"):
        assert all(torch.equal(a, b) for a, b in zip(found[name], found["at once"], strict=True))
    assert torch.equal(neuron(x), found["at once"][0])


def test_network_can_be_streamed_step_by_step():
    net, x = network().double(), torch.randn(6, 2, 5).double()
    with torch.no_grad(), carry_state(net) as state:
        y = torch.cat([net(step[None]) for step in x])
        assert set(state.membranes) == {"1", "3"}
    torch.testing.assert_close(y, net(x), rtol=1e-12, atol=1e-12)


def test_detaching_cuts_the_gradient_between_chunks(neuron):
    x = torch.randn(6, 2, 7).requires_grad_()
    with carry_state(neuron) as state:
        first = neuron(x[:3])
        v = state.membranes[type(neuron).__name__]
        state.detach()
        y = torch.cat([first, neuron(x[3:])])
    (actual,) = torch.autograd.grad(y.square().sum(), x)
    options = {"tau": neuron.tau, "v_threshold": neuron.v_threshold} if neuron.state_dict() else {}
    second = neuron(x[:3]), carried(neuron, x[3:], v.detach())
    (expected,) = torch.autograd.grad(torch.cat(second).square().sum(), x)
    assert torch.equal(actual, expected)
    assert not options or actual.any()


def carried(neuron, x, v):
    """Outputs of a neuron that starts from ``v``."""
    with carry_state(neuron):
        neuron._memory.v = v
        return neuron(x)


def test_truncated_training_runs_backward_after_every_chunk():
    net, x = network(), torch.randn(9, 2, 5)
    with carry_state(net) as state:
        for chunk in x.split(3):
            net(chunk).square().sum().backward()
            state.detach()
    assert net[0].weight.grad.any()


def test_resetting_returns_to_rest(neuron):
    x = torch.rand(3, 2, 7) + 0.2
    expected = neuron(x)
    with carry_state(neuron) as state:
        neuron(x)
        assert state.membranes[type(neuron).__name__] is not None
        state.reset()
        assert torch.equal(neuron(x), expected)
        state.reset()
        assert neuron(torch.zeros(1, 5)).shape == (1, 5)  # another shape is welcome at rest


def test_block_ends_at_rest_also_after_an_error():
    neuron, x = LIF(), torch.full((2, 3), 0.8)
    with contextlib.suppress(KeyError), carry_state(neuron):
        neuron(x)
        raise KeyError
    assert torch.equal(neuron(x), lif(x).s_seq)
    with carry_state(neuron) as state:  # it can be entered again
        assert state.membranes == {"LIF": None}


def test_membrane_is_in_no_state_dict_copy_or_pickle():
    net, x = network(), torch.randn(4, 2, 5)
    with carry_state(net):
        net(x)
        assert set(net.state_dict()) == {"0.weight", "0.bias", "2.weight", "2.bias"}
        assert not list(net.buffers())
        # The bytes were made on this line, so loading them runs nothing foreign.
        for other in (copy.deepcopy(net), copy.copy(net[1]), pickle.loads(pickle.dumps(net))):
            assert all(module._memory is None for module in other.modules() if isinstance(module, LIF))
        assert net[1]._memory.v is not None


def test_step_outside_a_block_says_what_to_do():
    with pytest.raises(RuntimeError, match=r"LIFGate\.step has no membrane to continue.*carry_state"):
        LIFGate().step(torch.zeros(3))


def test_one_module_cannot_carry_state_twice():
    net = network()
    with carry_state(net), pytest.raises(RuntimeError, match=r"^LIF carries state already"), carry_state(net[1]):
        pass
    with carry_state(net[3]):
        with pytest.raises(RuntimeError, match=r"^3 carries state already"), carry_state(net):
            pass
        assert net[1]._memory is None  # nothing was half entered
    with pytest.raises(ValueError, match="Linear holds no neuron"), carry_state(net[0]):
        pass


@pytest.mark.parametrize(
    ("first", "then", "message"),
    [
        (torch.zeros(2, 3, 5), torch.zeros(2, 1, 5), r"1 carries a membrane of shape \(3, 4\) .* \(1, 4\); .*reset"),
        (torch.zeros(2, 3, 5), torch.zeros(2, 3, 5).double(), r"1 .* dtype torch.float32 .* torch.float64"),
        (torch.zeros(2, 3, 5), torch.zeros(2, 3, 5, device="meta"), "1 .* device cpu .* meta"),
    ],
)
def test_membrane_that_does_not_fit_is_an_error_that_names_the_layer(first, then, message):
    net = network()
    with torch.no_grad(), carry_state(net):
        net(first)
        with pytest.raises(ValueError, match=message):
            net.to(device=then.device, dtype=then.dtype)(then)


class Flat(QuadraticGate):
    """A surrogate that no kernel has in compiled form."""

    def __call__(self, u):
        return torch.ones_like(u)


@pytest.mark.parametrize("options", [{}, {"backend": "reference"}, {"surrogate": Flat()}, {"reset": "soft"}])
def test_membrane_of_a_used_up_graph_is_an_error_that_names_the_layer(options):
    net = torch.nn.Sequential(torch.nn.Linear(5, 4), LIF(**options))
    x = torch.randn(3, 2, 5)
    with carry_state(net) as state:
        net(x).sum().backward(retain_graph=True)
        net(x).sum().backward()  # the graph was kept: this is backpropagation through both calls
        with torch.no_grad():
            net(x)  # nobody needs the graph
        state.reset()
        net(x).sum().backward()
        with pytest.raises(RuntimeError, match=r"^1 carries a membrane whose graph .* used up; call state.detach\(\)"):
            net(x)
        state.detach()
        net(x).sum().backward()


@pytest.mark.parametrize("reentrant", [True, False])
def test_checkpointing_a_carried_membrane_is_refused(reentrant):
    neuron, x = LIF(), torch.randn(3, 2).requires_grad_()
    with carry_state(neuron):
        y = checkpoint(neuron, x, use_reentrant=reentrant)
        with pytest.raises(RuntimeError, match=r"LIF was called from within a backward pass"):
            y.sum().backward()
