"""The definition of the neuron: golden vectors, traces on paper, and gradients against finite differences."""

from pathlib import Path

import numpy as np
import pytest
import torch

from tcvq_neurons import QuadraticGate, dynamics, lif, lif_gate
from tcvq_neurons.surrogate import ATan, Sigmoid

GOLDEN = Path(__file__).parent / "golden" / "lif.npz"


@pytest.fixture
def golden():
    with np.load(GOLDEN) as file:
        return {name: torch.from_numpy(file[name]) for name in file.files}


def trace(*currents, **options):
    out = lif(torch.tensor(currents, dtype=torch.float64), backend="reference", **options)
    return out.s_seq.tolist(), out.v.item()


@pytest.mark.parametrize("backend", ["reference", "auto"])
def test_spikes_membrane_and_gradient_equal_the_golden_file_bit_for_bit(golden, backend):
    x = golden["x"].requires_grad_()
    out = lif(x, backend=backend)
    out.s_seq.backward(golden["grad_out"])
    assert torch.equal(out.s_seq, golden["spikes"])
    assert torch.equal(out.v, golden["v_after_reset"][-1])
    assert torch.equal(x.grad, golden["grad_x_spikes"])
    for t in range(len(x)):
        assert torch.equal(lif(x[: t + 1], backend=backend).v, golden["v_after_reset"][t])


@pytest.mark.parametrize("backend", ["reference", "auto"])
def test_gate_and_its_gradient_equal_the_golden_file_bit_for_bit(golden, backend):
    x = golden["x"].requires_grad_()
    out = lif_gate(x, backend=backend)
    out.s_seq.backward(golden["grad_out"])
    assert torch.equal(out.s_seq, golden["gated"])
    assert torch.equal(x.grad, golden["grad_x_gated"])


def test_hard_reset_sets_the_membrane_to_zero():
    # h = 0.375; 0.375 + (1 - 0.375) / 2 = 0.6875 fires; 0 + 0.5 / 2 = 0.25
    assert trace(0.75) == ([0.0], 0.375)
    assert trace(0.75, 1.0) == ([0.0, 1.0], 0.0)
    assert trace(0.75, 1.0, 0.5) == ([0.0, 1.0, 0.0], 0.25)


def test_soft_reset_subtracts_the_threshold():
    # h = 1 fires and leaves 0.5; 0.5 + (1 - 0.5) / 2 = 0.75 fires and leaves 0.25
    assert trace(2.0, reset="soft") == ([1.0], 0.5)
    assert trace(2.0, 1.0, reset="soft") == ([1.0, 1.0], 0.25)


def test_without_reset_a_spike_leaves_the_membrane():
    # h = 1 fires and stays; 1 + (0.5 - 1) / 2 = 0.75 fires and stays
    assert trace(2.0, 0.5, reset="none") == ([1.0, 1.0], 0.75)


def test_integrate_and_fire_leaks_nothing():
    # 0.25; 0.25 - 0 + 0 = 0.25; 0.25 + 0.375 = 0.625 fires and leaves 0.125
    options = {"tau": float("inf"), "decay_input": False}
    assert trace(0.25, 0.0, 0.375, reset="soft", **options) == ([0.0, 0.0, 1.0], 0.125)
    assert trace(0.25, 0.0, 0.375, **options) == ([0.0, 0.0, 1.0], 0.0)


def test_undecayed_input_is_added_whole():
    # h = 0.375; 0.375 - 0.1875 + 0.25 = 0.4375
    assert trace(0.375, 0.25, decay_input=False) == ([0.0, 0.0], 0.4375)


def test_membrane_exactly_at_the_threshold_fires_only_on_request():
    assert trace(1.0) == ([0.0], 0.5)
    assert trace(1.0, fire_at_threshold=True) == ([1.0], 0.0)


def test_larger_tau_charges_more_slowly():
    assert trace(1.0, 1.0, tau=4.0) == ([0.0, 0.0], 0.4375)  # 0.25; 0.25 + 0.75 / 4


