"""How much of a codebook is used: counts over a whole set of indices, never means over batches."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor


@dataclass(frozen=True, kw_only=True, slots=True)
class CodeUsage:
    """Use of a codebook by a set of indices.

    Attributes:
        n_embed: Number of codes K.
        n_tokens: Number of indices counted.
        used: Codes that occur at least once.
        used_fraction: ``used / n_embed``.
        perplexity: exp(entropy) of the code frequencies, between 1 and K.
        counts: How often each code occurs, in the codebook's order.
    """

    n_embed: int
    n_tokens: int
    used: int
    used_fraction: float
    perplexity: float
    counts: tuple[int, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class StepContributions:
    """What each step of the trajectories contributes.

    Attributes:
        error: Per step, the mean squared quantisation error ‖z_t - z_q,t‖² of a site.
        relative: The same over ‖z_t‖².
        energy: Per step, the share of ‖z_q,t‖² in the sum over steps.
        change: Per step after the first, ‖z_q,t - z_q,t-1‖² over the mean ‖z_q,t‖².
    """

    error: tuple[float, ...]
    relative: tuple[float, ...]
    energy: tuple[float, ...]
    change: tuple[float, ...]


class StepMeter:
    """Adds up per-step contributions of latents over batches."""

    def __init__(self) -> None:
        self._sites = 0
        self._sums: Tensor | None = None

    @torch.no_grad()
    def update(self, z: Float[Tensor, "T B D h w"], z_q: Float[Tensor, "T B D h w"]) -> None:
        """Add a batch of latents and what the codebook made of them."""

        def power(x: Tensor) -> Tensor:
            return x.double().square().sum(dim=(1, 2, 3, 4)).cpu()

        step = power(z_q.diff(dim=0, prepend=z_q[:1]))
        sums = torch.stack([power(z - z_q), power(z), power(z_q), step])
        self._sums = sums if self._sums is None else self._sums + sums
        self._sites += z[0, :, 0].numel()

    def result(self) -> StepContributions:
        """Return the contributions over all batches.

        Raises:
            ValueError: There was none.
        """
        if self._sums is None:
            raise ValueError("step contributions need at least one batch of latents")
        error, z, z_q, step = self._sums
        return StepContributions(
            error=tuple((error / self._sites).tolist()),
            relative=tuple((error / z).tolist()),
            energy=tuple((z_q / z_q.sum()).tolist()),
            change=tuple((step[1:] / z_q.mean()).tolist()),
        )


def code_usage(indices: Int[Tensor, "*any"], n_embed: int) -> CodeUsage:
    """Count the codes of a whole set.

    Args:
        indices: Code indices in any shape, each in [0, n_embed).
        n_embed: Number of codes K.

    Raises:
        ValueError: There is no index, or one lies outside the codebook.
    """
    flat = indices.flatten()
    if not len(flat):
        raise ValueError("code usage needs at least one index; got an empty tensor")
    if flat.min() < 0 or flat.max() >= n_embed:
        raise ValueError(
            f"code indices span {int(flat.min())} to {int(flat.max())}; a codebook of {n_embed} has 0 to {n_embed - 1}"
        )
    counts = torch.bincount(flat.cpu(), minlength=n_embed)
    p = counts.double() / len(flat)
    used = int((counts > 0).sum())
    return CodeUsage(
        n_embed=n_embed,
        n_tokens=len(flat),
        used=used,
        used_fraction=used / n_embed,
        perplexity=torch.special.entr(p).sum().exp().item(),
        counts=tuple(counts.tolist()),
    )
