"""How close reconstructions are to their originals: L1, MSE, PSNR and SSIM, per image and averaged."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

BATCH = 512


@dataclass(frozen=True, kw_only=True, slots=True)
class Reconstruction:
    """Means over images, on the scale of [-1, 1] unless stated.

    Attributes:
        n: Number of images.
        l1: Mean absolute difference per pixel.
        mse: Mean squared difference per pixel.
        psnr: Mean over images of 10 log10(2**2 / mse of the image), in dB; infinite if an image is reproduced exactly.
        psnr_std: Standard deviation of the PSNR over images, in dB; not a number where ``psnr`` is infinite.
        ssim: Mean structural similarity, between -1 and 1.
        ssim_std: Standard deviation of the SSIM over images.
        lpips: Mean perceptual distance; None where its weights are not here.
    """

    n: int
    l1: float
    mse: float
    psnr: float
    psnr_std: float
    ssim: float
    ssim_std: float
    lpips: float | None = None


def psnr(x: Float[Tensor, "N C H W"], x_hat: Float[Tensor, "N C H W"]) -> Float[Tensor, " N"]:
    """Return the peak signal-to-noise ratio of each image in dB; pixels in [-1, 1], so the peak is 2."""
    from torchmetrics.functional.image import peak_signal_noise_ratio

    return peak_signal_noise_ratio(x_hat, x, data_range=2.0, dim=(1, 2, 3), reduction="none")


def ssim(x: Float[Tensor, "N C H W"], x_hat: Float[Tensor, "N C H W"]) -> Float[Tensor, " N"]:
    """Return the structural similarity of each image; pixels in [-1, 1].

    Wang et al. 2004 with an 11x11 Gaussian window, sigma 1.5, in the dtype of the images. The pixels are moved to
    [0, 1] first: the luminance term divides by squared means and has its published meaning only for intensities that
    start at black = 0.
    """
    from torchmetrics.functional.image import structural_similarity_index_measure

    value = structural_similarity_index_measure((x_hat + 1) / 2, (x + 1) / 2, data_range=1.0, reduction="none")
    assert isinstance(value, Tensor)
    return value.reshape(len(x))


class ReconstructionMeter:
    """Compares reconstructions with their originals batch by batch; memory grows by a few numbers per image.

    Args:
        perceptual: Returns the LPIPS of each pair of images in [-1, 1], if its weights are here.
    """

    def __init__(self, perceptual: Callable[[Tensor, Tensor], Tensor] | None = None) -> None:
        self._perceptual = perceptual
        self._rows: list[Tensor] = []

    @torch.no_grad()
    def update(self, x: Float[Tensor, "N C H W"], x_hat: Float[Tensor, "M C H W"]) -> None:
        """Compare a batch; frames of recordings count as images.

        Args:
            x: Originals in [-1, 1], at least 6 pixels high and wide.
            x_hat: Reconstructions in the same order; clamped to [-1, 1] here, as when they are saved.

        Raises:
            ValueError: The shapes differ or there is no image.
        """
        if x.shape != x_hat.shape or not len(x):
            raise ValueError(
                f"originals {tuple(x.shape)} and reconstructions {tuple(x_hat.shape)} must be equally many, at least "
                "one, and of one shape"
            )
        for a, b in zip(x.float().split(BATCH), x_hat.float().clamp(-1, 1).split(BATCH), strict=True):
            difference = (b - a).double().flatten(1)
            rows = [difference.abs().mean(dim=1), difference.square().mean(dim=1), psnr(a.double(), b.double())]
            rows.append(ssim(a, b).double())
            if self._perceptual is not None:
                rows.append(self._perceptual(a, b).double().reshape(len(a)))
            self._rows.append(torch.stack(rows, dim=1).cpu())

    def result(self) -> Reconstruction:
        """Return the means over all images.

        Raises:
            ValueError: There was no image.
        """
        if not self._rows:
            raise ValueError("no reconstruction was compared")
        rows = torch.cat(self._rows)
        mean, std = rows.mean(dim=0).tolist(), rows.std(dim=0, correction=0).tolist()
        return Reconstruction(
            n=len(rows),
            l1=mean[0],
            mse=mean[1],
            psnr=mean[2],
            psnr_std=std[2],
            ssim=mean[3],
            ssim_std=std[3],
            lpips=mean[4] if len(mean) > 4 else None,
        )


def evaluate_reconstruction(
    x: Float[Tensor, "N C H W"],
    x_hat: Float[Tensor, "M C H W"],
    perceptual: Callable[[Tensor, Tensor], Tensor] | None = None,
) -> Reconstruction:
    """Compare reconstructions with their originals, in float64 (the SSIM of each image in float32).

    Args:
        x: Originals in [-1, 1], at least 6 pixels high and wide.
        x_hat: Reconstructions in the same order; clamped to [-1, 1] here, as when they are saved.
        perceptual: Returns the LPIPS of each pair of images, if its weights are here.

    Raises:
        ValueError: The shapes differ or there is no image.
    """
    meter = ReconstructionMeter(perceptual)
    meter.update(x, x_hat)
    return meter.result()
