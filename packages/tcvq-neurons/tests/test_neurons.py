"""Constants that are learned or differ between channels, and integrate-and-fire neurons."""

import math

import pytest
import torch

from tcvq_neurons import LIF, LIFConfig, LIFGate, QuadraticGate, dynamics, lif, lif_gate
from tcvq_neurons.config import TensorConfig
from tcvq_neurons.lif import IF, IFGate
from tcvq_neurons.testing import check_neuron


@pytest.mark.parametrize(
    "neuron",
    [
        LIF(learn=("tau",)),
        LIFGate(tau=1.5, v_threshold=0.4, learn=("tau", "v_threshold"), reset="soft"),
        IF(),
        IFGate(learn=("v_threshold",), v_threshold=0.7),
    ],
)
def test_every_neuron_passes_the_conformance_kit(neuron):
    check_neuron(neuron)


def test_learned_constants_start_where_the_config_says():
    neuron = LIF(tau=1.7, v_threshold=0.3, learn=("tau", "v_threshold"))
    assert set(dict(neuron.named_parameters())) == {"w_tau", "w_v_threshold"}
    assert neuron.tau.item() == pytest.approx(1.7, rel=1e-6)
    assert neuron.v_threshold.item() == pytest.approx(0.3, rel=1e-6)
    assert LIF(learn=("tau",)).tau.item() == 2.0
    assert torch.sigmoid(neuron.w_tau).item() == pytest.approx(1 / 1.7)  # the parameter of Fang et al. 2021
    assert (LIF(tau=3.0).tau, LIF().v_threshold) == (3.0, 0.5)


def test_no_parameter_makes_a_constant_that_means_nothing():
    neuron = LIF(learn=("tau", "v_threshold"))
    for w in (-30.0, 10.0):
        torch.nn.init.constant_(neuron.w_tau, w)
        torch.nn.init.constant_(neuron.w_v_threshold, w)
        assert neuron.tau >= 1
        assert neuron.v_threshold > 0


def test_gradients_of_one_step_on_paper():
    # h = x / tau = 0.4, u = -0.1, g' = 4 (0.5 - 0.1) = 1.6: ds/dtau = -g' x / tau^2 = -0.32, ds/dv_th = -g'
    tau, v_threshold = (torch.tensor(value, dtype=torch.float64).requires_grad_() for value in (2.0, 0.5))
    s = lif(torch.tensor([[0.8]], dtype=torch.float64), tau=tau, v_threshold=v_threshold).s_seq
    s.sum().backward()
    assert tau.grad.item() == pytest.approx(-0.32)
    assert v_threshold.grad.item() == pytest.approx(-1.6)


def test_gradient_of_two_steps_on_paper():
    # h0 = 0.4 (dh0/dtau = -0.2) stays; h1 = 0.4 + (1 - 0.4) / 2 = 0.7, u = 0.2, g' = 1.2;
    # dh1/dtau = -0.2 (1 - 1 / 2) - 0.6 / 4 = -0.25; d(s0 + s1)/dtau = 1.6 * -0.2 + 1.2 * -0.25
    tau = torch.tensor(2.0, dtype=torch.float64).requires_grad_()
    lif(torch.tensor([[0.8], [1.0]], dtype=torch.float64), tau=tau).s_seq.sum().backward()
    assert tau.grad.item() == pytest.approx(-0.62)


@pytest.mark.parametrize("reset", ["hard", "soft", "none"])
@pytest.mark.parametrize("decay_input", [True, False])
def test_gradients_of_the_smooth_relaxation_equal_finite_differences(monkeypatch, reset, decay_input):
    smooth = lambda h, config: config.surrogate.primitive(h - config.v_threshold)  # noqa: E731
    monkeypatch.setattr(dynamics, "fire", smooth)
    x = torch.randn(4, 2, 3, dtype=torch.float64)
    tau = torch.tensor([1.3, 2.0, 4.0], dtype=torch.float64).requires_grad_()
    v_threshold = torch.tensor(0.4, dtype=torch.float64).requires_grad_()

    def neuron(tau, v_threshold):
        options = {"reset": reset, "decay_input": decay_input, "detach_reset": False}
        return tuple(lif_gate(x, tau=tau, v_threshold=v_threshold, **options))

    assert torch.autograd.gradcheck(neuron, (tau, v_threshold))


def test_parameters_get_the_gradient_of_the_constants():
    neuron, x = LIF(learn=("tau", "v_threshold"), tau=1.5), torch.randn(5, 40)
    neuron(x).sum().backward()
    tau, v_threshold = neuron.tau.detach().requires_grad_(), neuron.v_threshold.detach().requires_grad_()
    lif(x, tau=tau, v_threshold=v_threshold).s_seq.sum().backward()
    torch.testing.assert_close(neuron.w_tau.grad, tau.grad * (1 - tau.detach()))  # dtau/dw = -exp(-w) = 1 - tau
    torch.testing.assert_close(neuron.w_v_threshold.grad, v_threshold.grad * v_threshold.detach())


