"""Convolutions as matrix products equal torch's, in values and gradients, and are taken only where they are meant."""

import pytest
import torch
import torch.nn.functional as F

from tcvq_vqvae import conv
from tcvq_vqvae.conv import Conv2d


@pytest.fixture
def products(monkeypatch):
    """Makes every kernel large enough, and counts the products."""
    calls, apply = [], conv._Product.apply
    monkeypatch.setattr(conv, "WEIGHTS", 1)
    monkeypatch.setattr(conv._Product, "apply", lambda *args: (calls.append(args[0].dtype), apply(*args))[1])
    return calls


def random_case(kernel, height, width):
    layer = Conv2d(5, 7, kernel).double()
    x = torch.randn(3, 5, height, width, dtype=torch.float64, requires_grad=True)
    return layer, x, torch.randn(3, 7, height, width, dtype=torch.float64)


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize(("kernel", "height", "width"), [(3, 2, 2), (3, 1, 1), (3, 1, 4), (3, 2, 1), (1, 2, 2)])
def test_product_equals_torch_s_convolution(products, kernel, height, width, memory_format):
    layer, x, g = random_case(kernel, height, width)
    layer = layer.to(memory_format=memory_format)
    inputs = (x.detach().to(memory_format=memory_format).requires_grad_(), layer.weight, layer.bias)
    ours, theirs = layer(inputs[0]), F.conv2d(*inputs, padding=kernel // 2)
    assert len(products) == 1
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)
    for a, b in zip(torch.autograd.grad(ours, inputs, g), torch.autograd.grad(theirs, inputs, g), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


def test_product_has_second_derivatives(products):
    layer, x, _ = random_case(3, 2, 2)

    def function(x, weight, bias):
        layer_of = {"weight": weight, "bias": bias}
        return torch.func.functional_call(layer, layer_of, x) ** 2

    inputs = (x, layer.weight, layer.bias)
    assert torch.autograd.gradgradcheck(function, inputs)
    assert products


def test_product_follows_autocast_and_takes_gradients_in_the_type_of_the_weights(products):
    layer, x, g = random_case(3, 2, 2)
    layer, x = layer.float(), x.detach().float().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        y = layer(x)
    y.backward(g.bfloat16())
    assert products == [y.dtype] == [torch.bfloat16]
    assert layer.weight.grad.dtype == x.grad.dtype == torch.float32
    torch.testing.assert_close(y.float(), F.conv2d(x, layer.weight, layer.bias, padding=1), rtol=0.05, atol=0.05)


def test_sum_may_be_written_into_the_result(products):
    layer, x, g = random_case(3, 2, 2)
    inputs = (x, layer.weight)
    ours = torch.autograd.grad(layer(x * 2).add_(g * x.sum()), inputs, g)
    theirs = torch.autograd.grad(F.conv2d(x * 2, layer.weight, layer.bias, padding=1) + g * x.sum(), inputs, g)
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("channels", "side", "expected"), [(256, 2, 1), (256, 3, 0), (255, 2, 0)])
def test_only_small_maps_under_many_weights_are_products(products, monkeypatch, channels, side, expected):
    monkeypatch.undo()
    calls, apply = [], conv._Product.apply
    monkeypatch.setattr(conv._Product, "apply", lambda *args: (calls.append(1), apply(*args))[1])
    Conv2d(channels, 256, 1)(torch.randn(1, channels, side, side))
    assert len(calls) == expected


def test_no_images_give_no_maps(products):
    assert Conv2d(5, 7, 3)(torch.empty(0, 5, 2, 2)).shape == (0, 7, 2, 2)
    assert not products


def test_while_compiling_the_layer_is_torch_s_convolution(products, monkeypatch):
    layer, x, _ = random_case(3, 2, 2)
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    layer(x)
    assert not products
