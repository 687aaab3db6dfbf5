"""Latents ``(T, B, D, H, W)`` as rows, one trajectory per site in raster order, and back; padding masks; lookup."""

import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor

Mask = Bool[Tensor, "T B *grid"]  # of each site (T, B, H, W), or of each sample (T, B); True = valid


def sites_of(z: Float[Tensor, "T B D H W"]) -> Float[Tensor, "N T D"]:
    """Return one trajectory per site, N = B·H·W."""
    return rearrange(z, "t b d h w -> (b h w) t d")


def latents_of(sites: Float[Tensor, "N T D"], like: Float[Tensor, "T B D H W"]) -> Float[Tensor, "T B D H W"]:
    """Undo `sites_of` for the B, H and W of ``like``."""
    _, b, _, h, w = like.shape
    return rearrange(sites, "(b h w) t d -> t b d h w", b=b, h=h, w=w).contiguous()


def mask_of_sites(mask: Mask, z: Float[Tensor, "T B D H W"]) -> Bool[Tensor, "N T"]:
    """Return which steps of each site are valid.

    Raises:
        ValueError: If the mask has other sizes than the latents.
    """
    return rearrange(_full(mask, z), "t b h w -> (b h w) t")


def zero_masked(z: Float[Tensor, "T B D H W"], mask: Mask | None) -> Float[Tensor, "T B D H W"]:
    """Return the latents with 0, and no gradient, where the mask is not True.

    Raises:
        ValueError: If the mask has other sizes than the latents.
    """
    return z if mask is None else z.where(_full(mask, z).unsqueeze(2), 0)


def _full(mask: Mask, z: Float[Tensor, "T B D H W"]) -> Bool[Tensor, "T B H W"]:
    t, b, _, h, w = z.shape
    if mask.shape not in {(t, b), (t, b, h, w)}:
        raise ValueError(f"the mask has shape {tuple(mask.shape)}; these latents take {(t, b)} or {(t, b, h, w)}")
    return mask if mask.ndim == 4 else mask[:, :, None, None].expand(t, b, h, w)


def take(entries: Float[Tensor, "K T D"], indices: Int[Tensor, "B *grid"]) -> Float[Tensor, "T B D *grid"]:
    """Return the entries that the indices name, with gradient."""
    rows = F.embedding(indices, entries.flatten(1))  # (B, *grid, T D)
    return rearrange(rows, "b ... (t d) -> t b d ...", t=entries.shape[1]).contiguous()


def require_codes(indices: Int[Tensor, "*shape"], n_embed: int) -> None:
    """Raise if an index names no entry.

    Raises:
        ValueError: If an index is not one of 0 … K − 1.
    """
    if indices.numel():
        low, high = (int(bound) for bound in indices.aminmax())
        if low < 0 or high >= n_embed:
            raise ValueError(f"indices reach from {low} to {high}, but this codebook has entries 0 to {n_embed - 1}")
