"""The stage-1 objective: which terms there are, in which order, and what each is called in the log."""

from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor

from tcvq_vqvae.discriminator import PatchDiscriminator, pictures
from tcvq_vqvae.losses import (
    adaptive_weight,
    generator_loss,
    hinge_discriminator_loss,
    pixel_loss,
    vanilla_discriminator_loss,
)
from tcvq_vqvae.perceptual import Perceptual
from tcvq_vqvae.train_config import LossConfig

Terms = dict[str, Tensor]


@dataclass(frozen=True, kw_only=True, slots=True)
class Objective:
    """L_AE = L_rec + w_cb · L_vq + [from disc_start on] λ · L_G, with L_rec = pixel distance + w_p · LPIPS, and L_D.

    Every method puts the terms it computes into ``terms``, by the names they have in the log. Event frames
    ``(T, B, C, H, W)`` are folded into the batch: one L_rec, one λ and one L_D for all of them.

    Attributes:
        loss: Weights.
        discriminator: Judges pictures; None without adversarial term.
        perceptual: LPIPS; None where its weight is 0.
    """

    loss: LossConfig
    discriminator: PatchDiscriminator | None = field(repr=False)
    perceptual: Perceptual | None = field(repr=False)

    def reconstruction(
        self, x: Float[Tensor, "*batch C H W"], x_hat: Float[Tensor, "*batch C H W"], terms: Terms
    ) -> Float[Tensor, ""]:
        """L_rec."""
        loss = terms[self.loss.pixel] = pixel_loss(x_hat, x, self.loss.pixel)
        if self.perceptual is not None:
            terms["perceptual"] = self.perceptual(x, x_hat)
            loss = loss + self.loss.perceptual_weight * terms["perceptual"]
        return loss

    def adversarial(
        self,
        reconstruction: Float[Tensor, ""],
        x_hat: Float[Tensor, "*batch C H W"],
        last_layer: Float[Tensor, "*w"],
        terms: Terms,
        *,
        scale: float = 1.0,
    ) -> Float[Tensor, ""]:
        """λ·L_G with the discriminator frozen, or 0 for a batch whose λ is not finite (counted in the log).

        Args:
            reconstruction: L_rec.
            x_hat: The reconstruction, with gradient.
            last_layer: Weight of the decoder's last convolution.
            terms: Where the terms go.
            scale: See `adaptive_weight`.
        """
        assert self.discriminator is not None
        self.discriminator.requires_grad_(False)
        generator = generator_loss(self.discriminator(self._pictures(x_hat)))
        weight = self.loss.disc_weight * adaptive_weight(reconstruction, generator, last_layer, scale)
        finite = torch.isfinite(weight)
        terms["generator"] = generator
        terms["adaptive_weight"] = torch.nan_to_num(weight, nan=0.0, posinf=0.0)
        terms["adaptive_weight_dropped"] = 1.0 - finite.float()
        return weight * generator if finite else torch.zeros_like(generator)

    def discrimination(
        self, x: Float[Tensor, "*batch C H W"], x_hat: Float[Tensor, "*batch C H W"], terms: Terms
    ) -> Float[Tensor, ""]:
        """L_D of images and of their reconstructions, to which no gradient flows, with the discriminator unfrozen."""
        assert self.discriminator is not None
        self.discriminator.requires_grad_(True)
        real = self.discriminator(self._pictures(x))
        fake = self.discriminator(self._pictures(x_hat.detach()))
        distance = hinge_discriminator_loss if self.loss.disc_loss == "hinge" else vanilla_discriminator_loss
        terms["discriminator"] = distance(real, fake)
        terms["score_real"], terms["score_fake"] = real.mean(), fake.mean()
        return terms["discriminator"]

    def _pictures(self, x: Float[Tensor, "*batch C H W"]) -> Float[Tensor, "N C2 H W"]:
        return pictures(x, clips=self.loss.disc_input == "clip")
