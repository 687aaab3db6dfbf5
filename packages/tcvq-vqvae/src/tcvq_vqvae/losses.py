"""The terms of the stage-1 objective, as pure functions."""

from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from tcvq_vqvae.parallel import average_


def pixel_loss(
    x_hat: Float[Tensor, "*shape"], x: Float[Tensor, "*shape"], kind: Literal["l1", "l2"] = "l1"
) -> Float[Tensor, ""]:
    """mean|x − x̂| (``l1``) or mean(x − x̂)² (``l2``), over all frames of event recordings."""
    return F.l1_loss(x_hat, x) if kind == "l1" else F.mse_loss(x_hat, x)


def hinge_discriminator_loss(real: Float[Tensor, "*p"], fake: Float[Tensor, "*p"]) -> Float[Tensor, ""]:
    """L_D = 1/2 (mean relu(1 - D(x)) + mean relu(1 + D(x̂))) (Lim & Ye 2017)."""
    return 0.5 * (F.relu(1.0 - real).mean() + F.relu(1.0 + fake).mean())


def vanilla_discriminator_loss(real: Float[Tensor, "*p"], fake: Float[Tensor, "*p"]) -> Float[Tensor, ""]:
    """L_D = 1/2 (mean ln(1 + exp(-D(x))) + mean ln(1 + exp(D(x̂)))) (Goodfellow et al. 2014, D before its sigmoid)."""
    return 0.5 * (F.softplus(-real).mean() + F.softplus(fake).mean())


def generator_loss(fake: Float[Tensor, "*p"]) -> Float[Tensor, ""]:
    """L_G = -mean D(x̂)."""
    return -fake.mean()


def adaptive_weight(
    reconstruction: Float[Tensor, ""], generator: Float[Tensor, ""], last_layer: Float[Tensor, "*w"], scale: float = 1.0
) -> Float[Tensor, ""]:
    """λ = clamp(‖∂L_rec/∂W‖ / (‖∂L_G/∂W‖ + 1e-4), 0, 1e4) with W the decoder's last weight (Esser et al. 2021, eq. 7).

    With several processes both gradients are averaged over them first, so that λ is that of the whole batch.

    Args:
        reconstruction: L_rec.
        generator: L_G.
        last_layer: W.
        scale: Factor on both losses while they are differentiated, so that half precision does not underflow.

    Returns:
        The weight that balances the two gradients, detached; NaN if one of them is not finite.
    """
    (rec,) = torch.autograd.grad(scale * reconstruction, last_layer, retain_graph=True)
    (gen,) = torch.autograd.grad(scale * generator, last_layer, retain_graph=True)
    average_([rec, gen])
    rec_norm, gen_norm = rec.norm() / scale, gen.norm() / scale
    weight = (rec_norm / (gen_norm + 1e-4)).clamp(0.0, 1e4)
    return torch.where(rec_norm.isfinite() & gen_norm.isfinite(), weight, torch.nan).detach()
