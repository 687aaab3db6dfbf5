"""The reference's results for one call, and a comparison of a kernel with them, bit for bit."""

from typing import NamedTuple

import torch
from torch import Tensor

from tcvq_neurons import dynamics
from tcvq_neurons.backends.layout import dense_steps, match_site, match_steps


class Inputs(NamedTuple):
    """What one forward and backward take."""

    x: Tensor
    v0: Tensor | None
    grad_y: Tensor | None
    grad_v: Tensor | None

    def on(self, device):
        """Return the same on a device, each tensor lying in its storage as before: strides, gaps and offset."""
        return Inputs(*(None if each is None else moved(each, device) for each in self))


def moved(tensor, device):
    """Return a tensor with its whole storage on another device."""
    if tensor.device == device:
        return tensor
    storage = tensor.as_strided((tensor.untyped_storage().nbytes() // tensor.itemsize,), (1,), 0)
    return storage.to(device).as_strided(tensor.shape, tensor.stride(), tensor.storage_offset())


def currents(*shape, dtype=torch.float32):
    """Random currents, a third of them in eighths, so that the membrane often meets the threshold exactly."""
    x = torch.randn(shape) * 1.5
    return torch.where(torch.rand(shape) < 0.33, (x * 8).round() / 8, x).to(dtype)


def inputs(*shape, dtype=torch.float32, with_v0=True, with_grad_v=True):
    """Random inputs of a call; every tenth gradient is too small to be a normal number."""
    grad_y, site = torch.randn(shape), shape[1:]
    grad_y = torch.where(torch.rand(shape) < 0.1, grad_y * 1e-40, grad_y).to(dtype)
    return Inputs(
        currents(*shape, dtype=dtype),
        currents(*site) if with_v0 else None,
        grad_y,
        torch.randn(site) if with_grad_v else None,
    )


def expected(given, config, *, gate):
    """Return output, last membrane and gradients of the reference, on the CPU."""
    x, v0, grad_y, grad_v = given
    x = x.detach().clone().requires_grad_()
    v0 = None if v0 is None else v0.detach().clone().requires_grad_()
    y, v = dynamics.unroll(x, v0, config, gate=gate)
    pairs = [(out, grad) for out, grad in ((y, grad_y), (v, grad_v)) if grad is not None]
    torch.autograd.backward([out for out, _ in pairs], [grad for _, grad in pairs])
    return [y.detach(), v.detach(), x.grad] + ([] if v0 is None else [v0.grad])


def actual(kernel, given, config, *, gate):
    """Return the same of a kernel, called as the operators of `tcvq_neurons.ops` call it, on the CPU."""
    given = given.on(kernel.device)
    x = dense_steps(given.x)
    v0 = None if given.v0 is None else match_site(given.v0, x, torch.float32)
    grad_y = None if given.grad_y is None else match_steps(given.grad_y, x)
    grad_v = None if given.grad_v is None else match_site(given.grad_v, x, torch.float32)
    y, v = kernel.forward(x, v0, config, gate=gate, need_v=True)
    grad_x, grad_v0 = kernel.backward(x, v0, grad_y, grad_v, config, gate=gate)
    assert (grad_v0 is None) == (v0 is None)
    return [each.cpu() for each in (y, v, grad_x, grad_v0) if each is not None]


def assert_equal(kernel, given, config, *, gate, equal_nan=False):
    """Check a kernel against the reference, bit for bit except for the sign of zero and, if allowed, kinds of NaN."""
    results = zip(actual(kernel, given, config, gate=gate), expected(given, config, gate=gate), strict=True)
    for name, (a, e) in zip(("y", "v", "grad_x", "grad_v0"), results, strict=False):
        assert a.dtype == e.dtype
        assert a.shape == e.shape
        same = torch.equal(a, e)
        if equal_nan:
            same = torch.equal(a.isnan(), e.isnan()) and torch.equal(a.nan_to_num(7.0), e.nan_to_num(7.0))
        assert same, (
            f"{name} differs from the reference in {int((a != e).sum())} of {a.numel()} values: {config}, gate={gate}, "
            f"x {tuple(given.x.shape)} {given.x.dtype}, v0 {given.v0 is not None}, grad_v {given.grad_v is not None}"
        )
