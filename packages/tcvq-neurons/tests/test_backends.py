"""The fused backends: equal to the definition bit for bit, in every layout, and proven to have run."""

import itertools
import sys
from dataclasses import dataclass

import pytest
import torch

from tcvq_neurons import LAUNCHES, LIF, LIFGate, QuadraticGate, backends, lif, lif_gate, set_default_backend
from tcvq_neurons.surrogate import ATan, Rectangle, Sigmoid, SuperSpike, Triangle, register_surrogate

BOOLS = (True, False)
RESETS = ("hard", "soft", "none")
SURROGATES = (QuadraticGate(), ATan(), Sigmoid(), Triangle(width=0.5), Rectangle(), SuperSpike())


def currents(*shape, dtype=torch.float32):
    """Random currents, a third of them in eighths, so that the membrane often meets the threshold exactly."""
    x = torch.randn(shape) * 1.5
    return torch.where(torch.rand(shape) < 0.33, (x * 8).round() / 8, x).to(dtype)


def passes(neuron, x, v0, grad_y, grad_v, **options):
    """Outputs and gradients of one forward and backward."""
    x = x.detach().clone().requires_grad_()
    v0 = None if v0 is None else v0.detach().clone().requires_grad_()
    out = neuron(x, v0, **options)
    torch.autograd.backward(out, (grad_y.to(out.s_seq.dtype), grad_v))
    return [*out, x.grad] + ([] if v0 is None else [v0.grad])


def assert_equal_backends(neuron, shape, dtype, backend, **options):
    state = torch.promote_types(dtype, torch.float32)
    x, grad_y, grad_v = currents(*shape, dtype=dtype), torch.randn(shape), torch.randn(shape[1:], dtype=state)
    for v0 in (None, torch.rand(shape[1:], dtype=state)):
        expected = passes(neuron, x, v0, grad_y, grad_v, backend="reference", **options)
        before = LAUNCHES.copy()
        actual = passes(neuron, x, v0, grad_y, grad_v, backend=backend, **options)
        assert LAUNCHES - before == {f"{backend}.forward": 1, f"{backend}.backward": 1}
        for a, e in zip(actual, expected, strict=True):
            assert a.dtype == e.dtype
            assert torch.equal(a, e)


@pytest.mark.parametrize("neuron", [lif, lif_gate])
@pytest.mark.parametrize("surrogate", SURROGATES, ids=lambda each: type(each).__name__)
def test_fused_backends_equal_the_reference_bit_for_bit(fused, surrogate, neuron):
    names = ("reset", "detach_reset", "decay_input", "fire_at_threshold")
    sizes = itertools.cycle(itertools.product((1, 2, 3, 4, 8), (257, 65, 1)))
    for values, size in zip(itertools.product(RESETS, BOOLS, BOOLS, BOOLS), sizes, strict=False):
        options = dict(zip(names, values, strict=True))
        assert_equal_backends(neuron, size, torch.float32, fused, surrogate=surrogate, **options)


@pytest.mark.parametrize("neuron", [lif, lif_gate])
@pytest.mark.parametrize("n_steps", [6, 16, 32])
def test_equality_holds_over_many_steps(fused, n_steps, neuron):
    for reset, detach_reset in itertools.product(RESETS, BOOLS):
        options = {"reset": reset, "detach_reset": detach_reset}
        assert_equal_backends(neuron, (n_steps, 257), torch.float32, fused, **options)


@pytest.mark.parametrize("neuron", [lif, lif_gate])
def test_integrate_and_fire_is_exact(fused, neuron):
    for reset, detach_reset in itertools.product(RESETS, BOOLS):
        options = {"tau": float("inf"), "decay_input": False, "reset": reset, "detach_reset": detach_reset}
        assert_equal_backends(neuron, (8, 129), torch.float32, fused, **options)


