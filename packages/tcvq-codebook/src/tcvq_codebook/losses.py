"""The two terms that pull codes to latents and latents to codes, and two regularisers against unused codes."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor
from torch.utils.checkpoint import checkpoint


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


def orthogonality_loss(codebook: Float[Tensor, "K T D"]) -> Float[Tensor, ""]:
    """Return Σ_{j≠k} (ê_j·ê_k)² / K² with ê the entries at unit length: 0 if all are at right angles to each other.

    Source: Shin et al. 2021, arXiv 2112.00384.
    """
    unit = F.normalize(codebook.flatten(1), dim=1)
    cosine = unit @ unit.t()
    return (cosine.square().sum() - cosine.diagonal().square().sum()) / len(unit) ** 2


def entropy_loss(
    z: Float[Tensor, "T B D H W"],
    codebook: Float[Tensor, "K T D"],
    *,
    temperature: float = 1.0,
    max_bytes: int = 64 * 2**20,
) -> Float[Tensor, ""]:
    """Return mean_n H(p_n) − H(mean_n p_n) with p_nk ∝ exp(−‖z_n − e_k‖² / (T·D·temperature)).

    Low when every site is sure of its code and all codes are in equal use; between −ln K and ln K. The backward pass
    computes the probabilities again, so that they are never held for more than a chunk of sites.

    Args:
        z: Latents; 0 is returned for none.
        codebook: The entries.
        temperature: How soft the assignment is.
        max_bytes: Bound on the probabilities of one chunk, in bytes.

    Source: Yu et al. 2023, arXiv 2310.05737, there for lookup-free codes.
    """
    sites = z.movedim((1, 3, 4), (0, 1, 2)).flatten(3).flatten(0, 2)
    codes = codebook.flatten(1)
    rows = max(1, max_bytes // (4 * sites.element_size() * len(codes)))
    entropy, p_sum = sites.new_zeros(()), sites.new_zeros(len(codes))
    for part in sites.split(rows):
        of_part = checkpoint(_assign, part, codes, temperature, use_reentrant=False)
        entropy, p_sum = entropy + of_part[0], p_sum + of_part[1]
    n = max(len(sites), 1)
    return entropy / n - torch.special.entr(p_sum / n).sum()


def _assign(sites: Tensor, codes: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """Return Σ_n H(p_n) and Σ_n p_n."""
    score = torch.addmm(-0.5 * codes.square().sum(1), sites, codes.t())  # −½‖z − e‖² but for ‖z‖²
    log_p = F.log_softmax(2 * score / (codes.shape[1] * temperature), dim=1)
    return -(log_p.exp() * log_p).sum(), log_p.exp().sum(0)
