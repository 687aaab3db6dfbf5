"""Feature networks of the literature beside Inception: VGG16 for precision and recall, DINOv2 for FD, CLIP for CMMD.

Weights come from files of the user's; nothing is downloaded, no code in a file runs, and its hash is in fingerprints.
"""

import io
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import interpolate

from .frozen import Frozen
from .inception import to_uint8
from .pretrained import KNOWN_WEIGHTS, MissingWeightsError, file_sha256, find_weights, read_weights

BATCH = 16
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
OPENAI = ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))


class VGGFeatures(Frozen):
    """VGG16 of torchvision, its second hidden layer: the space of precision and recall (Kynkäänniemi et al. 2019).

    Network, resizing to 224 pixels and scaling are torch-fidelity's, so that its numbers are.

    Args:
        weights: torchvision's file; None looks in `weights_folder`. Nothing is downloaded.
        sha256: Hash that the file must have; the published one by default.

    Raises:
        MissingWeightsError: The file or torch-fidelity is missing; says how to get it.
        ValueError: The file has another hash, or is not VGG16.
    """

    name = "vgg16"
    num_features = 4096
    layer = "fc2_relu"
    input = "uint8"
    colour = "grey repeated to three channels"
    resize = "tf1 bilinear to 224 x 224"

    def __init__(self, weights: Path | None = None, *, sha256: str | None = None) -> None:
        super().__init__()
        self.weights_sha256 = sha256 or KNOWN_WEIGHTS["vgg16"].sha256
        path = find_weights("vgg16", weights)
        try:
            from torch_fidelity.feature_extractor_vgg16 import FeatureExtractorVGG16
        except ImportError as error:
            raise MissingWeightsError(
                "VGG16 needs torch-fidelity, which is not installed; add it with: uv pip install 'tcvq-eval[fidelity]'"
            ) from error
        safe = io.BytesIO()
        torch.save(read_weights(path, self.weights_sha256), safe)
        safe.seek(0)
        try:
            self.network = FeatureExtractorVGG16("vgg16", ["fc2_relu"], feature_extractor_weights_path=safe)
        except RuntimeError as error:
            raise ValueError(f"{path} does not hold VGG16 ({' '.join(str(error).split())[:80]})") from error
        self.freeze()

    @torch.no_grad()
    def forward(self, images: Float[Tensor, "N C H W"]) -> Float[Tensor, "N F"]:
        """Return the features of each image, one or three channels in [-1, 1], rounded to 8 bit here."""
        device = next(self.network.parameters()).device
        parts = (to_uint8(part).expand(-1, 3, -1, -1).to(device) for part in images.split(BATCH))
        return torch.cat([self.network(part)[0] for part in parts])


class TimmFeatures(Frozen):
    """A vision transformer of timm with weights from a file, as a feature extractor.

    Images are rounded to 8 bit, resized whole to a square (bicubic with antialiasing), scaled, and given to the
    network in float32.

    Args:
        weights: A ``.safetensors`` or ``.pth`` file, timm's or the authors' own; None is missing.
        architecture: timm's name.
        side: Height and width of the network's input.
        scaling: Mean and standard deviation of each channel, of pixels in [0, 1].
        n_outputs: Width of the projection after the pooled token; 0 for none.
        sha256: Hash that the file must have; None takes any, and the fingerprint names it.

    Raises:
        MissingWeightsError: The file or timm is missing; says how to get it.
        ValueError: The file has another hash, or holds another network.
    """

    input = "uint8"
    colour = "grey repeated to three channels"

    def __init__(
        self,
        weights: Path | None,
        *,
        architecture: str,
        side: int = 224,
        scaling: tuple[tuple[float, ...], tuple[float, ...]] = IMAGENET,
        n_outputs: int = 0,
        sha256: str | None = None,
    ) -> None:
        super().__init__()
        if weights is None or not weights.is_file():
            where = "no file was named" if weights is None else f"there is no file {weights}"
            raise MissingWeightsError(f"{architecture} needs its weights, but {where}; give one with: --weights FILE")
        self.weights_sha256 = file_sha256(weights)
        if sha256 is not None and sha256 != self.weights_sha256:
            raise ValueError(f"{weights} has sha256 {self.weights_sha256[:12]}, not the {sha256[:12]} that you named")
        self.network = _timm(architecture, weights, side, n_outputs)
        self.name, self.side, self.scaling = f"timm {architecture}", side, scaling
        self.num_features = n_outputs or int(self.network.num_features)  # type: ignore[arg-type]  # timm's attribute
        self.layer, self.resize = "projection" if n_outputs else "pooled", f"antialiased bicubic to {side} x {side}"
        self.freeze()

    @torch.no_grad()
    def forward(self, images: Float[Tensor, "N C H W"]) -> Float[Tensor, "N F"]:
        """Return the features of each image, one or three channels in [-1, 1], rounded to 8 bit here."""
        return torch.cat([self.network(self._scaled(part)).float() for part in images.split(BATCH)])

    def _scaled(self, images: Tensor) -> Tensor:
        device = next(self.network.parameters()).device
        x = to_uint8(images).to(device).float().expand(-1, 3, -1, -1)
        x = interpolate(x, size=(self.side, self.side), mode="bicubic", antialias=True).clamp(0, 255) / 255
        mean, std = (torch.tensor(each, device=device)[:, None, None] for each in self.scaling)
        return (x - mean) / std


def dinov2_features(weights: Path | None, *, sha256: str | None = None) -> TimmFeatures:
    """Return DINOv2 ViT-L/14 at 224 pixels, its class token: the space that Stein et al. 2023 recommend for FD."""
    return TimmFeatures(weights, architecture="vit_large_patch14_dinov2", sha256=sha256)


def clip_features(weights: Path | None, *, sha256: str | None = None) -> TimmFeatures:
    """Return OpenAI's CLIP ViT-L/14 at 336 pixels, its image embedding: the space of CMMD (Jayasumana et al. 2024)."""
    architecture = "vit_large_patch14_clip_quickgelu_336"
    return TimmFeatures(weights, architecture=architecture, side=336, scaling=OPENAI, n_outputs=768, sha256=sha256)


def _timm(architecture: str, weights: Path, side: int, n_outputs: int) -> nn.Module:
    """Build a network and load its weights, all of them; tensors only are read."""
    try:
        import timm
        from timm.models.vision_transformer import checkpoint_filter_fn
    except ImportError as error:
        raise MissingWeightsError(
            f"{architecture} needs timm, which is not installed; add it with: uv pip install 'tcvq-eval[backbones]'"
        ) from error
    network: nn.Module = timm.create_model(architecture, pretrained=False, num_classes=n_outputs, img_size=side)
    try:
        timm.models.load_checkpoint(network, str(weights), filter_fn=checkpoint_filter_fn, weights_only=True)
    except Exception as error:  # every reader of a damaged or foreign file raises something else
        raise ValueError(
            f"{weights} does not hold {architecture} ({type(error).__name__}: {' '.join(str(error).split())[:80]})"
        ) from error
    return network