@pytest.mark.parametrize("n_site", [0, 1, 7, 4096, 4097])
@pytest.mark.parametrize("tau", [1.0, 1.7, 3.0])
@pytest.mark.parametrize("neuron", [lif, lif_gate])
def test_equality_holds_for_any_size_and_for_constants_that_round(fused, n_site, tau, neuron):
    options = {"tau": tau, "v_threshold": 0.3, "surrogate": QuadraticGate(1.7)}
    assert_equal_backends(neuron, (3, n_site), torch.float32, fused, **options)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("neuron", [lif, lif_gate])
@pytest.mark.parametrize("tau", [2.0, 1.7])
def test_half_inputs_are_computed_in_float32_and_rounded_once(fused, dtype, neuron, tau):
    for reset, detach_reset, surrogate in itertools.product(RESETS, BOOLS, (QuadraticGate(), Sigmoid())):
        options = {"reset": reset, "detach_reset": detach_reset, "surrogate": surrogate}
        assert_equal_backends(neuron, (4, 1025), dtype, fused, tau=tau, **options)


@pytest.mark.parametrize("neuron", [lif, lif_gate])
def test_float64_stays_float64(neuron):
    for reset, surrogate in itertools.product(RESETS, SURROGATES):
        assert_equal_backends(neuron, (4, 33), torch.float64, "torch", tau=1.7, reset=reset, surrogate=surrogate)
    assert neuron(torch.zeros(2, 3, dtype=torch.float64)).v.dtype == torch.float64


@pytest.mark.parametrize("neuron", [lif, lif_gate])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_infinities_and_nans_spread_as_in_the_reference(fused, neuron, dtype):
    x = currents(6, 64)
    x[1, :8], x[2, 8:16], x[3, 16:24] = float("inf"), float("-inf"), float("nan")
    x, grad_y, grad_v = x.to(dtype), torch.randn(6, 64), torch.randn(64)
    grad_y[4, :32:4] = float("inf")
    for reset, detach_reset, surrogate in itertools.product(RESETS, BOOLS, (QuadraticGate(), Sigmoid())):
        options = {"reset": reset, "detach_reset": detach_reset, "surrogate": surrogate}
        expected = passes(neuron, x, None, grad_y, grad_v, backend="reference", **options)
        for a, e in zip(passes(neuron, x, None, grad_y, grad_v, backend=fused, **options), expected, strict=True):
            torch.testing.assert_close(a, e, rtol=0, atol=0, equal_nan=True)


def test_modules_give_the_gradient_of_the_functions(fused):
    for module, function in ((LIF, lif), (LIFGate, lif_gate)):
        x, g = currents(4, 50).requires_grad_(), torch.randn(4, 50)
        module(backend=fused)(x).backward(g)
        (expected,) = torch.autograd.grad(function(x, backend="reference").s_seq, x, g)
        assert torch.equal(x.grad, expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("module", [LIF, LIFGate])
def test_a_single_step_from_rest_whose_membrane_nobody_wants_is_the_reference_s(fused, module, dtype):
    x, g = currents(1, 5000, dtype=dtype), torch.randn(1, 5000).to(dtype)
    names = ("reset", "detach_reset", "decay_input", "fire_at_threshold", "tau")
    for values in itertools.product(RESETS, BOOLS, BOOLS, BOOLS, (2.0, 1.7)):
        found = []
        for backend in ("reference", fused):
            current, before = x.clone().requires_grad_(), LAUNCHES.copy()
            y = module(backend=backend, **dict(zip(names, values, strict=True)))(current)
            found.append((y, *torch.autograd.grad(y, current, g)))
            assert (LAUNCHES - before)[f"{backend}.forward"] == 1
        for expected, actual in zip(*found, strict=True):
            assert torch.equal(actual, expected)


def test_gradient_through_the_membrane_alone(fused):
    x = currents(4, 50).requires_grad_()
    grads = [torch.autograd.grad(lif_gate(x, backend=name).v.sum(), x)[0] for name in ("reference", fused)]
    assert torch.equal(*grads)


def layouts():
    """Inputs whose steps are dense in different orders, or not dense at all."""
    base = currents(6, 3, 4, 5, 2)
    yield "channels_last", base[:4].flatten(0, 1).to(memory_format=torch.channels_last).view(4, 3, 4, 5, 2)
    yield "transposed", base[:4].mT
    yield "every other step", base[::2]
    yield "offset", base[1:]
    yield "batch first", base.transpose(0, 1)
    yield "gaps", base[:, :, ::2]
    yield "repeated sites", base[:, :, :, :, :1].expand(6, 3, 4, 5, 2)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", [name for name, _ in layouts()])
def test_every_layout_gives_the_values_of_the_contiguous_one(fused, name, dtype):
    x = dict(layouts())[name]
    x = x if dtype == torch.float32 else x.to(dtype)
    v0 = torch.rand(x.shape[1:])
    for grad_y in (
        torch.randn(x.shape),
        torch.randn(x.shape[::-1]).permute(4, 3, 2, 1, 0),
        torch.ones(1).expand(x.shape),
    ):
        leaf = x.detach().requires_grad_()
        out = lif_gate(leaf, v0, backend=fused)
        out.s_seq.backward(grad_y.to(dtype))
        expected = passes(lif_gate, x.contiguous(), v0, grad_y, torch.zeros_like(v0), backend="reference")
        for a, e in zip((*out, leaf.grad), expected, strict=False):
            assert torch.equal(a, e)


def saved_by(module, x):
    """Output of a module, and the tensors that it keeps for its backward."""
    saved = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t) or t, lambda t: t):
        return module(x), saved


