"""The two terms that pull codes to latents and latents to codes."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor


class CodebookLoss(NamedTuple):
    """The weighted sum and its two unweighted terms, each a scalar."""

    total: Float[Tensor, ""]
    codebook: Float[Tensor, ""]
    commitment: Float[Tensor, ""]


def codebook_loss(
    z: Float[Tensor, "*shape"],
    e: Float[Tensor, "*shape"],
    *,
    beta: float,
    legacy_beta: bool,
    learns: bool = True,
    mask: Bool[Tensor, "..."] | None = None,
) -> CodebookLoss:
    """Return L = L_code + β·L_commit, or β·L_code + L_commit in the legacy placement.

    L_code = mean‖sg(z) − e‖², L_commit = mean‖z − sg(e)‖², over all elements; both are 0 for an empty batch.

    Args:
        z: Latents.
        e: The entries as looked up, not the straight-through output, which carries no gradient to the codebook.
        beta: Weight β of the term named by ``legacy_beta``.
        legacy_beta: Put β on the codebook term, as the released code of the paper (and of VQGAN) does.
        learns: Whether L_code belongs to L; entries that are moving averages do not need it.
        mask: Which elements count, of a shape that expands to that of ``z``; None is all.

    Source: van den Oord et al. 2017, eq. 3.
    """
    z, e = (x.to(torch.promote_types(x.dtype, torch.float32)) for x in (z, e))  # a float16 sum ends at 65,504
    size: int | Tensor = max(z.numel(), 1)
    if mask is not None:
        size = mask.expand_as(z).sum().clamp(min=1)
        z, e = z.where(mask, 0), e.where(mask, 0)
    codebook = F.mse_loss(e, z.detach(), reduction="sum") / size
    commitment = F.mse_loss(z, e.detach(), reduction="sum") / size
    weight_code, weight_commit = (beta, 1.0) if legacy_beta else (1.0, beta)
    total = weight_commit * commitment
    if learns:
        total = weight_code * codebook + total
    return CodebookLoss(total, codebook, commitment)
