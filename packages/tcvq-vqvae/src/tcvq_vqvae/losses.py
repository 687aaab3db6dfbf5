"""The terms of the stage-1 objective, as pure functions."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor


def hinge_discriminator_loss(real: Float[Tensor, "*p"], fake: Float[Tensor, "*p"]) -> Float[Tensor, ""]:
    """L_D = 1/2 (mean relu(1 - D(x)) + mean relu(1 + D(x̂))) (Lim & Ye 2017)."""
    return 0.5 * (F.relu(1.0 - real).mean() + F.relu(1.0 + fake).mean())


def generator_loss(fake: Float[Tensor, "*p"]) -> Float[Tensor, ""]:
    """L_G = -mean D(x̂)."""
    return -fake.mean()


def adaptive_weight(
    reconstruction: Float[Tensor, ""], generator: Float[Tensor, ""], last_layer: Float[Tensor, "*w"]
) -> Float[Tensor, ""]:
    """λ = clamp(‖∂L_rec/∂W‖ / (‖∂L_G/∂W‖ + 1e-4), 0, 1e4) with W the decoder's last weight (Esser et al. 2021, eq. 7).

    Returns:
        The weight that balances the two gradients, detached; NaN if one of them is not finite.
    """
    (rec,) = torch.autograd.grad(reconstruction, last_layer, retain_graph=True)
    (gen,) = torch.autograd.grad(generator, last_layer, retain_graph=True)
    rec_norm, gen_norm = rec.norm(), gen.norm()
    weight = (rec_norm / (gen_norm + 1e-4)).clamp(0.0, 1e4)
    return torch.where(rec_norm.isfinite() & gen_norm.isfinite(), weight, torch.nan).detach()
