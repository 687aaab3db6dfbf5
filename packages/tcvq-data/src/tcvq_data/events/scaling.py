"""Counts to model input and back: scaling to [-1, 1] and resizing, both invertible."""

from functools import lru_cache
from typing import Literal, get_args

import torch
from jaxtyping import Float, Int, Integer, Num
from torch import Tensor

ResizeRule = Literal["bilinear", "count"]


def scale_counts(frames: Num[Tensor, "*cells"], peak: int | Integer[Tensor, "*#cells"]) -> Float[Tensor, "*cells"]:
    """Return ``x = 2·min(c, S)/S - 1`` in float32: -1 is no event, 1 is S events or more.

    Args:
        frames: Counts c.
        peak: S; one number such as the largest count of the training split, or `sample_peaks` of the batch.

    Raises:
        ValueError: A peak is below 1.
    """
    s = _peak(peak, frames.device)
    return 2 * torch.minimum(frames.float(), s) / s - 1


def unscale_counts(x: Float[Tensor, "*cells"], peak: int | Integer[Tensor, "*#cells"]) -> Int[Tensor, "*cells"]:
    """Return ``c = round((x + 1)·S/2)``, at least 0: the inverse of `scale_counts` for counts up to S.

    Raises:
        ValueError: A peak is below 1.
    """
    return ((x.float() + 1) * _peak(peak, x.device) / 2).round().clamp_min(0).long()


def sample_peaks(frames: Integer[Tensor, "B T C H W"]) -> Int[Tensor, "B 1 1 1 1"]:
    """Return each recording's largest count, at least 1, so that an empty recording scales to -1 and not to NaN."""
    return frames.long().amax(dim=(1, 2, 3, 4), keepdim=True).clamp_min(1)


def resize_frames(
    frames: Float[Tensor, "*B H W"], size: tuple[int, int], *, rule: ResizeRule = "bilinear"
) -> Float[Tensor, "*B h w"]:
    """Return ``A_h · frame · A_wᵀ`` for every frame.

    - ``bilinear``: interpolation whose corners are aligned, as the paper's; keeps the range of values, so scale first.
    - ``count``: each source cell is spread over the target cells in proportion to the area they share; the sum over all
      cells stays. Halving a size adds up blocks of 2x2.

    Args:
        frames: Scaled values, or counts as floating point numbers.
        size: Height and width of the result.
        rule: How.

    Raises:
        ValueError: The rule is unknown, or a size is below 1.
    """
    (height, width), (h, w) = frames.shape[-2:], size
    return _apply(_weights(height, h, rule), frames, _weights(width, w, rule))


def restore_frames(
    frames: Float[Tensor, "*B h w"], size: tuple[int, int], *, rule: ResizeRule = "bilinear"
) -> Float[Tensor, "*B H W"]:
    """Return the frames of an original ``size`` that `resize_frames` with the same rule enlarged to these.

    Solves ``A_h · frame · A_wᵀ = frames`` by least squares: exact but for rounding on enlarged frames, and the nearest
    fit on what a model made. Counts are exact after `unscale_counts` or rounding.

    Raises:
        ValueError: ``size`` is larger than the frames: what was shrunk cannot be restored. Or as `resize_frames`.
    """
    (h, w), (height, width) = frames.shape[-2:], size
    if height > h or width > w:
        raise ValueError(f"frames of {h}x{w} were shrunk from {height}x{width}, which cannot be restored")
    return _apply(torch.linalg.pinv(_weights(height, h, rule)), frames, torch.linalg.pinv(_weights(width, w, rule)))


def _peak(peak: int | Integer[Tensor, "*cells"], device: torch.device) -> Float[Tensor, "*cells"]:
    """Return the peak as a float32 tensor, checked."""
    s = torch.as_tensor(peak, device=device).float()
    if bool((s < 1).any()):
        raise ValueError(f"peak={s.min().item():g} must be at least 1; see sample_peaks")
    return s


def _apply(
    rows: Float[Tensor, "h H"], frames: Float[Tensor, "*B H W"], columns: Float[Tensor, "w W"]
) -> Float[Tensor, "*B h w"]:
    """Return ``rows · frame · columnsᵀ``, computed in float64."""
    rows, columns = rows.to(frames.device), columns.to(frames.device)
    return (rows @ frames.double() @ columns.T).to(frames.dtype)


@lru_cache(maxsize=32)
def _weights(n_in: int, n_out: int, rule: ResizeRule) -> Float[Tensor, "n_out n_in"]:
    """Return the weight of every source cell in every target cell along one axis; callers must not write into it."""
    if rule not in get_args(ResizeRule):
        raise ValueError(f"rule {rule!r} is unknown; rules: {', '.join(get_args(ResizeRule))}")
    if n_out < 1:
        raise ValueError(f"cannot resize to {n_out} cells along an axis; it must be at least 1")
    target = torch.arange(n_out, dtype=torch.float64)[:, None]
    source = torch.arange(n_in, dtype=torch.float64)
    if rule == "bilinear":
        return (1 - (target * (n_in - 1) / max(n_out - 1, 1) - source).abs()).clamp_min(0)
    low, high = target * n_in / n_out, (target + 1) * n_in / n_out
    return (torch.minimum(high, source + 1) - torch.maximum(low, source)).clamp_min(0)
