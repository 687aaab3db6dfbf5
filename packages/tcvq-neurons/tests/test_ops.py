"""The neuron as an operator of torch: registration, transforms, what is saved, precision, several processes."""

import itertools
import subprocess
import sys

import pytest
import torch
from torch.func import grad, jacrev, vmap

from tcvq_neurons import LAUNCHES, LIF, LIFGate, QuadraticGate, lif, lif_gate, ops

OPERATOR, BACKWARD = torch.ops.tcvq.lif.default, torch.ops.tcvq.lif_backward.default
OPTIONS = (2.0, 0.5, "hard", True, True, False, "QuadraticGate", [2.0])


class Flat(QuadraticGate):
    """A surrogate that no kernel has in compiled form."""

    def __call__(self, u):
        return torch.ones_like(u)


def inputs():
    """Sequences in every layout that the operator treats in its own way."""
    base = torch.randn(4, 2, 3, 4)
    yield "contiguous", base
    yield "transposed", base.mT
    yield "one image", base[0].expand(3, 2, 3, 4)
    yield "gaps", base[..., ::2]
    yield "one step", base[:1]
    yield "no sites", base[:, :0]
    yield "half", base.half()
    yield "double", base.mT.double()


@pytest.mark.parametrize("gate", [True, False])
@pytest.mark.parametrize("name", [name for name, _ in inputs()])
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor:UserWarning")  # torch's own check reads it
def test_operators_pass_the_check_of_torch_in_every_layout(name, gate):
    x = dict(inputs())[name].detach().requires_grad_(name != "one image")
    v0 = torch.rand(x.shape[1:], dtype=torch.promote_types(x.dtype, torch.float32)).requires_grad_()
    torch.library.opcheck(OPERATOR, (x, v0, True, *OPTIONS, gate, "torch"))
    torch.library.opcheck(OPERATOR, (x, None, False, *OPTIONS, gate, "auto"))
    fixed, tests = (x.detach(), v0.detach()), ("test_schema", "test_faketensor")
    torch.library.opcheck(
        BACKWARD, (*fixed, x.detach() + 1, v0.detach() + 1, *OPTIONS, gate, "torch"), test_utils=tests
    )
    torch.library.opcheck(BACKWARD, (x.detach(), None, x.detach() + 1, None, *OPTIONS, gate, "auto"), test_utils=tests)


@pytest.mark.parametrize("gate", [True, False])
def test_function_equals_the_reference_through_the_operator(gate):
    x, v0 = torch.randn(4, 2, 9).requires_grad_(), torch.rand(2, 9).requires_grad_()
    results = []
    for name in ("reference", "auto"):
        out = (lif_gate if gate else lif)(x, v0, backend=name, tau=1.7)
        results.append((*out, *torch.autograd.grad(out.s_seq.square().sum() + out.v.sum(), (x, v0))))
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


def test_vmap_equals_a_loop_whatever_axis_is_mapped():
    xs, vs = torch.randn(3, 4, 7), torch.rand(3, 7)
    neuron = lambda x, v0: tuple(lif_gate(x, v0))  # noqa: E731
    expected = [torch.stack(each) for each in zip(*itertools.starmap(neuron, zip(xs, vs, strict=True)), strict=True)]
    assert all(torch.equal(a, b) for a, b in zip(vmap(neuron)(xs, vs), expected, strict=True))
    moved = vmap(neuron, in_dims=(2, 1))(xs.movedim(0, 2), vs.movedim(0, 1))
    assert all(torch.equal(a, b) for a, b in zip(moved, expected, strict=True))
    one = vmap(neuron, in_dims=(None, 0))(xs[0], vs)
    assert torch.equal(one[0][2], lif_gate(xs[0], vs[2]).s_seq)
    assert torch.equal(vmap(LIF())(xs)[1], LIF()(xs[1]))


def test_function_transforms_give_the_gradients_of_autograd():
    loss = lambda x: lif_gate(x).s_seq.square().sum()  # noqa: E731
    xs = torch.randn(3, 4, 7).requires_grad_()
    (expected,) = torch.autograd.grad(sum(loss(x) for x in xs), xs)
    assert torch.equal(vmap(grad(loss))(xs.detach()), expected)
    assert torch.equal(torch.stack([grad(loss)(x) for x in xs.detach()]), expected)
    assert torch.equal(grad(lambda x: vmap(loss)(x).sum())(xs.detach()), expected)
    jacobian = jacrev(lambda x: lif_gate(x).s_seq)(xs[0].detach())
    assert jacobian.shape == (4, 7, 4, 7)
    assert jacobian[1, 2, 3].eq(0).all()  # no output depends on a later input


