"""The time before the codebook has entries: whether a batch is quantized, and which latents become the first codes."""

from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor

from tcvq_vqvae.averaging import trained_codes
from tcvq_vqvae.model import SpikingVQVAE
from tcvq_vqvae.parallel import gather_batch, is_first, world_size

_STEPS = 8  # steps whose latents seed the codebook: enough sites for k-means, little memory


@dataclass(kw_only=True, slots=True)
class FirstCodes:
    """Keeps latents until there is one for every code and the unquantized start is over; then draws the codes.

    Attributes:
        unquantized_steps: Steps that bypass the codebook in any case.
        latents: What waits, ``(T, B, D, h, w)`` each; all that has to be saved to go on later.
    """

    unquantized_steps: int
    latents: list[Tensor] = field(default_factory=list)

    def drawn(self, model: SpikingVQVAE, step: int) -> bool:
        """Return whether the codebook is in use at this step and has entries."""
        return step >= self.unquantized_steps and trained_codes(model).is_initted()

    def draw(self, model: SpikingVQVAE, z: Float[Tensor, "T B D h w"], step: int) -> bool:
        """Keep or use the latents of a batch at a step where `drawn` is not true yet; return whether it is now."""
        if trained_codes(model).is_initted():
            return False
        if step >= self.unquantized_steps and self._enough(model):
            return self._initialize(model)
        if step >= self.unquantized_steps - _STEPS:
            self.latents.append(z.detach())
        return step >= self.unquantized_steps and self._enough(model) and self._initialize(model)

    def _enough(self, model: SpikingVQVAE) -> bool:
        return sum(z[0, :, 0].numel() for z in self.latents) * world_size() >= model.config.n_embed

    def _initialize(self, model: SpikingVQVAE) -> bool:
        whole = torch.cat([gather_batch(z) for z in self.latents], dim=1)  # in the order that one process has them
        model.codebook.initialize(whole if is_first() else whole[:, :0])
        self.latents.clear()
        return True
