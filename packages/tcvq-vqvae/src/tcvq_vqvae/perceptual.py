"""LPIPS, the perceptual distance of the paper's images, from weights that the user gives by path."""

import hashlib
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from tcvq_data import ArtifactError
from tcvq_vqvae.config import VQVAEConfig
from tcvq_vqvae.train_config import LossConfig

MIN_SIZE = 16  # pixels: VGG16 halves the image four times


class Perceptual(nn.Module):
    """mean LPIPS(x, x̂) (Zhang et al. 2018): distances of VGG16's normalised features at five depths, learned weights.

    The network is frozen and always in evaluation mode. It is no registered child: it appears neither in parameters
    nor in checkpoints, and follows `.to` all the same. It computes outside of autocast, in its own dtype. Grey images
    are repeated to three channels. VGG16's weights come from a file and the five small learned weights from the
    installed `lpips` package; nothing is downloaded.

    Args:
        weights: torchvision's ``vgg16-397923af.pth``.
        sha256: Checksum that the file must have.

    Raises:
        ModuleNotFoundError: If `lpips` is not installed; says how to install it.
        ArtifactError: If the file is missing or damaged, or is not VGG16.
    """

    def __init__(self, weights: str | Path, sha256: str) -> None:
        super().__init__()
        self._network: tuple[nn.Module, ...] = (_lpips(_read(Path(weights), sha256), Path(weights)),)

    def forward(self, x: Float[Tensor, "B C H W"], x_hat: Float[Tensor, "B C H W"]) -> Float[Tensor, ""]:
        """Return the mean distance of images in [-1, 1] with 1 or 3 channels."""
        (network,) = self._network
        dtype = next(network.parameters()).dtype
        with torch.autocast(x.device.type, enabled=False):
            one, other = (image.to(dtype).expand(-1, 3, -1, -1) for image in (x, x_hat))
            return network(one, other).mean()

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "Perceptual":
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        self._network[0]._apply(fn)
        return self


def build_perceptual(config: VQVAEConfig, loss: LossConfig) -> Perceptual | None:
    """Return LPIPS for an objective, None where its weight is 0: then no file is looked for.

    Raises:
        ValueError: If the images are too small, or have neither 1 nor 3 channels.
        ModuleNotFoundError, ArtifactError: As `Perceptual`.
    """
    if loss.perceptual_weight == 0:
        return None
    if config.in_channels not in (1, 3) or config.image_size < MIN_SIZE:
        raise ValueError(
            f"loss.perceptual_weight is {loss.perceptual_weight}, but LPIPS compares grey or colour images of at least "
            f"{MIN_SIZE} pixels, not {config.in_channels} channels of {config.image_size}; set it to 0"
        )
    assert loss.perceptual_weights is not None
    return Perceptual(Path(loss.perceptual_weights).expanduser(), loss.perceptual_sha256)


def _read(path: Path, sha256: str) -> dict[str, Tensor]:
    """Return the tensors of a file, after checking what it is; no code in it is run."""
    how = "loss.perceptual_weights needs torchvision's vgg16-397923af.pth, which is never downloaded for you"
    try:
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise ArtifactError(f"{path}: {error.strerror}; {how}; or set loss.perceptual_weight=0") from None
    if found != sha256:
        raise ArtifactError(
            f"{path}: its SHA-256 is {found[:16]}… and not {sha256[:16]}…; {how}; copy it again, or give the checksum "
            "of your own VGG16 as loss.perceptual_sha256"
        )
    tensors: dict[str, Tensor] = torch.load(path, map_location="cpu", weights_only=True)
    return tensors


def _lpips(vgg: dict[str, Tensor], path: Path) -> nn.Module:
    """Return the network with these weights of VGG16, frozen."""
    try:
        import lpips
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"loss.perceptual_weight needs {error.name}, which is not installed; "
            'pip install "tcvq-vqvae[perceptual]", or set loss.perceptual_weight=0'
        ) from None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it builds torchvision's network through an old keyword
        # Dropout is never active in evaluation, but the names of the learned weights count on it.
        network: Any = lpips.LPIPS(net="vgg", pnet_rand=True, use_dropout=True, verbose=False)
    for part in (network.net.slice1, network.net.slice2, network.net.slice3, network.net.slice4, network.net.slice5):
        for number, layer in part.named_children():  # numbered as in VGG16's own `features`
            for kind, parameter in layer.named_parameters():
                _copy(parameter, vgg.get(f"features.{number}.{kind}"), f"features.{number}.{kind}", path)
    return network.eval().requires_grad_(False)


def _copy(parameter: nn.Parameter, value: Tensor | None, name: str, path: Path) -> None:
    if value is None or value.shape != parameter.shape:
        found = "nothing" if value is None else f"shape {tuple(value.shape)}"
        raise ArtifactError(f"{path}: {name} is {found}, VGG16 has shape {tuple(parameter.shape)}; give another file")
    with torch.no_grad():
        parameter.copy_(value)
