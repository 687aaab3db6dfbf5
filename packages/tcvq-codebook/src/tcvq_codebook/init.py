"""Codes taken from latents: random sites, and Lloyd's k-means started from them; on any number of ranks the same."""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from tcvq_codebook.distributed import copy_from_first_rank, rows_of_all_ranks
from tcvq_codebook.ema import code_sums
from tcvq_codebook.nearest import nearest

JITTER = 1e-3  # standard deviation of the noise on repeated sites, relative to the spread of the sites
SITES_PER_CODE = 32  # more sites than this per code do not move the means enough to pay for the search


@torch.no_grad()
def sample_sites(
    sites: Float[Tensor, "N width"], n: int, *, generator: Generator | None = None
) -> Float[Tensor, "n width"]:
    """Draw ``n`` distinct sites, or, where there are fewer, all of them and jittered repetitions.

    Draws come from a CPU generator, the global one by default, so that they agree on every device. With a process group
    this is a collective: the sites are those of all ranks, one rank after the other, and the draw is what one process
    with all of them would draw with the first rank's generator.

    Raises:
        ValueError: If there is no site to draw from.
    """
    if n == 0:
        return sites[:0]
    return copy_from_first_rank(_drawn(rows_of_all_ranks(sites), n, generator))


def _drawn(sites: Tensor, n: int, generator: Generator | None) -> Tensor:
    """Draw from the sites that are here."""
    pool = sites[torch.randperm(len(sites), generator=generator)[:n].to(sites.device)]
    total = len(pool)
    if total == 0:
        raise ValueError(f"cannot draw {n} codes from 0 sites; pass a batch with at least one site")
    drawn = pool[torch.randperm(total, generator=generator)[:n].to(pool.device)]
    if total < n:
        repeated = pool[torch.randint(total, (n - total,), generator=generator).to(pool.device)]
        noise = torch.randn(repeated.shape, generator=generator).to(repeated)
        spread = pool.std(0, correction=0).mean().clamp(min=JITTER * pool.abs().mean())
        drawn = torch.cat([drawn, repeated + JITTER * spread * noise])
    return drawn


@torch.no_grad()
def kmeans(
    sites: Float[Tensor, "N width"],
    n_codes: int,
    *,
    n_iters: int = 10,
    generator: Generator | None = None,
    search: Callable[[Tensor, Tensor], Tensor] = nearest,
) -> Float[Tensor, "K width"]:
    """Cluster sites with Lloyd's algorithm, started from random distinct sites.

    e_k ← mean of the sites nearest to e_k. A code that loses all its sites takes over one of the sites that lie
    farthest from their code. At most 32 sites per code, drawn at random, take part. With a process group this is a
    collective: every rank clusters the sites of all, as one process with all of them would, and the first one's codes
    are taken.

    Args:
        sites: Latents, one row per site; fewer than ``n_codes`` are legal and give jittered repetitions.
        n_codes: Number of codes K.
        n_iters: Lloyd iterations.
        generator: CPU generator of the draws; the global one by default.
        search: Which code each site belongs to, given sites and codes.

    Raises:
        ValueError: If there is no site on any rank.
    """
    sites, most = rows_of_all_ranks(sites), SITES_PER_CODE * n_codes
    if len(sites) > most:
        sites = sites[torch.randperm(len(sites), generator=generator)[:most].to(sites.device)]
    codes = _drawn(sites, n_codes, generator)
    if len(sites) <= n_codes:
        return copy_from_first_rank(codes)
    for _ in range(n_iters):
        pick = search(sites, codes)
        sums, counts = code_sums(sites, pick, n_codes)
        empty = counts == 0
        farthest = _farthest(sites, (sites - codes[pick]).square().sum(1), int(empty.sum()))
        codes = sums / counts.clamp(min=1).unsqueeze(1)
        codes[empty] = farthest
    return copy_from_first_rank(codes)


def _farthest(sites: Tensor, error: Tensor, n: int) -> Tensor:
    """Return the ``n`` sites with the largest error, the first of equals."""
    return sites[error.argsort(descending=True, stable=True)[:n]]