@pytest.mark.parametrize(("name", "x"), list(layouts())[:4], ids=lambda value: str(value)[:12])
def test_dense_steps_are_neither_copied_nor_reordered(fused, name, x):
    leaf = x.detach().requires_grad_()
    y, saved = saved_by(LIFGate(backend=fused), leaf)
    y.sum().backward()
    assert [t.data_ptr() for t in saved] == [x.data_ptr()]  # the input, once, and nothing else
    assert y.stride()[1:] == x.stride()[1:]
    assert torch.autograd.grad(LIF(backend=fused)(leaf).sum(), leaf)[0].stride()[1:] == x.stride()[1:]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_current_that_is_the_same_at_every_step_is_read_in_place(fused, dtype):
    image, grad_y = currents(3, 4, 4, dtype=dtype).requires_grad_(), torch.randn(5, 3, 4, 4).to(dtype)
    y, saved = saved_by(LIFGate(backend=fused), image.expand(5, 3, 4, 4))
    y.backward(grad_y)
    assert saved[0].stride(0) == 0
    copies = image.detach().repeat(5, 1, 1, 1).requires_grad_()
    expected = lif_gate(copies, backend="reference").s_seq
    expected.backward(grad_y)
    assert torch.equal(y, expected)
    assert torch.equal(image.grad, copies.grad.sum(0))


def test_backward_can_run_twice_on_a_retained_graph(fused):
    x, v0 = currents(4, 50).requires_grad_(), torch.rand(50, requires_grad=True)
    out = lif_gate(x, v0, backend=fused)
    grads = [torch.autograd.grad(out, (x, v0), (torch.ones(4, 50), torch.ones(50)), retain_graph=True) for _ in BOOLS]
    assert torch.equal(grads[0][0], grads[1][0])
    assert torch.equal(grads[0][1], grads[1][1])


@pytest.mark.parametrize("backend", ["reference", "auto", "torch"])
def test_double_backward_is_refused(backend):
    x = currents(4, 5).requires_grad_()
    (grad,) = torch.autograd.grad(lif(x, backend=backend).s_seq.square().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="differentiate twice"):
        grad.sum().backward()


