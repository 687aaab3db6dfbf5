"""Codes taken from latents: random sites, and Lloyd's k-means started from them."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Generator, Tensor

from tcvq_codebook.nearest import nearest
from tcvq_codebook.usage import code_counts

JITTER = 1e-3  # standard deviation of the noise on repeated sites, relative to the spread of the sites
SITES_PER_CODE = 32  # more sites than this per code do not move the means enough to pay for the search


@torch.no_grad()
def sample_sites(
    sites: Float[Tensor, "N width"], n: int, *, generator: Generator | None = None
) -> Float[Tensor, "n width"]:
    """Draw ``n`` distinct sites, or, where there are fewer, all of them and jittered repetitions.

    Draws come from a CPU generator, the global one by default, so that they agree on every device.

    Raises:
        ValueError: If there is no site to draw from.
    """
    total = len(sites)
    if total == 0:
        raise ValueError(f"cannot draw {n} codes from 0 sites; pass a batch with at least one site")
    order = torch.randperm(total, generator=generator)[:n]
    drawn = sites[order.to(sites.device)]
    if total >= n:
        return drawn
    repeated = sites[torch.randint(total, (n - total,), generator=generator).to(sites.device)]
    noise = torch.randn(repeated.shape, generator=generator).to(repeated)
    spread = sites.std(0, correction=0).mean().clamp(min=JITTER * sites.abs().mean())
    return torch.cat([drawn, repeated + JITTER * spread * noise])


def _means(sites: Float[Tensor, "N width"], pick: Tensor, n_codes: int) -> tuple[Tensor, Tensor]:
    """Return the mean of each code's sites, summed in a fixed order, and the number of them."""
    counts = code_counts(pick, n_codes)
    offsets = counts.cumsum(0) - counts
    return F.embedding_bag(pick.argsort(stable=True), sites, offsets, mode="mean"), counts


@torch.no_grad()
def kmeans(
    sites: Float[Tensor, "N width"], n_codes: int, *, n_iters: int = 10, generator: Generator | None = None
) -> Float[Tensor, "K width"]:
    """Cluster sites with Lloyd's algorithm, started from random distinct sites.

    e_k ← mean of the sites nearest to e_k. A code that loses all its sites takes over one of the sites that lie
    farthest from their code. At most 32 sites per code, drawn at random, take part.

    Args:
        sites: Latents, one row per site; fewer than ``n_codes`` are legal and give jittered repetitions.
        n_codes: Number of codes K.
        n_iters: Lloyd iterations.
        generator: CPU generator of the draws; the global one by default.
    """
    if len(sites) > SITES_PER_CODE * n_codes:
        sites = sample_sites(sites, SITES_PER_CODE * n_codes, generator=generator)
    codes = sample_sites(sites, n_codes, generator=generator)
    if len(sites) <= n_codes:
        return codes
    for _ in range(n_iters):
        pick = nearest(sites, codes)
        means, counts = _means(sites, pick, n_codes)
        empty = counts == 0
        error = (sites - codes[pick]).square().sum(1)
        farthest = error.argsort(descending=True, stable=True)[: int(empty.sum())]
        codes = means
        codes[empty] = sites[farthest]
    return codes
