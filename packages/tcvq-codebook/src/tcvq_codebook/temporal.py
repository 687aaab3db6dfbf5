"""The temporal codebook: every entry is a trajectory over all time steps, and one index per site names it."""

from typing import Literal, get_args

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Bool, Float, Int, Int64
from torch import Tensor, nn

from tcvq_codebook.init import kmeans, sample_sites
from tcvq_codebook.interface import Quantized
from tcvq_codebook.losses import codebook_loss
from tcvq_codebook.nearest import nearest
from tcvq_codebook.straight_through import straight_through
from tcvq_codebook.usage import code_counts, dead_codes, perplexity

Init = Literal["kmeans", "data", "uniform"]


class TemporalCodebook(nn.Module):
    """K trajectories E_k ∈ R^(T×D), learned by gradient.

    k_p = argmin_k ‖z_p − E_k‖² over the whole trajectory of site p, z_q[t, p] = E[k_p, t].

    Latents are cast to the codebook's dtype on entry, so everything returned has that dtype (float32 as a rule) even
    under autocast; the gradient flows back to the latents in theirs. Latents with NaN or inf are an error in
    training and in evaluation alike: the search would send them all to code 0, and training on would only hide where
    the number came from.

    Args:
        n_embed: Number of entries K.
        embed_dim: Width D of one step of an entry.
        n_steps: Number of steps T.
        beta: Weight of the commitment term (van den Oord et al. 2017, eq. 3).
        legacy_beta: Put ``beta`` on the codebook term instead, as the paper's released code does.
        init: Where the first codes come from. ``uniform`` is U(−1/K, 1/K) at construction, as in the paper. ``data``
            (random sites) and ``kmeans`` (their clusters) collect sites over the first training batches until there
            are K, or take those given to `initialize`; until then the uniform codes stand in.

    Attributes:
        codebook: The entries, parameter ``(K, T, D)``.
        initted: Whether the entries are final in the sense of ``init``; saved, so a loaded codebook is never redrawn.
        counts: How often each entry was chosen in training since the last `revive`, ``(K,)``; saved.

    Raises:
        ValueError: If a size is below one, ``beta`` is negative or ``init`` is unknown.
    """

    codebook: Float[Tensor, "K T D"]
    initted: Bool[Tensor, ""]
    counts: Int64[Tensor, "K"]

    def __init__(
        self,
        n_embed: int,
        embed_dim: int,
        n_steps: int,
        *,
        beta: float = 0.25,
        legacy_beta: bool = False,
        init: Init = "kmeans",
    ) -> None:
        super().__init__()
        if min(n_embed, embed_dim, n_steps) < 1:
            raise ValueError(f"codebook sizes must be at least 1, got {n_embed=}, {embed_dim=}, {n_steps=}")
        if beta < 0:
            raise ValueError(f"beta must be 0 or more, got {beta}")
        if init not in get_args(Init):
            raise ValueError(f"init must be one of {', '.join(get_args(Init))}, got {init!r}")
        self.n_embed, self.embed_dim, self.n_steps = n_embed, embed_dim, n_steps
        self.beta, self.legacy_beta, self.init = beta, legacy_beta, init
        self.codebook = nn.Parameter(torch.empty(n_embed, n_steps, embed_dim).uniform_(-1 / n_embed, 1 / n_embed))
        self.register_buffer("initted", torch.tensor(init == "uniform"))
        self.register_buffer("counts", torch.zeros(n_embed, dtype=torch.int64))
        self._waiting: list[Tensor] = []

    def forward(self, z: Float[Tensor, "T B D H W"]) -> Quantized:
        """Quantize latents and compute the losses; in training also initialise the codes and count their use.

        Raises:
            ValueError: If T or D is not the codebook's, or a latent is not finite.
        """
        z = z.to(self.codebook.dtype)
        sites = self._sites(z)
        if self.training and not self.initted:
            self._collect(sites)
        indices = self._search(sites, z)
        e = self._entries(indices)
        counts = code_counts(indices, self.n_embed)
        if self.training and self.initted:
            self.counts += counts
        loss = codebook_loss(z, e, beta=self.beta, legacy_beta=self.legacy_beta)
        return Quantized(
            z_q=straight_through(z, e),
            indices=indices,
            loss=loss.total,
            perplexity=perplexity(counts),
            codebook_loss=loss.codebook,
            commitment_loss=loss.commitment,
        )

    def encode(self, z: Float[Tensor, "T B D H W"]) -> Int64[Tensor, "B H W"]:
        """Return the index of the nearest entry of every site, without gradient.

        Raises:
            ValueError: If T or D is not the codebook's, or a latent is not finite.
        """
        z = z.to(self.codebook.dtype)
        return self._search(self._sites(z), z)

    def lookup(self, indices: Int[Tensor, "B *grid"]) -> Float[Tensor, "T B D *grid"]:
        """Return the entries that indices ``(B, H, W)`` or ``(B, L)`` name, with gradient to the codebook.

        Raises:
            ValueError: If an index is not one of 0 … K − 1.
        """
        if indices.numel():
            low, high = (int(bound) for bound in indices.aminmax())
            if low < 0 or high >= self.n_embed:
                raise ValueError(
                    f"indices reach from {low} to {high}, but this codebook has entries 0 to {self.n_embed - 1}"
                )
        return self._entries(indices)

    @torch.no_grad()
    def initialize(self, z: Float[Tensor, "T B D H W"]) -> None:
        """Draw all codes from these latents now and forget the usage; ``uniform`` draws as ``data`` does.

        With fewer than K sites, some codes are repeated sites plus a small jitter.

        Raises:
            ValueError: If T or D is not the codebook's, a latent is not finite, or there is none.
        """
        self._draw(self._sites(z.to(self.codebook.dtype)))

    @torch.no_grad()
    def revive(self, z: Float[Tensor, "T B D H W"], *, min_usage: float = 0.1) -> Bool[Tensor, "K"]:
        """Replace dead entries by random latents of this batch, and start a new usage window.

        Dead = chosen, in the training forwards since the last call, less than ``min_usage`` times as often as under
        uniform use. Live entries keep their bits. Sites are distinct where there are enough, else repeated with jitter.

        Args:
            z: Recent latents; with no site in it nothing is revived and the window goes on.
            min_usage: Threshold as a fraction of uniform use.

        Returns:
            Which entries were replaced; a trainer zeroes the optimizer's moments of these rows.

        Raises:
            ValueError: If T or D is not the codebook's, or a latent is not finite.
        """
        sites = self._sites(z.to(self.codebook.dtype))
        dead = dead_codes(self.counts, min_usage)
        if len(sites) == 0:
            return torch.zeros_like(dead)
        self.codebook[dead] = sample_sites(sites, int(dead.sum())).view(-1, *self.codebook.shape[1:])
        self.counts.zero_()
        return dead

    def extra_repr(self) -> str:
        """Return the sizes and options for ``repr``."""
        names = ("n_embed", "embed_dim", "n_steps", "beta", "legacy_beta", "init")
        return ", ".join(f"{name}={getattr(self, name)!r}" for name in names)

    def _sites(self, z: Float[Tensor, "T B D H W"]) -> Float[Tensor, "N TD"]:
        """Flatten checked latents to one row per site, time-major, without gradient."""
        if z.shape[0] != self.n_steps or z.shape[2] != self.embed_dim:
            raise ValueError(
                f"latents have shape (T, B, D, H, W) = {tuple(z.shape)}, "
                f"but this codebook has T = {self.n_steps} steps of D = {self.embed_dim}"
            )
        sites = rearrange(z.detach(), "t b d h w -> (b h w) (t d)")
        if not sites.sum().isfinite() and (bad := int((~sites.isfinite()).any(1).sum())):  # a finite sum is proof
            raise ValueError(
                f"{bad} of {len(sites)} sites of the latents given to the codebook hold NaN or inf; look for an "
                "overflow in the encoder or lower the learning rate"
            )
        return sites

    def _search(self, sites: Float[Tensor, "N TD"], z: Float[Tensor, "T B D H W"]) -> Int64[Tensor, "B H W"]:
        return nearest(sites, self.codebook.flatten(1)).view(z[0, :, 0].shape)

    def _entries(self, indices: Int[Tensor, "B *grid"]) -> Float[Tensor, "T B D *grid"]:
        rows = F.embedding(indices, self.codebook.flatten(1))  # (B, *grid, T D)
        return rearrange(rows, "b ... (t d) -> t b d ...", t=self.n_steps).contiguous()

    def _collect(self, sites: Float[Tensor, "N TD"]) -> None:
        """Keep sites until there are K of them, then draw the codes."""
        self._waiting.append(sites)
        if sum(map(len, self._waiting)) >= self.n_embed:
            self._draw(torch.cat(self._waiting))

    @torch.no_grad()
    def _draw(self, sites: Float[Tensor, "N TD"]) -> None:
        draw = kmeans if self.init == "kmeans" else sample_sites
        self.codebook.copy_(draw(sites, self.n_embed).view_as(self.codebook))
        self.initted.fill_(True)
        self.counts.zero_()
        self._waiting.clear()
