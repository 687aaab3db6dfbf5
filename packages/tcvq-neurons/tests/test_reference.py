"""The definition of the neuron: golden vectors, traces on paper, and gradients against finite differences."""

from pathlib import Path

import numpy as np
import pytest
import torch

from tcvq_neurons import QuadraticGate, dynamics, lif, lif_gate

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


def primitive(u, alpha):
    """The integral of the quadratic gate: 0 below, 1 above, two parabolas between."""
    inside = 0.5 + alpha * u - u.sign() * (alpha * u) ** 2 / 2
    return torch.where(u.abs() > 1 / alpha, (u > 0).to(u.dtype), inside)


@pytest.mark.parametrize("alpha", [2.0, 1.7, 5.0])
def test_surrogate_is_the_derivative_of_its_primitive(alpha):
    u = torch.linspace(-1, 1, 401, dtype=torch.float64)
    eps = 1e-6
    slope = (primitive(u + eps, alpha) - primitive(u - eps, alpha)) / (2 * eps)
    torch.testing.assert_close(QuadraticGate(alpha)(u), slope, rtol=0, atol=1e-4 * alpha)
    assert QuadraticGate(alpha)(torch.zeros(())).item() == pytest.approx(alpha)


@pytest.mark.parametrize("reset", ["hard", "soft"])
@pytest.mark.parametrize("decay_input", [True, False])
@pytest.mark.parametrize("gate", [True, False])
def test_smooth_relaxation_passes_gradcheck_and_has_the_surrogate_gradient(monkeypatch, reset, decay_input, gate):
    options = {"reset": reset, "decay_input": decay_input, "detach_reset": False, "backend": "reference"}
    neuron = lif_gate if gate else lif
    x, v0 = torch.randn(4, 6, dtype=torch.float64), torch.rand(6, dtype=torch.float64) / 4
    x.requires_grad_()
    v0.requires_grad_()
    smooth = lambda h, config: primitive(h - config.v_threshold, config.surrogate.alpha)  # noqa: E731
    monkeypatch.setattr(dynamics, "fire", smooth)
    assert torch.autograd.gradcheck(lambda x, v0: tuple(neuron(x, v0, **options)), (x, v0))


def test_nan_and_overflow_are_not_hidden_by_the_reset():
    inf = float("inf")
    out = lif(torch.tensor([[inf, 1.0], [0.0, float("nan")]]))
    assert out.v.isnan().all()  # inf * (1 - 1) and nan
    assert QuadraticGate()(torch.tensor(float("nan"))).isnan()
