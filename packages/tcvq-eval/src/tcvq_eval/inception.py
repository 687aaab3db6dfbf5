"""The Inception network of FID, KID and IS, with the three ways in which the field resizes images for it."""

import io
from pathlib import Path

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn
from torch.nn.functional import interpolate

from .frozen import Frozen
from .pretrained import KNOWN_WEIGHTS, MissingWeightsError, find_weights, read_weights

RESIZES = ("tf1", "halfpixel", "antialias")
SIDE = 299
WIDTH, N_CLASSES = 2048, 1008
BATCH = 32
_STEM = ("Conv2d_1a_3x3", "Conv2d_2a_3x3", "Conv2d_2b_3x3", "MaxPool_1", "Conv2d_3b_1x1", "Conv2d_4a_3x3", "MaxPool_2")
_MIXED = tuple(f"Mixed_{name}" for name in ("5b", "5c", "5d", "6a", "6b", "6c", "6d", "6e", "7a", "7b", "7c"))


def to_uint8(images: Float[Tensor, "N C H W"]) -> UInt8[Tensor, "N C H W"]:
    """Clamp images to [-1, 1] and round them to the 256 levels of a picture."""
    return ((images.float().clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)


def resize_for_inception(images: UInt8[Tensor, "N C H W"], how: str) -> Float[Tensor, "N 3 299 299"]:
    """Resize pictures to 299 x 299 and scale them as one of the libraries does; grey ones become three equal channels.

    ``tf1``: bilinear as TensorFlow 1, (x - 128) / 128: torch-fidelity, and torchmetrics with ``antialias=False``.
    ``halfpixel``: bilinear, 2 x / 255 - 1: pytorch-fid. ``antialias``: bilinear with antialiasing, (x - 128) / 128:
    torchmetrics by default.

    Raises:
        ValueError: The pictures have neither one nor three channels.
    """
    if images.ndim != 4 or images.shape[1] not in (1, 3):
        raise ValueError(f"Inception got images of shape {tuple(images.shape)}; it needs (N, 1 or 3, height, width)")
    x = images.float().expand(-1, 3, -1, -1)
    size = (SIDE, SIDE)
    if how == "tf1":
        from torch_fidelity.interpolate_compat_tensorflow import interpolate_bilinear_2d_like_tensorflow1x

        return (interpolate_bilinear_2d_like_tensorflow1x(x, size=size, align_corners=False) - 128) / 128
    if how == "halfpixel":
        return 2 * interpolate(x / 255, size=size, mode="bilinear", align_corners=False) - 1
    return (interpolate(x, size=size, mode="bilinear", align_corners=False, antialias=True) - 128) / 128


def _network(weights: Path, sha256: str) -> nn.Module:
    """Build torch-fidelity's network; it gets a file that we wrote ourselves, since it unpickles without limits."""
    try:
        from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3
    except ImportError as error:
        raise MissingWeightsError(
            "Inception needs torch-fidelity, which is not installed; add it with: uv pip install 'tcvq-eval[fidelity]'"
        ) from error
    safe = io.BytesIO()
    torch.save(read_weights(weights, sha256), safe)
    safe.seek(0)
    return FeatureExtractorInceptionV3("inception-v3-compat", ["2048"], feature_extractor_weights_path=safe)


class InceptionFeatures(Frozen):
    """Inception v3 as TensorFlow published it on 2015-12-05: the 2048 features of FID and KID, the logits of IS.

    Args:
        weights: The file of weights; None looks in `weights_folder`. Nothing is downloaded.
        resize: ``tf1`` (torch-fidelity's numbers), ``halfpixel`` (pytorch-fid's) or ``antialias`` (torchmetrics').
        sha256: Hash that the file must have; the published one by default.

    Raises:
        MissingWeightsError: The file or torch-fidelity is missing; says how to get it.
        ValueError: The file has another hash.
    """

    name = "inception-v3-2015-12-05"
    num_features = WIDTH
    layer = "2048"
    input = "uint8"
    colour = "grey repeated to three channels"

    def __init__(self, weights: Path | None = None, *, resize: str = "tf1", sha256: str | None = None) -> None:
        super().__init__()
        if resize not in RESIZES:
            raise ValueError(f"resize is {resize!r}; it must be one of {', '.join(RESIZES)}")
        self.weights_sha256 = sha256 or KNOWN_WEIGHTS["inception"].sha256
        self.how = resize
        self.network = _network(find_weights("inception", weights), self.weights_sha256)
        self.freeze()

    @property
    def resize(self) -> str:
        """How images are resized, for the fingerprint."""
        return f"{self.how} bilinear to {SIDE} x {SIDE}"

    @torch.no_grad()
    def forward(self, images: Float[Tensor, "N C H W"]) -> Float[Tensor, "N 2048"]:
        """Return the pooled features of each image, float32.

        Args:
            images: One or three channels of any size in [-1, 1]; clamped and rounded to 8 bit here.
        """
        device = next(self.network.parameters()).device
        with torch.autocast(device.type, enabled=False):
            parts = [self._features(to_uint8(part).to(device)) for part in images.split(BATCH)]
        return torch.cat(parts)

    def _features(self, images: Tensor) -> Tensor:
        x = resize_for_inception(images, self.how)
        for name in (*_STEM, *_MIXED):
            x = getattr(self.network, name)(x)
        return x.mean(dim=(2, 3))

    @torch.no_grad()
    def logits_of(self, features: Float[Tensor, "N 2048"]) -> Float[Tensor, "N 1008"]:
        """Return the class scores without bias that the Inception Score is computed from, as all libraries do."""
        weight: Tensor = self.network.fc.weight  # type: ignore[union-attr,assignment]  # torch-fidelity has no annotations
        return features.to(weight.device) @ weight.T
