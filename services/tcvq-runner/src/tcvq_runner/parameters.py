"""How many parameters the networks of a recipe have, beside those of the paper's released code.

The networks are built without memory for their weights, so that the largest recipe is counted in a moment.
"""

from collections.abc import Iterator

import torch

from tcvq_prior import build_prior
from tcvq_runner.config import Recipe
from tcvq_vqvae import PatchDiscriminator, SpikingVQVAE

# Measured on the released code with 3 channels and T = 4. Its decoder enlarges by repetition and a convolution with
# 3 x 3 weights; a transposed convolution with 4 x 4, as in the paper's tables, has 2.87 M more. Its prior has a table
# of 512 positions whatever the length of the sequence.
REFERENCE = {
    "encoder": 29.30e6,
    "decoder": 42.45e6,
    "1x1 convs": 0.13e6,
    "codebook": 1.05e6,
    "discriminator": 2.77e6,
    "prior": 304.9e6,
}


def parameter_counts(recipe: Recipe) -> dict[str, int]:
    """Return the number of trainable values in each part of a recipe's networks, in the order of `REFERENCE`."""
    config, loss = recipe.vqvae, recipe.loss
    with torch.device("meta"):
        model = SpikingVQVAE(config)
        features = torch.empty(config.n_embed, recipe.prior.code_features) if recipe.prior.code_features else None
        prior = build_prior(recipe.prior, features)
        channels = config.in_channels * (config.n_steps if loss.disc_input == "clip" else 1)
        judge = PatchDiscriminator(channels, loss.disc_width, loss.disc_layers) if loss.disc_weight else None
    return {
        "encoder": _count(model.encoder),
        "decoder": _count(model.decoder),
        "1x1 convs": _count(model.quant_conv) + _count(model.post_quant_conv),
        "codebook": _count(model.codebook),
        "discriminator": _count(judge),
        "prior": _count(prior),
    }


def parameter_lines(recipes: dict[str, Recipe]) -> Iterator[str]:
    """Yield a table in millions: one line per recipe, and the reference."""
    yield f"{'parameters, millions':<22}" + "".join(f"{part:>15}" for part in REFERENCE)
    for name, recipe in recipes.items():
        yield f"{name:<22}" + "".join(f"{n / 1e6:>15.2f}" for n in parameter_counts(recipe).values())
    yield f"{'released code':<22}" + "".join(f"{n / 1e6:>15.2f}" for n in REFERENCE.values())


def _count(module: torch.nn.Module | None) -> int:
    return sum(p.numel() for p in module.parameters()) if module is not None else 0
