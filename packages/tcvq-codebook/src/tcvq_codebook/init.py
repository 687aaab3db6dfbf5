"""Codes taken from latents: random sites, and Lloyd's k-means started from them; the same codes on every rank."""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from tcvq_codebook.distributed import (
    add_over_ranks,
    copy_from_first_rank,
    rows_of_all_ranks,
    total_over_ranks,
    world_size,
)
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
    this is a collective: the sites are those of all ranks, up to ``n`` of each.

    Raises:
        ValueError: If there is no site to draw from.
    """
    if n == 0:
        return sites[:0]
    offered = torch.randperm(len(sites), generator=generator)[:n]
    pool = rows_of_all_ranks(sites[offered.to(sites.device)])
    total = len(pool)
    if total == 0:
        raise ValueError(f"cannot draw {n} codes from 0 sites; pass a batch with at least one site")
    drawn = pool[torch.randperm(total, generator=generator)[:n].to(pool.device)]
    if total < n:
        repeated = pool[torch.randint(total, (n - total,), generator=generator).to(pool.device)]
        noise = torch.randn(repeated.shape, generator=generator).to(repeated)
        spread = pool.std(0, correction=0).mean().clamp(min=JITTER * pool.abs().mean())
        drawn = torch.cat([drawn, repeated + JITTER * spread * noise])
    return copy_from_first_rank(drawn)


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
    collective over the sites of all ranks.

    Args:
        sites: Latents, one row per site; fewer than ``n_codes`` are legal and give jittered repetitions.
        n_codes: Number of codes K.
        n_iters: Lloyd iterations.
        generator: CPU generator of the draws; the global one by default.
        search: Which code each site belongs to, given sites and codes.

    Raises:
        ValueError: If there is no site on any rank.
    """
    most = SITES_PER_CODE * n_codes // world_size()
    if len(sites) > most:
        sites = sites[torch.randperm(len(sites), generator=generator)[:most].to(sites.device)]
    codes = sample_sites(sites, n_codes, generator=generator)
    if total_over_ranks(len(sites), sites.device) <= n_codes:
        return codes
    for _ in range(n_iters):
        pick = search(sites, codes)
        sums, counts = (add_over_ranks(x) for x in code_sums(sites, pick, n_codes))
        empty = counts == 0
        farthest = _farthest(sites, (sites - codes[pick]).square().sum(1), int(empty.sum()))
        codes = sums / counts.clamp(min=1).unsqueeze(1)
        codes[empty] = farthest
    return copy_from_first_rank(codes)


def _farthest(sites: Tensor, error: Tensor, n: int) -> Tensor:
    """Return the ``n`` sites of all ranks with the largest error, the first of equals."""
    if n == 0:
        return sites[:0]
    offered = error.argsort(descending=True, stable=True)[:n]
    pool = rows_of_all_ranks(torch.cat([error[offered, None], sites[offered]], 1))
    return pool[pool[:, 0].argsort(descending=True, stable=True)[:n], 1:]
