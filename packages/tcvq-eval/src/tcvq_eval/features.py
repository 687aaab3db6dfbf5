"""The small Fashion-MNIST classifier whose last hidden layer is the space of ``fd_fashion``."""

import hashlib
from importlib import resources
from itertools import pairwise

import torch
from jaxtyping import Float, Int
from safetensors.torch import load
from torch import Tensor, nn

CHANNELS = (1, 32, 48, 64, 96)
STRIDES = (2, 1, 2, 1)
N_CLASSES = 10
IMAGE_SIDE = 28
WEIGHTS_FILE = "fashion_cnn_1.safetensors"
WEIGHTS_SHA256 = "1efd68f008bc1644efc048c686408dbd00cb7f8829e53663beff60b6d7984401"
BATCH = 256


def _check_images(images: Tensor) -> None:
    """Reject what the classifier was not trained on.

    Raises:
        ValueError: The shape is not (N, 1, 28, 28), or a pixel is not finite or outside [-1, 1].
    """
    if images.ndim != 4 or images.shape[1:] != (1, IMAGE_SIDE, IMAGE_SIDE):
        raise ValueError(
            f"fashion-cnn/1 got images of shape {tuple(images.shape)}; it needs (N, 1, {IMAGE_SIDE}, {IMAGE_SIDE}): "
            "crop the border of padded images with images[..., 2:-2, 2:-2]"
        )
    if images.numel() and not bool((images.abs() <= 1).all()):
        raise ValueError(
            f"fashion-cnn/1 got pixels in [{images.min():.4g}, {images.max():.4g}]; it needs finite values in [-1, 1]: "
            "clamp decoded images first"
        )


def _read_weights() -> dict[str, Tensor]:
    """Read the weights that came with the package, after comparing their hash with the one recorded here.

    Raises:
        ValueError: The file is missing or not the one that ``fashion-cnn/1`` names.
    """
    file = resources.files(__package__) / "weights" / WEIGHTS_FILE
    if not file.is_file():
        raise ValueError(f"the weights of fashion-cnn/1 are missing from {file}; reinstall tcvq-eval")
    data = file.read_bytes()
    digest = hashlib.sha256(data).hexdigest()
    if digest != WEIGHTS_SHA256:
        raise ValueError(
            f"the weights of fashion-cnn/1 in {file} are damaged: sha256 {digest[:12]}, expected "
            f"{WEIGHTS_SHA256[:12]}; reinstall tcvq-eval"
        )
    return load(data)


class FashionFeatures(nn.Module):
    """``fashion-cnn/1``: four 3x3 convolutions with ReLU, mean over the map, 96 features, ten classes.

    The weights are part of the package and pinned by hash. The network has neither batch statistics nor dropout, never
    needs a gradient, computes in float32 in batches of 256, and ignores ``train()`` of a parent.
    """

    name: str = "fashion-cnn/1"
    num_features: int = CHANNELS[-1]
    n_classes: int = N_CLASSES
    weights_sha256: str = WEIGHTS_SHA256
    layer: str = "96"
    input: str = "[-1, 1], rounded to 8 bit"

    def __init__(self) -> None:
        """Build the network and load the weights of the package.

        Raises:
            ValueError: The weights file is missing or damaged.
        """
        super().__init__()
        self.convs = nn.ModuleList(
            nn.Conv2d(c_in, c_out, 3, stride, padding=1)
            for (c_in, c_out), stride in zip(pairwise(CHANNELS), STRIDES, strict=True)
        )
        self.head = nn.Linear(CHANNELS[-1], N_CLASSES)
        self.load_state_dict(_read_weights())
        self.requires_grad_(False)
        self.train(False)

    def train(self, mode: bool = True) -> "FashionFeatures":
        """Stay in evaluation mode whatever a parent module asks for."""
        del mode
        return super().train(False)

    @torch.no_grad()
    def forward(self, images: Float[Tensor, "N C H W"]) -> Float[Tensor, "N F"]:
        """Return the 96 features of each image, float32.

        Args:
            images: Shape (N, 1, 28, 28), values in [-1, 1].

        Raises:
            ValueError: The images have another shape or range.
        """
        _check_images(images)
        device = self.head.weight.device
        with torch.autocast(device.type, enabled=False):
            batches = [self._features(batch.to(device, torch.float32)) for batch in images.split(BATCH)]
        return torch.cat(batches)

    def _features(self, x: Tensor) -> Tensor:
        for conv in self.convs:
            x = conv(x).relu()
        return x.mean(dim=(2, 3))

    @torch.no_grad()
    def logits(self, images: Float[Tensor, "N C H W"]) -> Float[Tensor, "N 10"]:
        """Return the class logits of each image, float32; arguments and errors as for the features."""
        return self.head(self(images))

    @torch.no_grad()
    def logits_of(self, features: Float[Tensor, "N F"]) -> Float[Tensor, "N 10"]:
        """Return the class logits that belong to features of images."""
        return self.head(features.to(self.head.weight.device))

    def predict(self, images: Float[Tensor, "N C H W"]) -> Int[Tensor, " N"]:
        """Return the most probable class of each image, int64; arguments and errors as for the features."""
        return self.logits(images).argmax(dim=1)