def test_initial_membrane_decays_and_is_continued():
    # 0.25 + (0 - 0.25) / 2
    assert lif(torch.zeros(1, 1), torch.full((1,), 0.25)).v.item() == 0.125
    x = torch.randn(6, 9)
    whole, first = lif(x), lif(x[:2])
    rest = lif(x[2:], first.v)
    assert torch.equal(whole.s_seq, torch.cat([first.s_seq, rest.s_seq]))
    assert torch.equal(whole.v, rest.v)


def test_gradient_on_paper():
    # h = 0.4, u = -0.1, g' = 1.6; then h = 0.4 + 0.3 = 0.7 fires, u = 0.2, g' = 1.2.
    # gh1 = 1.2, gx1 = 0.6, c = 0.6; gh0 = 1.6 + 0.6, gx0 = 1.1, dL/dv0 = 1.1
    x, v0 = torch.tensor([[0.8], [1.0]], dtype=torch.float64).requires_grad_(), torch.zeros(1, dtype=torch.float64)
    v0.requires_grad_()
    lif(x, v0).s_seq.sum().backward()
    torch.testing.assert_close(x.grad, torch.tensor([[1.1], [0.6]], dtype=torch.float64))
    torch.testing.assert_close(v0.grad, torch.tensor([1.1], dtype=torch.float64))


class _SmoothSpike(torch.autograd.Function):
    """The surrogate's primitive in place of the step, with the derivative that the neuron uses."""

    @staticmethod
    def forward(ctx, u, surrogate):
        ctx.save_for_backward(u)
        ctx.surrogate = surrogate
        return surrogate.primitive(u)

    @staticmethod
    def backward(ctx, grad_s):
        return grad_s * ctx.surrogate(ctx.saved_tensors[0]), None


@pytest.fixture
def smooth(monkeypatch):
    """Makes spikes differentiable, so that finite differences can check all that surrounds them."""
    monkeypatch.setattr(dynamics, "fire", lambda h, c: _SmoothSpike.apply(h - c.v_threshold, c.surrogate))


def doubles(*shape):
    return torch.randn(shape, dtype=torch.float64).requires_grad_()


@pytest.mark.parametrize("reset", ["hard", "soft", "none"])
@pytest.mark.parametrize("decay_input", [True, False])
@pytest.mark.parametrize("gate", [True, False])
@pytest.mark.parametrize("surrogate", [QuadraticGate(), ATan(), Sigmoid()], ids=lambda each: type(each).__name__)
def test_smooth_relaxation_passes_gradcheck_with_the_surrogate_gradient(smooth, surrogate, reset, decay_input, gate):
    options = {"reset": reset, "decay_input": decay_input, "detach_reset": False, "surrogate": surrogate}
    neuron = lif_gate if gate else lif
    run = lambda x, v0: tuple(neuron(x, v0, backend="reference", **options))  # noqa: E731
    assert torch.autograd.gradcheck(run, (doubles(3, 4), doubles(4)))


@pytest.mark.parametrize("reset", ["hard", "soft"])
@pytest.mark.parametrize("decay_input", [True, False])
def test_gradients_reach_tau_and_threshold_of_every_channel(smooth, reset, decay_input):
    tau = (1.5 + torch.rand(2, 1, dtype=torch.float64)).requires_grad_()
    threshold = (0.3 + torch.rand(2, 1, dtype=torch.float64)).requires_grad_()
    options = {"reset": reset, "decay_input": decay_input, "detach_reset": False, "surrogate": ATan()}
    run = lambda x, tau, v_th: tuple(lif(x, backend="reference", tau=tau, v_threshold=v_th, **options))  # noqa: E731
    assert torch.autograd.gradcheck(run, (doubles(3, 2, 3), tau, threshold))


def test_tensor_constants_of_one_value_give_the_bits_of_the_number():
    x, constant = torch.randn(4, 2, 50), {"tau": 1.7, "v_threshold": 0.3}
    numbers = lif(x, backend="reference", **constant)
    tensors = lif(x, backend="reference", **{name: torch.full((2, 1), value) for name, value in constant.items()})
    assert torch.equal(numbers.s_seq, tensors.s_seq)
    assert torch.equal(numbers.v, tensors.v)


def test_nan_and_overflow_are_not_hidden_by_the_reset():
    inf = float("inf")
    out = lif(torch.tensor([[inf, 1.0], [0.0, float("nan")]]))
    assert out.v.isnan().all()  # inf * (1 - 1) and nan