def test_auto_runs_numba_where_it_can_and_torch_elsewhere(numba_backend):
    before = LAUNCHES.copy()
    lif(torch.zeros(2, 3))
    lif(torch.zeros(2, 3, dtype=torch.bfloat16))
    lif(torch.zeros(2, 3, dtype=torch.float64))
    lif(torch.zeros(2, 3), surrogate=Ramp())
    lif(torch.zeros(2, 3), surrogate=torch.ones_like)
    lif(torch.zeros(2, 3), tau=torch.tensor(2.0))
    assert LAUNCHES - before == {"numba.forward": 2, "torch.forward": 2, "reference.forward": 2}


@register_surrogate
@dataclass(frozen=True)
class Ramp:
    """A surrogate of a user, registered, with no form for compiled kernels."""

    width: float = 0.7

    def __call__(self, u):
        return (1 - u.abs() / self.width).clamp(min=0)


@pytest.mark.parametrize("neuron", [lif, lif_gate])
def test_surrogate_of_a_user_runs_fused_in_torch_and_is_refused_by_numba(numba_backend, neuron):
    for reset in RESETS:
        options = {"surrogate": Ramp(0.9), "reset": reset, "detach_reset": False}
        assert_equal_backends(neuron, (4, 257), torch.float32, "torch", **options)
    with pytest.raises(
        ValueError, match=r"no compiled form of the surrogate Ramp\(width=0\.7\), only of QuadraticGate"
    ):
        neuron(torch.zeros(2, 3), backend="numba", surrogate=Ramp())


@pytest.mark.parametrize("name", ["tau", "v_threshold"])
def test_tensor_constants_are_refused_in_words(fused, name):
    with pytest.raises(ValueError, match=f"{name} is a tensor, whose gradient only the reference computes"):
        lif(torch.zeros(2, 3), backend=fused, **{name: torch.tensor(2.0)})


def test_subclass_of_the_surrogate_is_asked_for_its_own_derivative():
    class Flat(QuadraticGate):
        def __call__(self, u):
            return torch.ones_like(u)

    x = currents(4, 50).requires_grad_()
    grads = [
        torch.autograd.grad(lif(x, surrogate=Flat(), backend=name).s_seq.sum(), x)[0] for name in ("auto", "reference")
    ]
    assert torch.equal(*grads)


def test_default_backend_can_be_forced_and_restored():
    x, before = torch.zeros(2, 3), LAUNCHES.copy()
    assert set_default_backend("torch") == "auto"
    lif(x)
    assert set_default_backend("reference") == "torch"
    lif(x)
    assert [status.name for status in backends() if status.chosen] == ["reference"]
    assert set_default_backend("auto") == "reference"
    assert LAUNCHES - before == {"torch.forward": 1, "reference.forward": 1}


def test_status_lists_every_backend_with_a_reason():
    status = {status.name: status for status in backends()}
    assert list(status) == ["cupy", "numba", "torch", "reference"]
    assert status["torch"].available
    assert all(each.reason for each in status.values())
    assert status["numba"].chosen is status["numba"].available


def test_backend_that_is_not_installed_says_how_to_get_it(monkeypatch):
    monkeypatch.setattr(
        sys.modules["tcvq_neurons.backends"], "_numba_problem", lambda: 'no numba; pip install "tcvq-neurons[cpu]"'
    )
    with pytest.raises(RuntimeError, match=r'pip install "tcvq-neurons\[cpu\]"'):
        lif(torch.zeros(2, 3), backend="numba")
    with pytest.raises(RuntimeError, match="cannot run here"):
        set_default_backend("numba")
    before = LAUNCHES.copy()
    lif(torch.zeros(2, 3))
    assert LAUNCHES - before == {"torch.forward": 1}
    assert [status.name for status in backends() if status.chosen] == ["torch"]


def test_input_that_numba_cannot_run_is_an_error_only_on_request(numba_backend):
    with pytest.raises(ValueError, match=r"dtype is torch\.float64.*backend='torch'"):
        lif(torch.zeros(2, 3, dtype=torch.float64), backend="numba")
    with pytest.raises(ValueError, match="no compiled form of the surrogate"):
        lif(torch.zeros(2, 3), backend="numba", surrogate=lambda u: u)
