"""The training step as the released code takes it, for comparison: one SNN step after the other, plain autograd.

Same weights and layers as ours, but every layer is called once per step, neurons keep every intermediate result for the
backward (braincog's LIFNode), the search of the codebook broadcasts all distances, and torch's Adam runs as it comes.
"""

import copy
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tcvq_neurons import LIF, LIFGate, merge_time
from tcvq_vqvae import PatchDiscriminator, SpikingVQVAE, adaptive_weight, generator_loss, hinge_discriminator_loss


class Spike(torch.autograd.Function):
    """Heaviside step with the quadratic gate as derivative, alpha = 2."""

    @staticmethod
    def forward(ctx: Any, u: Tensor) -> Tensor:
        """Return 1 where u > 0."""
        ctx.save_for_backward(u)
        return (u > 0).to(u.dtype)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Tensor:
        """Return g max(0, 2 - 4 |u|)."""
        (u,) = ctx.saved_tensors
        return g * (2 - 4 * u.abs()).clamp_min(0)


class PlainNeuron(nn.Module):
    """A neuron that is called once per SNN step and keeps its membrane in between."""

    def __init__(self, gate: bool) -> None:
        super().__init__()
        self.gate = gate
        self.v: Tensor | float = 0.0

    def forward(self, x: Tensor) -> Tensor:
        """One step, ``(1, B, ...)``."""
        h = self.v + (x - self.v) / 2.0
        s = Spike.apply(h - 0.5)
        self.v = h * (1 - s.detach())
        return x * s if self.gate else s


def plain(model: SpikingVQVAE) -> SpikingVQVAE:
    """A copy with the same weights in contiguous memory, torch's convolutions, and neurons that run step by step."""
    model = copy.deepcopy(model)
    for module in list(model.modules()):
        for name, child in module.named_children():
            if isinstance(child, LIF):
                setattr(module, name, PlainNeuron(isinstance(child, LIFGate)))
    return of_torch(model)


def of_torch(network: nn.Module) -> nn.Module:
    """The network in contiguous memory, with torch's convolutions."""
    for module in network.modules():
        for kind in (nn.Conv2d, nn.ConvTranspose2d):
            if isinstance(module, kind):
                module.__class__ = kind
    return network.to(memory_format=torch.contiguous_format)


def forward(model: SpikingVQVAE, x: Tensor) -> tuple[Tensor, Tensor]:
    """Reconstruct, and return the codebook's loss."""
    for module in model.modules():
        if isinstance(module, PlainNeuron):
            module.v = 0.0
    z = torch.cat([merge_time(model.quant_conv, model.encoder(x[None])) for _ in range(model.config.n_steps)])
    rows, entries = z.permute(1, 3, 4, 0, 2).flatten(0, 2).flatten(1), model.codebook.codebook.flatten(1)
    indices = (rows[:, None] - entries).square().sum(-1).argmin(1)
    chosen = F.embedding(indices, entries).view(*z.permute(1, 3, 4, 0, 2).shape).permute(3, 0, 4, 1, 2)
    loss = F.mse_loss(chosen, z.detach()) + model.config.beta * F.mse_loss(z, chosen.detach())
    z_q = z + (chosen - z).detach()
    y = torch.cat([model.decoder(merge_time(model.post_quant_conv, step[None].contiguous())) for step in z_q])
    return y.mean(0), loss


class PlainStep:
    """One training step of autoencoder and discriminator.

    Args:
        model: The network whose weights to start from.
        discriminator: The discriminator to start from.
        lr: Learning rate of both.
    """

    def __init__(self, model: SpikingVQVAE, discriminator: PatchDiscriminator, lr: float) -> None:
        self.model = plain(model)
        self.discriminator = of_torch(copy.deepcopy(discriminator))
        both = (self.model, self.discriminator)
        self.adams = [torch.optim.Adam(m.parameters(), lr=lr, betas=(0.5, 0.9)) for m in both]

    def __call__(self, x: Tensor, *, bf16: bool) -> float:
        """Train on one batch and return the objective."""
        d, (adam, adam_d) = self.discriminator, self.adams
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            x_hat, loss = forward(self.model, x)
            l1 = F.l1_loss(x_hat, x)
            d.requires_grad_(False)
            generator = generator_loss(d(x_hat))
            weight = 0.8 * adaptive_weight(l1, generator, self.model.decoder.conv_out.weight)
            objective = l1 + loss + weight * generator
        adam.zero_grad()
        objective.backward()
        adam.step()
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            d.requires_grad_(True)
            judged = hinge_discriminator_loss(d(x), d(x_hat.detach()))
        adam_d.zero_grad()
        judged.backward()
        adam_d.step()
        return objective.item()
