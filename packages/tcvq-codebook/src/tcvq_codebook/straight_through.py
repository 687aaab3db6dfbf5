"""Estimators: the forward value of the entry, and a backward for the latent."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from tcvq_codebook.config import Estimator

_TINY = 1e-12  # below this length a vector has no direction
_ANTIPODAL = 1e-3  # ‖ẑ + ê‖ below which the plane of the rotation drowns in rounding


def straight_through(z: Float[Tensor, "*shape"], e: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Return z_q = sg(e) + (z − sg(z)): bit-equal to e, with ∂z_q/∂z = 1 and ∂z_q/∂e = 0.

    The usual z + sg(e − z) has the same gradient but rounds, and a spiking decoder amplifies one rounded bit into
    flipped spikes; with this form decoding stored indices reproduces the training reconstruction exactly.

    Args:
        z: Finite latents.
        e: The chosen entries.

    Source: van den Oord et al. 2017, section 3.2, for the estimator.
    """
    return e.detach() + (z - z.detach())


def rotate(z: Float[Tensor, "N width"], e: Float[Tensor, "N width"]) -> Float[Tensor, "N width"]:
    """Return (‖e‖/‖z‖) R z with the rotation R that turns ẑ into ê, both held constant: e, up to rounding.

    R z = z − 2r(rᵀz) + 2ê(ẑᵀz) with ẑ = z/‖z‖, ê = e/‖e‖ and r = (ẑ + ê)/‖ẑ + ê‖. The gradient keeps its angle to the
    vector as that moves from e to z. Rows without a rotation (z = 0, e = 0 or ẑ = −ê) are returned as they are.

    Args:
        z: Latents, one row per site.
        e: The chosen entries; they get no gradient.

    Source: Fifty et al. 2024, arXiv 2410.06424.
    """
    with torch.no_grad():
        size_z, size_e = z.norm(dim=1, keepdim=True), e.norm(dim=1, keepdim=True)
        unit_z, unit_e = F.normalize(z, dim=1, eps=_TINY), F.normalize(e, dim=1, eps=_TINY)
        both = unit_z + unit_e
        r = F.normalize(both, dim=1, eps=_TINY)
        turns = (size_z > _TINY) & (size_e > _TINY) & (both.norm(dim=1, keepdim=True) > _ANTIPODAL)
        scale = size_e / size_z.clamp(min=_TINY)
    along_r = (r * z).sum(1, keepdim=True)
    along_z = (unit_z * z).sum(1, keepdim=True)
    return torch.where(turns, scale * (z - 2 * r * along_r + 2 * unit_e * along_z), z)


def estimate(
    z: Float[Tensor, "N width"], e: Float[Tensor, "N width"], estimator: Estimator
) -> Float[Tensor, "N width"]:
    """Return the entries bit for bit, with the gradient that ``estimator`` sends to the latents."""
    return straight_through(rotate(z, e) if estimator == "rotation" else z, e)
