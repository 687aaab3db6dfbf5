"""The two terms that pull codes to latents and latents to codes."""

from typing import NamedTuple

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor


class CodebookLoss(NamedTuple):
    """The weighted sum and its two unweighted terms, each a scalar."""

    total: Float[Tensor, ""]
    codebook: Float[Tensor, ""]
    commitment: Float[Tensor, ""]


def codebook_loss(
    z: Float[Tensor, "*shape"], e: Float[Tensor, "*shape"], *, beta: float, legacy_beta: bool
) -> CodebookLoss:
    """Return L = L_code + β·L_commit, or β·L_code + L_commit in the legacy placement.

    L_code = mean‖sg(z) − e‖², L_commit = mean‖z − sg(e)‖², over all elements; both are 0 for an empty batch.

    Args:
        z: Latents.
        e: The entries as looked up, not the straight-through output, which carries no gradient to the codebook.
        beta: Weight β of the term named by ``legacy_beta``.
        legacy_beta: Put β on the codebook term, as the released code of the paper (and of VQGAN) does.

    Source: van den Oord et al. 2017, eq. 3.
    """
    size = max(z.numel(), 1)
    codebook = F.mse_loss(e, z.detach(), reduction="sum") / size
    commitment = F.mse_loss(z, e.detach(), reduction="sum") / size
    total = beta * codebook + commitment if legacy_beta else codebook + beta * commitment
    return CodebookLoss(total, codebook, commitment)
