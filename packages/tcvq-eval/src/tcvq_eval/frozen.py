"""Any network as a feature extractor: named, without gradient, and in evaluation mode whatever its parent does."""

import hashlib
from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor, nn

BATCH = 64


class Frozen(nn.Module):
    """A network that never trains: no gradient, and ``train()`` of a parent leaves it in evaluation mode."""

    def freeze(self) -> None:
        """Stop gradients and enter evaluation mode; call it at the end of ``__init__``."""
        self.requires_grad_(False)
        self.train(False)

    def train(self, mode: bool = True) -> "Frozen":
        """Stay in evaluation mode whatever a parent module asks for."""
        del mode
        return super().train(False)


def state_sha256(module: nn.Module) -> str:
    """Return a hash of all parameters and buffers of a network, by name."""
    digest = hashlib.sha256()
    for name, value in sorted(module.state_dict().items()):
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


class ModuleFeatures(Frozen):
    """A network of your own as a feature extractor, for images or for clips.

    Args:
        network: Maps ``(B, *shape)`` in [-1, 1] to ``(B, F)``; it is put into evaluation mode for good.
        name: Name in fingerprints; ``name/version`` is a good form.
        num_features: Its width F.
        logits: Maps the features to class scores, for the Inception Score and class agreement; None if there are none.
        layer: Which layer the features are, for the fingerprint.
        resize: How the network resizes, for the fingerprint.
        batch: Items computed at once.
    """

    def __init__(
        self,
        network: nn.Module,
        *,
        name: str,
        num_features: int,
        logits: Callable[[Tensor], Tensor] | None = None,
        layer: str = "",
        resize: str = "none",
        batch: int = BATCH,
    ) -> None:
        super().__init__()
        self.network, self.name, self.num_features = network, name, num_features
        self.layer, self.resize, self.batch = layer, resize, batch
        if logits is not None:
            self.logits_of = torch.no_grad()(logits)
        self.freeze()

    @property
    def weights_sha256(self) -> str:
        """Hash of the network's parameters and buffers."""
        return state_sha256(self.network)

    @torch.no_grad()
    def forward(self, images: Float[Tensor, "N *shape"]) -> Float[Tensor, "N F"]:
        """Return the features of each image, float32."""
        return torch.cat([self.network(part).float() for part in images.split(self.batch)])
