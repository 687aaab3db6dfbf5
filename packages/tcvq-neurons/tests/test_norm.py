"""Group norm and neuron in one pass equal the two one after the other, and fall back to them where they must."""

import copy

import pytest
import torch
from torch import nn

from tcvq_neurons import (
    IF,
    LAUNCHES,
    LIF,
    LIFGate,
    carry_state,
    fuses_norm,
    merge_time,
    monitor,
    norm_lif,
    set_default_backend,
)

pytestmark = pytest.mark.skipif(not fuses_norm("auto"), reason='needs numba; install "tcvq-neurons[cpu]"')


def launches():
    return LAUNCHES["numba.norm_forward"], LAUNCHES["numba.norm_backward"]


def example(neuron=None, channels=24, groups=8, dtype=torch.float64, shape=(3, 2, 5, 3)):
    t, b, h, w = shape
    norm = nn.GroupNorm(groups, channels, eps=1e-6).to(dtype)
    nn.init.uniform_(norm.weight, 0.5, 1.5)
    nn.init.normal_(norm.bias, std=0.2)
    return norm, neuron or LIFGate(), torch.randn(t, b, channels, h, w, dtype=dtype)


def results(fn, norm, neuron, x, g):
    """Output and gradients of input, weight and bias."""
    norm, x = copy.deepcopy(norm), x.clone(memory_format=torch.preserve_format).requires_grad_()
    y = fn(norm, neuron, x)
    y.backward(g)
    return y.detach(), x.grad, norm.weight.grad, norm.bias.grad


def one_after_the_other(norm, neuron, x):
    return neuron(merge_time(norm, x))


@pytest.mark.parametrize("neuron", [LIFGate(), LIF(), LIFGate(tau=3.0, v_threshold=0.3)], ids=str)
@pytest.mark.parametrize("sizes", [{}, {"channels": 7, "groups": 1}, {"channels": 2048, "groups": 32}], ids=str)
def test_one_pass_gives_the_values_and_gradients_of_two(neuron, sizes):
    norm, neuron, x = example(neuron, **sizes)
    g, before = torch.randn_like(x), launches()
    fused = results(norm_lif, norm, neuron, x, g)
    assert launches() == (before[0] + 1, before[1] + 1)
    for actual, expected in zip(fused, results(one_after_the_other, norm, neuron, x, g), strict=True):
        torch.testing.assert_close(actual, expected, rtol=1e-10, atol=1e-12)


def test_current_that_is_the_same_at_every_step_is_normalised_once():
    norm, neuron, x = example(shape=(1, 2, 5, 3))
    g = torch.randn(4, *x.shape[1:], dtype=x.dtype)
    fused = results(lambda n, s, x: norm_lif(n, s, x[0].expand(4, *x.shape[1:])), norm, neuron, x, g)
    plain = results(lambda n, s, x: neuron(merge_time(n, x.repeat(4, 1, 1, 1, 1))), norm, neuron, x, g)
    for actual, expected in zip(fused, plain, strict=True):
        torch.testing.assert_close(actual, expected, rtol=1e-10, atol=1e-12)


def test_numbers_of_a_sample_depend_neither_on_its_batch_nor_on_the_threads(monkeypatch):
    from importlib import import_module

    monkeypatch.setattr(import_module("tcvq_neurons.backends.norm_numba"), "PARALLEL_FROM", 0)
    norm, neuron, x = example(dtype=torch.float32, shape=(3, 5, 5, 3))
    threads, whole = torch.get_num_threads(), norm_lif(norm, neuron, x)
    try:
        torch.set_num_threads(3)
        assert torch.equal(norm_lif(norm, neuron, x), whole)
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(norm_lif(norm, neuron, x[:, 1:2]), whole[:, 1:2])


def test_memory_order_of_the_input_changes_nothing_and_the_output_has_channels_last():
    norm, neuron, x = example(dtype=torch.float32)
    y = norm_lif(norm, neuron, x)
    assert torch.equal(norm_lif(norm, neuron, x.movedim(2, -1).contiguous().movedim(-1, 2)), y)
    assert y[0].is_contiguous(memory_format=torch.channels_last)


def test_halves_are_computed_in_float32_and_rounded_once():
    norm, neuron, x = example(dtype=torch.float32)
    half = x.bfloat16()
    expected = norm_lif(norm, neuron, half.float()).bfloat16()
    assert torch.equal(norm_lif(norm, neuron, half), expected)
    half.requires_grad_()
    norm_lif(norm, neuron, half).sum().backward()
    assert half.grad.dtype == torch.bfloat16
    assert norm.weight.grad.dtype == torch.float32


def test_a_large_common_offset_does_not_spoil_the_variance():
    norm, neuron, x = example(dtype=torch.float32)
    exact = norm_lif(norm.double(), neuron, 1000 + 0.1 * x.double())
    near = norm_lif(norm.float(), neuron, 1000 + 0.1 * x)
    assert ((near - exact).abs() < 0.01).double().mean() > 0.99


@pytest.mark.parametrize("neuron", [LIF(reset="soft"), LIF(learn=("tau",)), IF(), LIF(backend="torch")], ids=str)
def test_other_neurons_run_after_the_norm(neuron):
    norm, neuron, x = example(neuron, dtype=torch.float32)
    before = launches()
    assert torch.equal(norm_lif(norm, neuron, x), one_after_the_other(norm, neuron, x))
    assert launches() == before


def test_watched_and_carrying_neurons_run_as_modules_of_their_own():
    norm, neuron, x = example()
    before = launches()
    with monitor(nn.Sequential(neuron)) as record:
        norm_lif(norm, neuron, x)
    assert len(record.neurons()) == 1
    with carry_state(neuron) as state:
        norm_lif(norm, neuron, x)
        assert next(iter(state.membranes.values())) is not None
    previous = set_default_backend("reference")
    try:
        norm_lif(norm, neuron, x)
    finally:
        set_default_backend(previous)
    assert launches() == before


def test_second_derivative_is_refused():
    norm, neuron, x = example()
    x.requires_grad_()
    (grad,) = torch.autograd.grad(norm_lif(norm, neuron, x).square().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="cannot differentiate twice"):
        grad.sum().backward()


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor:UserWarning")  # torch's own check reads it
def test_operator_is_described_to_the_compiler_as_it_is():
    norm, _, x = example(dtype=torch.float32)
    affine = (norm.weight.detach().requires_grad_(), norm.bias.detach().requires_grad_())
    torch.library.opcheck(
        torch.ops.tcvq.norm_lif.default, (x.requires_grad_(), *affine, 3, 8, 1e-6, 2.0, 0.5, 2.0, True)
    )
