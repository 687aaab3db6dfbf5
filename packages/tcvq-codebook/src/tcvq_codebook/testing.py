"""Conformance kit: what every implementation of `Quantizer` must satisfy, for this package and for others."""

import copy

import torch
from jaxtyping import Float
from torch import Tensor, nn

from tcvq_codebook.interface import Quantized, Quantizer


def check_quantizer(
    quantizer: Quantizer,
    z: Float[Tensor, "T B D H W"],
    *,
    n_indices: int | None = None,
    nearest_entry: bool = True,
    identity_gradient: bool = True,
) -> None:
    """Check shapes, dtypes, exactness of lookup and search, gradients, determinism and saving.

    A module is checked in evaluation mode, so that nothing learns, and left in the mode and with the gradients it
    came with.

    Args:
        quantizer: The implementation; its entries should differ from each other.
        z: Finite latents with at least one site, of shape ``(n_steps, B, embed_dim, H, W)``.
        n_indices: Length of the first axis of the indices where they have one more, as those of a residual or
            multi-head codebook. None is the one index per site of `Quantizer`.
        nearest_entry: Whether a site's entry is promised to be the nearest one to ``z`` itself, over all of it. Not so
            for a search of scaled, weighted or projected latents, or with several indices.
        identity_gradient: Whether z_q is promised to hand its gradient to z unchanged. If not, every site must get a
            finite gradient that is not 0.

    Raises:
        AssertionError: With the broken promise in words.
    """
    if isinstance(quantizer, nn.Module):
        quantizer = copy.deepcopy(quantizer).eval()
    z = z.detach()
    out = quantizer(z)
    _check_shapes(quantizer, z, out, n_indices)
    _check_lookup(quantizer, z, out)
    if nearest_entry and n_indices is None:
        _check_nearest(quantizer, z, out)
    _check_gradients(quantizer, z, identity_gradient)
    if isinstance(quantizer, nn.Module):
        _check_saving(quantizer, z, out)


def _require(condition: bool, promise: str) -> None:
    if not condition:
        raise AssertionError(promise)


def _check_shapes(quantizer: Quantizer, z: Tensor, out: Quantized, n_indices: int | None) -> None:
    _, b, _, h, w = z.shape
    grid = (b, h, w) if n_indices is None else (n_indices, b, h, w)
    _require(isinstance(out, Quantized), f"a quantizer returns Quantized, got {type(out).__name__}")
    _require(out.z_q.shape == z.shape, f"z_q has the latents' shape {tuple(z.shape)}, got {tuple(out.z_q.shape)}")
    _require(out.indices.shape == grid, f"indices have the shape {grid}, got {tuple(out.indices.shape)}")
    _require(out.indices.dtype == torch.int64, f"indices are int64, got {out.indices.dtype}")
    inside = bool(((out.indices >= 0) & (out.indices < quantizer.n_embed)).all())
    _require(inside, f"indices lie in 0 ... {quantizer.n_embed - 1}")
    for name in ("loss", "perplexity", "codebook_loss", "commitment_loss"):
        value = getattr(out, name)
        _require(value.shape == () and bool(value.isfinite()), f"{name} is a finite scalar, got {value}")
    _require(not out.perplexity.requires_grad, "perplexity carries no gradient")
    _require(not out.indices.requires_grad, "indices carry no gradient")
    rounded = 1e-4 * quantizer.n_embed
    _require(1 - rounded <= out.perplexity.item() <= quantizer.n_embed + rounded, "perplexity lies between 1 and K")


def _check_lookup(quantizer: Quantizer, z: Tensor, out: Quantized) -> None:
    entries = quantizer.lookup(out.indices)
    _require(entries.dtype == out.z_q.dtype, f"lookup and z_q have one dtype, got {entries.dtype}, {out.z_q.dtype}")
    _require(torch.equal(entries, out.z_q), "lookup(indices) equals z_q bit for bit")
    encoded = quantizer.encode(z)
    _require(torch.equal(encoded, out.indices), "encode(z) gives the indices of the forward pass")
    _require(encoded.dtype == torch.int64 and encoded.grad_fn is None, "encode gives int64 without gradient")
    again = quantizer(z)
    same = torch.equal(again.z_q, out.z_q) and torch.equal(again.loss, out.loss)
    _require(same, "the same latents give the same result twice")


def _check_nearest(quantizer: Quantizer, z: Tensor, out: Quantized) -> None:
    """Compare with a brute-force float64 search over the entries that lookup reveals."""
    every = torch.arange(quantizer.n_embed, device=z.device).view(1, 1, -1)
    entries = quantizer.lookup(every).detach().double().permute(4, 0, 2, 1, 3).flatten(1)  # (K, T D)
    sites = z.to(out.z_q.dtype).double().permute(1, 3, 4, 0, 2).flatten(3).flatten(0, 2)  # (N, T D)
    squared = torch.stack([(site - entries).square().sum(1) for site in sites])  # (N, K)
    chosen = squared.gather(1, out.indices.reshape(-1, 1)).squeeze(1)
    worst = (chosen - squared.min(1).values).max().item()
    slack = 1e-5 * (1 + squared.max().item())
    _require(worst <= slack, f"every site gets its nearest entry; one misses it by {worst:.3g} in squared distance")


def _check_gradients(quantizer: Quantizer, z: Tensor, identity: bool) -> None:
    leaf = z.clone().requires_grad_()
    weight = torch.linspace(-1, 1, z.numel(), device=z.device).view_as(z).to(z.dtype)
    out = quantizer(leaf)
    (grad,) = torch.autograd.grad((out.z_q * weight).sum(), leaf)
    if identity:
        _require(torch.equal(grad, weight), "the gradient of z_q with respect to z is the identity")
    reached = bool(grad.isfinite().all() and (grad != 0).any(2).any(0).all())
    _require(reached, "the gradient of z_q reaches every site of z and is finite")
    if isinstance(quantizer, nn.Module) and (parameters := [p for p in quantizer.parameters() if p.requires_grad]):
        grads = torch.autograd.grad(quantizer(leaf).loss, parameters, allow_unused=True)
        reached = any(g is not None and bool(g.count_nonzero()) for g in grads)
        _require(reached, "the gradient of the loss reaches the codebook")


def _check_saving(quantizer: Quantizer, z: Tensor, out: Quantized) -> None:
    assert isinstance(quantizer, nn.Module)
    other = copy.deepcopy(quantizer)
    with torch.no_grad():
        for tensor in other.state_dict().values():
            if tensor.is_floating_point():
                tensor.add_(1.0)
    other.load_state_dict(quantizer.state_dict())
    loaded = other(z)
    same = torch.equal(loaded.z_q, out.z_q) and torch.equal(loaded.indices, out.indices)
    _require(same, "a loaded state dict gives the same entries and indices")