def test_every_channel_has_its_own_constant():
    x = torch.randn(4, 2, 3, 5, 5)
    taus, thresholds = torch.tensor([1.5, 2.0, 4.0]), torch.tensor([0.2, 0.5, 0.9])
    y = LIFGate(tau=taus, v_threshold=thresholds)(x)
    for c in range(3):
        expected = lif_gate(x[:, :, c], tau=taus[c].item(), v_threshold=thresholds[c].item()).s_seq
        assert torch.equal(y[:, :, c], expected)
    learned = LIFGate(tau=taus, learn=("tau",))
    assert learned.w_tau.shape == (3,)
    learned(x).sum().backward()
    assert (learned.w_tau.grad != 0).all()
    assert LIF(learn=("tau",), channels=3).w_tau.tolist() == [0.0, 0.0, 0.0]


def test_fixed_channels_are_stored_with_the_network():
    neuron = LIF(tau=torch.tensor([1.5, 3.0]))
    assert not list(neuron.parameters())
    assert neuron.state_dict()["fixed_tau"].tolist() == [1.5, 3.0]
    other = LIF(tau=torch.tensor([2.0, 2.0]))
    other.load_state_dict(neuron.state_dict())
    x = torch.randn(4, 3, 2)
    assert torch.equal(other(x), neuron(x))
    assert "fixed_tau=(2,)" in repr(neuron)


def test_training_moves_the_constants():
    torch.manual_seed(1)
    neuron, x = LIF(learn=("tau", "v_threshold")), torch.rand(8, 200)
    target = lif(x, tau=1.3, v_threshold=0.3).s_seq.mean()
    optimizer = torch.optim.Adam(neuron.parameters(), lr=0.1)
    losses = []
    for _ in range(20):
        loss = (neuron(x).mean() - target).square()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] / 10


def test_integrate_and_fire_forgets_nothing():
    # v = 0.2, then 0.4, then h = 0.6 fires; 0.2 again
    x = torch.full((4, 1), 0.2)
    with_v = lif(x, tau=math.inf, decay_input=False)
    assert with_v.s_seq.flatten().tolist() == [0.0, 0.0, 1.0, 0.0]
    assert with_v.v.item() == pytest.approx(0.2)
    assert torch.equal(IF()(x), with_v.s_seq)
    assert torch.equal(IFGate()(x), x * with_v.s_seq)


def test_integrate_and_fire_equals_its_definition_on_every_backend(fused):
    x = torch.randn(5, 33).requires_grad_()
    found = []
    for backend in ("reference", fused):
        y = IFGate(backend=backend, reset="soft")(x)
        found.append((y, torch.autograd.grad(y.square().sum(), x)[0]))
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


def test_tensor_constants_keep_every_other_option():
    config = LIFConfig(reset="none", decay_input=False, detach_reset=False, fire_at_threshold=True)
    neuron = LIF(config, tau=torch.tensor([2.0, 3.0]), surrogate=QuadraticGate(1.5))
    built = neuron._config_for(torch.zeros(1, 1, 2))
    assert isinstance(built, TensorConfig)
    for name in set(LIFConfig.__dataclass_fields__) - {"tau"}:
        assert getattr(built, name) == getattr(neuron.config, name)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: LIF(learn=("tau",), tau=1.0), r"LIF.tau is 1.0; one that is learned must start finite and above 1"),
        (lambda: IF(learn=("tau",)), r"LIF.tau is inf; one that is learned"),
        (lambda: LIF(channels=3), "LIF.channels is 3 but nothing is learned"),
        (lambda: LIF(tau=torch.tensor([2.0, 0.5])), "lif.tau is 0.5"),
        (lambda: LIF(tau=torch.ones(2, 2)), r"LIF.tau has shape \(2, 2\); it is one number or one per channel"),
        (lambda: LIF(tau=math.inf), "lif.tau is inf.*decay_input=False"),
        (lambda: LIF(learn=("tau",), channels=3)(torch.zeros(4, 2, 5)), r"tau has 3 channels.*\(4, 2, 5\)"),
        (lambda: LIF(learn=("tau",), channels=3)(torch.zeros(4, 3)), "tau has 3 channels.*axis 2"),
        (lambda: lif(torch.zeros(4, 2, 5), tau=torch.ones(3)), r"tau has shape \(3,\); .* one step, \(2, 5\)"),
        (lambda: lif(torch.zeros(4, 5), tau=torch.ones(1, 1, 5)), r"tau has shape \(1, 1, 5\)"),
    ],
)
def test_constants_that_do_not_fit_are_refused_by_name(make, message):
    with pytest.raises(ValueError, match=message):
        make()
