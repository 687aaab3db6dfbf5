"""The straight-through estimator: the forward value of the code, the backward of the identity."""

from jaxtyping import Float
from torch import Tensor


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
