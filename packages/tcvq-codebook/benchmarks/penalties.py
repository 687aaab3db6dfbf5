"""Two penalties on unused codes from the literature, measured by `variants.py`.

Neither helped once codes start from data or are revived, so the package does not have them.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor
from torch.utils.checkpoint import checkpoint


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