@pytest.mark.parametrize("neuron", [LIF(), LIF(backend="reference"), LIF(learn=("tau",)), LIF(surrogate=Flat())])
def test_double_backward_is_refused(neuron):
    x = torch.randn(4, 5).requires_grad_()
    (first,) = torch.autograd.grad(neuron(x).square().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="differentiate twice"):
        first.sum().backward()


def saved_by(module, x):
    saved = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t) or t, lambda t: t):
        return module(x), saved


@pytest.mark.parametrize("neuron", [LIF(), LIFGate(), LIFGate(surrogate=Flat()), LIFGate(learn=("tau", "v_threshold"))])
def test_only_the_input_is_kept_for_the_backward(neuron):
    x = torch.randn(8, 50).requires_grad_()
    y, saved = saved_by(neuron, x)
    big = [t for t in saved if t.numel() >= 50]
    assert {t.data_ptr() for t in big} <= {x.data_ptr()}
    expected = torch.autograd.grad(y.sum(), x, retain_graph=True)[0]
    assert torch.equal(torch.autograd.grad(y.sum(), x)[0], expected)  # a retained graph can be used again


@pytest.mark.parametrize("options", [{"surrogate": Flat()}, {"learn": ("tau",)}])
def test_reference_is_computed_again_only_where_there_is_a_gradient(options, monkeypatch):
    neuron, x = LIF(**options), torch.randn(4, 5)
    before = LAUNCHES.copy()
    neuron(x.requires_grad_()).sum().backward()
    assert LAUNCHES - before == {"reference.forward": 2}
    monkeypatch.setattr(ops, "checkpoint", None)
    with torch.no_grad():
        neuron(x)


def test_what_only_the_reference_can_run_is_refused_by_name_elsewhere():
    with pytest.raises(
        ValueError, match=r"'torch' cannot run this input: .* surrogate .*backend='reference' or 'auto'"
    ):
        lif(torch.zeros(2, 3), surrogate=Flat(), backend="torch")
    with pytest.raises(ValueError, match="'numba' cannot run this input: its tau is a tensor"):
        LIF(learn=("tau",), backend="numba")(torch.zeros(2, 3))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_passes_through_in_the_dtype_of_the_layer_before(dtype):
    net = torch.nn.Sequential(torch.nn.Linear(5, 6), LIFGate(), torch.nn.Linear(6, 2), LIF())
    x, seen = torch.randn(4, 3, 5), []
    net[1].register_forward_hook(lambda module, inputs, output: seen.extend((inputs[0], output)))
    with torch.autocast("cpu", dtype):
        y = net(x)
    assert y.dtype == dtype
    assert torch.equal(seen[1], lif_gate(seen[0], backend="reference").s_seq)
    y.sum().backward()
    assert net[0].weight.grad.dtype == torch.float32
    assert net[0].weight.grad.any()


def test_modules_follow_the_dtype_that_the_network_is_moved_to():
    net = torch.nn.Sequential(torch.nn.Linear(5, 6), LIFGate(), LIF(learn=("tau",)))
    for dtype in (torch.float64, torch.bfloat16, torch.float32):
        y = net.to(dtype)(torch.randn(4, 3, 5, dtype=dtype))
        assert y.dtype == dtype
        y.sum().backward()
        assert net[2].w_tau.grad.dtype == dtype
        net.zero_grad()


WORKER = """
import sys
import torch
from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel
from tcvq_neurons import LIF, LIFGate
from tcvq_neurons.state import carry_state

rank, store = int(sys.argv[1]), sys.argv[2]
torch.set_num_threads(1)
x = torch.randn(6, 4, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))

def gradients(wrap, x):
    torch.manual_seed(1)
    net = nn.Sequential(nn.Linear(5, 6), LIFGate(learn=("tau",)), nn.Linear(6, 3), LIF()).double()
    replica = wrap(net)
    with carry_state(net) as state:
        for chunk in x.split(3):
            (replica(chunk) - 0.3).square().mean().backward()
            state.detach()
    return [parameter.grad for parameter in net.parameters()]

distributed.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
two = gradients(DistributedDataParallel, x[:, 2 * rank : 2 * rank + 2])
distributed.destroy_process_group()
for a, b in zip(two, gradients(lambda net: net, x), strict=True):
    torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-15)
"""


@pytest.mark.skipif("not torch.distributed.is_gloo_available()", reason="this torch is built without gloo")
def test_two_processes_give_the_gradients_of_one(tmp_path):
    command = [sys.executable, "-W", "ignore", "-c", WORKER]
    workers = [subprocess.Popen([*command, rank, str(tmp_path / "store")]) for rank in ("0", "1")]
    assert [worker.wait(300) for worker in workers] == [0, 0]
