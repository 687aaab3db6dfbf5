"""Entries as moving averages of the sites that chose them."""

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor

from tcvq_codebook.usage import code_counts


@torch.no_grad()
def code_sums(
    sites: Float[Tensor, "N width"], pick: Int64[Tensor, "N"], n_codes: int
) -> tuple[Float[Tensor, "K width"], Int64[Tensor, "K"]]:
    """Return the sum of each code's sites, in the order of the sites on every device, and the number of them."""
    counts = code_counts(pick, n_codes)
    first = counts.cumsum(0) - counts
    return F.embedding_bag(pick.argsort(stable=True), sites, first, mode="sum"), counts


@torch.no_grad()
def ema_update(
    codes: Float[Tensor, "K width"],
    ema_counts: Float[Tensor, "K"],
    ema_sums: Float[Tensor, "K width"],
    counts: Int64[Tensor, "K"],
    sums: Float[Tensor, "K width"],
    *,
    decay: float,
    eps: float,
) -> None:
    """Move the averages by one step, in place, and the codes to M_k / Ñ_k.

    For every k, chosen or not: N_k ← γN_k + (1−γ)n_k and M_k ← γM_k + (1−γ)s_k; then, with total = ΣN,
    Ñ_k = (N_k + ε) / (total + Kε) · total and e_k ← M_k / Ñ_k.

    Args:
        codes: The entries e_k.
        ema_counts: N_k.
        ema_sums: M_k.
        counts: n_k, how often each entry was chosen, over all ranks.
        sums: s_k, the sum of the sites that chose it, over all ranks.
        decay: γ.
        eps: ε.

    Source: van den Oord et al. 2017, appendix A.1; the smoothing is that of its published implementation.
    """
    ema_counts.lerp_(counts.to(ema_counts), 1 - decay)
    ema_sums.lerp_(sums.to(ema_sums), 1 - decay)
    total = ema_counts.sum()
    smoothed = (ema_counts + eps) / (total + len(codes) * eps) * total
    codes.copy_(ema_sums / smoothed.unsqueeze(1))
