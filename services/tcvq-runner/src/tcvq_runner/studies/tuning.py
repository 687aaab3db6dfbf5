"""A control for studies that destroy time: the same decoder, trained a little more on what it is going to see."""

import copy
import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from jaxtyping import Int
from torch import Tensor

from tcvq_codebook import time_operator
from tcvq_data import ImageSource
from tcvq_runner.batching import images_of
from tcvq_runner.config import Recipe
from tcvq_runner.wiring import Compute, stage_seed
from tcvq_vqvae import SpikingVQVAE


def tuned_decoder(
    model: SpikingVQVAE,
    source: ImageSource,
    codes: Int[Tensor, "N h w"],
    mode: str,
    *,
    steps: int,
    recipe: Recipe,
    compute: Compute,
    done: Callable[[int], None] = lambda _: None,
) -> SpikingVQVAE:
    """Return a copy of a network whose decoder was trained on sequences that a time operator has changed.

    Encoder and codebook stay as they are. The loss is mean|x - x̂|, the optimizer Adam with the recipe's rate, falling
    to zero along half a cosine; batches are the recipe's, in as many pieces. The same data in another mode
    differ by the mode alone.

    Args:
        model: The trained network.
        source: The training split.
        codes: Its codes, in its order.
        mode: A time operator, such as ``repeat``.
        steps: Batches.
        recipe: Batch size, its pieces, learning rate and seed.
        compute: Where to compute.
        done: Called with the number of batches done.
    """
    tuned, operator, config = copy.deepcopy(model), time_operator(mode), recipe.stage1
    learned = [*tuned.post_quant_conv.parameters(), *tuned.decoder.parameters()]
    tuned.requires_grad_(False)
    for parameter in learned:
        parameter.requires_grad_(True)
    optimizer = torch.optim.Adam(learned, config.lr, betas=config.betas)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    generator = torch.Generator().manual_seed(stage_seed(recipe.seed, "tuning"))
    size = min(config.batch_size, len(codes))
    per_epoch = len(codes) // size
    orders = torch.cat([torch.randperm(len(codes), generator=generator) for _ in range(math.ceil(steps / per_epoch))])
    mixed = compute.precision == "bf16-mixed"
    for step, rows in enumerate(orders.split(size)[:steps]):
        optimizer.zero_grad()
        for part in rows.split(-(-size // config.accumulate)):
            x = images_of(source, part).to(compute.device)
            with torch.autocast(compute.device.type, dtype=torch.bfloat16, enabled=mixed):
                z_q = operator(tuned.codebook.lookup(codes[part].to(compute.device)))
                loss = F.l1_loss(tuned.decode(z_q).float(), x)
            (loss * (len(part) / size)).backward()
        optimizer.step()
        schedule.step()
        done(step + 1)
    return tuned.requires_grad_(False)
