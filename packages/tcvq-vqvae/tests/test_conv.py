"""Convolutions as matrix products or in a wider type equal torch's, and are taken only where they are meant."""

import pytest
import torch
import torch.nn.functional as F

from tcvq_vqvae import conv
from tcvq_vqvae.conv import Conv2d, ConvTranspose2d


@pytest.fixture
def products(monkeypatch):
    """Makes every kernel large enough, and counts the products."""
    calls, apply = [], conv._Product.apply
    monkeypatch.setattr(conv, "WEIGHTS", 1)
    monkeypatch.setattr(conv._Product, "apply", lambda *args: (calls.append(args[0].dtype), apply(*args))[1])
    return calls


def random_case(kernel, height, width):
    layer = Conv2d(5, 7, kernel, padding=kernel // 2).double()
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
    assert Conv2d(5, 7, 3, padding=1)(torch.empty(0, 5, 2, 2)).shape == (0, 7, 2, 2)
    assert not products


def test_while_compiling_the_layer_is_torch_s_convolution(products, monkeypatch):
    layer, x, _ = random_case(3, 2, 2)
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    layer(x)
    assert not products


@pytest.mark.parametrize(("kernel", "stride", "padding"), [(3, 2, 1), (2, 1, 0), (2, 1, 1), (1, 1, 0)])
def test_only_maps_that_keep_their_size_are_products(products, kernel, stride, padding):
    Conv2d(5, 7, kernel, stride=stride, padding=padding)(torch.randn(1, 5, 2, 2))
    assert len(products) == (kernel == 1)


LAYERS = {
    "3x3": lambda: Conv2d(5, 7, 3, padding=1),
    "strided, without bias": lambda: Conv2d(5, 7, 4, stride=2, padding=1, bias=False),
    "transposed": lambda: ConvTranspose2d(5, 7, 4, stride=2, padding=1),
    "product": lambda: Conv2d(5, 7, 3, padding=1),
}


@pytest.mark.parametrize("emulated", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", LAYERS)
def test_bfloat16_on_a_cpu_without_it_is_computed_in_float32_and_rounded_once(monkeypatch, name, dtype, emulated):
    monkeypatch.setattr(conv, "emulates_bf16", lambda: emulated)
    monkeypatch.setattr(conv, "WEIGHTS", 1 if name == "product" else 2**16)
    layer, side = LAYERS[name](), 2 if name == "product" else 6
    x = torch.randn(3, 5, side, side).bfloat16().to(dtype).requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        y = layer(x)
    g = torch.randn_like(y)
    with torch.autocast("cpu", torch.bfloat16):  # as in manual optimisation
        grads = torch.autograd.grad(y, (x, *layer.parameters()), g)
    exact_x = x.detach().float().requires_grad_()
    exact = layer(exact_x)
    expected = torch.autograd.grad(exact, (exact_x, *layer.parameters()), g.float())
    assert y.dtype == torch.bfloat16
    assert [grad.dtype for grad in grads] == [dtype, *(torch.float32 for _ in layer.parameters())]
    assert torch.equal(y, exact.bfloat16()) or not emulated
    for found, right in zip((y, *grads), (exact, *expected), strict=True):
        torch.testing.assert_close(found.float(), right, rtol=0.02, atol=0.1)
    if emulated:  # the weights were not rounded, nor their gradients
        for found, right in zip(grads[1:], expected[1:], strict=True):
            torch.testing.assert_close(found, right, rtol=1e-5, atol=1e-5)


def test_float32_and_autocast_to_another_type_are_left_alone(monkeypatch):
    monkeypatch.setattr(conv, "emulates_bf16", lambda: True)
    monkeypatch.setattr(conv._Widened, "apply", None)
    layer, x = Conv2d(5, 7, 3, padding=1), torch.randn(1, 5, 6, 6)
    layer(x)
    with torch.autocast("cpu", torch.float16):
        layer(x)


def test_gradient_of_a_frozen_layer_is_that_of_its_input_only(monkeypatch):
    monkeypatch.setattr(conv, "emulates_bf16", lambda: True)
    layer, x = Conv2d(5, 7, 3, padding=1).requires_grad_(False), torch.randn(1, 5, 6, 6, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16):
        layer(x).float().sum().backward()
    assert x.grad is not None
    assert layer.weight.grad is None


@pytest.mark.parametrize("options", [{"groups": 5}, {"dilation": 2}, {"padding_mode": "circular"}, {"padding": "same"}])
@pytest.mark.parametrize("side", [2, 6])
def test_options_that_only_torch_knows_are_left_to_it(products, monkeypatch, options, side):
    monkeypatch.setattr(conv, "emulates_bf16", lambda: True)
    monkeypatch.setattr(conv._Widened, "apply", None)
    layer, x = Conv2d(5, 5, 3, **{"padding": 1, **options}), torch.randn(2, 5, side, side)
    if side == 6 or "dilation" not in options:
        with torch.autocast("cpu", torch.bfloat16):
            layer(x)
    assert not products


@pytest.mark.parametrize("probe", [True, False])
def test_a_cpu_emulates_what_no_probe_finds(monkeypatch, probe):
    monkeypatch.setattr(conv.platform, "machine", lambda: "x86_64")
    for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"):
        monkeypatch.setattr(torch.cpu, name, lambda: probe)
    assert conv.emulates_bf16.__wrapped__() is not probe
