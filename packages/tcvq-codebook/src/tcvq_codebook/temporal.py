"""The temporal codebook: every entry is a trajectory over all time steps, and one index per site names it."""

from collections.abc import Callable
from dataclasses import asdict
from typing import Any, Unpack

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int, Int64
from torch import Tensor, nn

from tcvq_codebook.config import CodebookConfig, CodebookOptions
from tcvq_codebook.distributed import add_over_ranks, total_over_ranks
from tcvq_codebook.ema import code_sums, ema_update
from tcvq_codebook.init import kmeans, sample_sites
from tcvq_codebook.interface import Quantized
from tcvq_codebook.layout import Mask, latents_of, mask_of_sites, require_codes, sites_of, take, zero_masked
from tcvq_codebook.losses import codebook_loss
from tcvq_codebook.nearest import nearest, require_finite
from tcvq_codebook.straight_through import estimate
from tcvq_codebook.usage import code_counts, dead_codes, perplexity

_SHORTEST = 1e-6  # vectors below this length are not scaled up to unit length


class TemporalCodebook(nn.Module):
    """K trajectories E_k ∈ R^(T×D), learned by gradient or as moving averages.

    k_p = argmin_k ‖z_p − E_k‖² over the whole trajectory of site p, z_q[t, p] = E[k_p, t].

    Latents are cast to the codebook's dtype on entry, so everything returned has that dtype (float32 as a rule) even
    under autocast; the gradient flows back to the latents in theirs. Latents with NaN or inf are an error in
    training and in evaluation alike: the search would send them all to code 0, and training on would only hide where
    the number came from.

    A padding ``mask`` (True = valid) leaves steps out: they count neither in the search nor in the loss, nothing is
    learned from them, their latents get no gradient and may hold anything. Sites without any valid step are not counted
    as use, and only sites that are valid at every step become codes in initialisation and revival.

    With a process group, training forwards, `initialize` and `revive` are collectives that keep codes, averages and
    counts equal on all ranks; ranks may see different numbers of sites. Evaluation and `encode` never communicate. That
    the first codes and, learning by gradient, the gradients are equal is up to DistributedDataParallel.

    Args:
        n_embed: Number of entries K.
        embed_dim: Width D of one step of an entry.
        n_steps: Number of steps T.
        **options: The other fields of `CodebookConfig`.

    Attributes:
        config: Sizes and options.
        codebook: The entries, ``(K, T, D)``: a parameter, or a buffer under ``update="ema"``.
        initted: Whether the entries are final in the sense of ``init``; saved, so a loaded codebook is never redrawn.
        counts: How often each entry was chosen in training since the last `revive`, ``(K,)``, over all ranks; saved.
        ema_counts: Under ``update="ema"``, the moving count N_k of sites, ``(K,)``; saved.
        ema_sums: Under ``update="ema"``, the moving sum M_k of sites, ``(K, T, D)``; saved.

    Raises:
        ValueError: If a size or option is out of range.
    """

    codebook: Float[Tensor, "K T D"]
    initted: Bool[Tensor, ""]
    counts: Int64[Tensor, "K"]
    ema_counts: Float[Tensor, "K"]
    ema_sums: Float[Tensor, "K T D"]
    step_weights: Float[Tensor, "T"] | None

    def __init__(self, n_embed: int, embed_dim: int, n_steps: int, **options: Unpack[CodebookOptions]) -> None:
        super().__init__()
        self.config = CodebookConfig(n_embed=n_embed, embed_dim=embed_dim, n_steps=n_steps, **options)
        self.n_embed, self.embed_dim, self.n_steps = n_embed, embed_dim, n_steps
        codes = torch.empty(n_embed, n_steps, embed_dim).uniform_(-1 / n_embed, 1 / n_embed)
        if self.config.update == "gradient":
            self.codebook = nn.Parameter(codes)
        else:
            self.register_buffer("codebook", codes)
            self.register_buffer("ema_counts", torch.ones(n_embed))
            self.register_buffer("ema_sums", codes.clone())
        self.register_buffer("initted", torch.tensor(self.config.init == "uniform"))
        self.register_buffer("counts", torch.zeros(n_embed, dtype=torch.int64))
        weights = self.config.step_weights
        self.register_buffer("step_weights", None if weights is None else torch.tensor(weights), persistent=False)
        self._waiting: list[Tensor] = []
        self._initted = False  # what `initted` said when last read: reading it waits for the device

    @classmethod
    def from_config(cls, config: CodebookConfig) -> "TemporalCodebook":
        """Build a codebook from sizes and options in one object."""
        return cls(**asdict(config))

    def forward(self, z: Float[Tensor, "T B D H W"], mask: Mask | None = None) -> Quantized:
        """Quantize latents and compute the losses; in training also initialise the codes, count their use and average.

        Under ``update="ema"`` the result holds the codes from before the update.

        Args:
            z: Latents.
            mask: Which steps are valid, of each site ``(T, B, H, W)`` or of each sample ``(T, B)``; None is all.

        Raises:
            ValueError: If T or D is not the codebook's, a latent is not finite, or the mask does not fit.
        """
        return self.quantize(z, mask, learn=self.training)

    def quantize(self, z: Float[Tensor, "T B D H W"], mask: Mask | None = None, *, learn: bool) -> Quantized:
        """Do as `forward`, with the choice whether to learn in place of the module's mode."""
        sites, valid = self._sites(z, mask)
        if learn and not self.is_initted():
            self._collect(_complete(sites, valid))
        codes = self.entries()
        pick = self._search(sites.detach().flatten(1), codes.flatten(1), valid)
        e = F.embedding(pick, codes.flatten(1)).view_as(sites)
        counted = pick if valid is None else pick.where(valid.any(1), self.n_embed)  # code K collects what is left out
        counts = code_counts(counted, self.n_embed + 1)[:-1]
        if learn and self.is_initted():
            self.counts += add_over_ranks(counts)
            if self.config.update == "ema":
                self._average(sites if valid is None else sites.where(valid.unsqueeze(2), e), counted, counts)
        loss = codebook_loss(
            sites,
            e,
            beta=self.config.beta,
            legacy_beta=self.config.legacy_beta,
            learns=self.config.update == "gradient",
            mask=None if valid is None else valid.unsqueeze(2),
        )
        z_q = estimate(sites.flatten(1), e.flatten(1), self.config.estimator)
        return Quantized(
            z_q=latents_of(z_q.view_as(sites), z),
            indices=pick.view(z[0, :, 0].shape),
            loss=loss.total,
            perplexity=perplexity(counts),
            codebook_loss=loss.codebook,
            commitment_loss=loss.commitment,
        )

    def encode(self, z: Float[Tensor, "T B D H W"], mask: Mask | None = None) -> Int64[Tensor, "B H W"]:
        """Return the index of the nearest entry of every site, without gradient.

        Raises:
            ValueError: If T or D is not the codebook's, a latent is not finite, or the mask does not fit.
        """
        sites, valid = self._sites(z.detach(), mask)
        return self._search(sites.flatten(1), self.entries().flatten(1), valid).view(z[0, :, 0].shape)

    def lookup(self, indices: Int[Tensor, "B *grid"]) -> Float[Tensor, "T B D *grid"]:
        """Return the entries that indices ``(B, H, W)`` or ``(B, L)`` name, with gradient to the codebook.

        Raises:
            ValueError: If an index is not one of 0 … K − 1.
        """
        require_codes(indices, self.n_embed)
        return take(self.entries(), indices)

    def entries(self) -> Float[Tensor, "K T D"]:
        """Return the entries as they are searched and looked up: ``codebook``, at unit length under ``cosine``."""
        return self._scaled(self.codebook)

    @torch.no_grad()
    def initialize(self, z: Float[Tensor, "T B D H W"], mask: Mask | None = None) -> None:
        """Draw all codes from these latents now and forget the usage; ``uniform`` draws as ``data`` does.

        With fewer than K sites, some codes are repeated sites plus a small jitter.

        Raises:
            ValueError: If T or D is not the codebook's, a latent is not finite, or there is none.
        """
        self._draw(_complete(*self._sites(z, mask)))

    @torch.no_grad()
    def assign(self, codes: Float[Tensor, "K T D"]) -> None:
        """Set all entries: they count as initialised, usage is forgotten, averages start from them with N_k = 1."""
        self._replace(torch.ones_like(self.counts, dtype=torch.bool), codes.to(self.codebook, copy=True), 1.0)
        self.initted.fill_(True)
        self.counts.zero_()
        self._waiting.clear()

    @torch.no_grad()
    def revive(
        self, z: Float[Tensor, "T B D H W"], mask: Mask | None = None, *, min_usage: float = 0.1
    ) -> Bool[Tensor, "K"]:
        """Replace dead entries by random latents of this batch, and start a new usage window.

        Dead = chosen, in the training forwards since the last call, less than ``min_usage`` times as often as under
        uniform use. Live entries keep their bits. Sites are distinct where there are enough, else repeated with jitter.
        Moving averages of revived entries start from their new values with the mean count N̄.

        Args:
            z: Recent latents; with no site in it nothing is revived and the window goes on.
            mask: Which steps are valid; None is all.
            min_usage: Threshold as a fraction of uniform use.

        Returns:
            Which entries were replaced; a trainer zeroes the optimizer's moments of these rows.

        Raises:
            ValueError: If T or D is not the codebook's, a latent is not finite, or the mask does not fit.
        """
        sites = _complete(*self._sites(z, mask))
        dead = dead_codes(self.counts, min_usage)
        if total_over_ranks(len(sites), sites.device) == 0:
            return torch.zeros_like(dead)
        usual = self.ema_counts.mean() if self.config.update == "ema" else 1.0
        self._replace(dead, sample_sites(sites, int(dead.sum())), usual)
        self.counts.zero_()
        return dead

    def is_initted(self) -> bool:
        """Return ``initted`` as a bool; once true it is remembered, so that training does not wait for the device."""
        self._initted = self._initted or bool(self.initted)
        return self._initted

    def extra_repr(self) -> str:
        """Return the sizes and options for ``repr``."""
        return ", ".join(f"{name}={value!r}" for name, value in asdict(self.config).items())

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "TemporalCodebook":
        """Move or cast, but keep moving averages in at least float32: a half would round them away or overflow."""
        kept = {name: getattr(self, name) for name in ("ema_counts", "ema_sums") if self.config.update == "ema"}
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        for name, before in kept.items():
            after = getattr(self, name)
            if after.dtype.itemsize < torch.float32.itemsize:
                setattr(self, name, before.to(after.device))
        return self

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        self._initted = False
        super()._load_from_state_dict(*args, **kwargs)

    def _sites(
        self, z: Float[Tensor, "T B D H W"], mask: Mask | None
    ) -> tuple[Float[Tensor, "N T D"], Bool[Tensor, "N T"] | None]:
        """Return checked latents as one trajectory per site, in the codebook's dtype and scale, and their mask."""
        if z.shape[0] != self.n_steps or z.shape[2] != self.embed_dim:
            raise ValueError(
                f"latents have shape (T, B, D, H, W) = {tuple(z.shape)}, "
                f"but this codebook has T = {self.n_steps} steps of D = {self.embed_dim}"
            )
        per_step = self.config.norm == "step" or self.n_steps == 1
        if mask is not None and self.config.similarity == "cosine" and not per_step:
            raise ValueError("part of a trajectory of unit length has none; under cosine, a mask needs norm='step'")
        sites = sites_of(zero_masked(z.to(self.codebook.dtype), mask))
        require_finite(sites.detach())
        return self._scaled(sites), None if mask is None else mask_of_sites(mask, z)

    def _scaled(self, x: Float[Tensor, "rows T D"]) -> Float[Tensor, "rows T D"]:
        if self.config.similarity == "l2":
            return x
        if self.config.norm == "step":
            return F.normalize(x, dim=2, eps=_SHORTEST)
        return F.normalize(x.flatten(1), dim=1, eps=_SHORTEST).view_as(x)

    def _search(self, sites: Tensor, codes: Tensor, valid: Tensor | None = None) -> Int64[Tensor, "N"]:
        weights, most = self.step_weights, self.config.max_bytes
        return nearest(sites, codes.detach(), mask=valid, step_weights=weights, max_bytes=most)

    def _average(self, sites: Float[Tensor, "N T D"], pick: Int64[Tensor, "N"], counts: Int64[Tensor, "K"]) -> None:
        """Update the moving averages: a masked step was filled with the entry's own value and so moves nothing."""
        rows = sites.detach().flatten(1).to(self.ema_sums.dtype)
        sums = add_over_ranks(code_sums(rows, pick, self.n_embed + 1)[0][:-1])
        averages = (self.codebook.flatten(1), self.ema_counts, self.ema_sums.flatten(1))
        ema_update(*averages, counts, sums, decay=self.config.decay, eps=self.config.eps)

    def _collect(self, sites: Float[Tensor, "N TD"]) -> None:
        """Keep sites until all ranks together have K of them, then draw the codes."""
        self._waiting.append(sites)
        if total_over_ranks(sum(map(len, self._waiting)), sites.device) >= self.n_embed:
            self._draw(torch.cat(self._waiting))

    @torch.no_grad()
    def _draw(self, sites: Float[Tensor, "N TD"]) -> None:
        if self.config.init == "kmeans":
            codes = kmeans(sites, self.n_embed, search=self._search_scaled)
        else:
            codes = sample_sites(sites, self.n_embed)
        self.assign(codes.view_as(self.codebook))

    def _search_scaled(self, sites: Tensor, codes: Tensor) -> Tensor:
        return self._search(sites, self._scaled(codes.view_as(self.codebook)).flatten(1))

    def _replace(self, which: Bool[Tensor, "K"], codes: Tensor, n: Tensor | float) -> None:
        """Set entries, and their averages such that M_k = e_k N_k with N_k = ``n``."""
        codes = codes.reshape(-1, *self.codebook.shape[1:])
        self.codebook[which] = codes
        if self.config.update == "ema":
            self.ema_counts[which] = n
            self.ema_sums[which] = codes.to(self.ema_sums.dtype) * n


def _complete(sites: Float[Tensor, "N T D"], valid: Bool[Tensor, "N T"] | None) -> Float[Tensor, "n TD"]:
    """Return the sites that are valid at every step, flattened, without gradient."""
    rows = sites.detach().flatten(1)
    return rows if valid is None else rows[valid.all(1)]
