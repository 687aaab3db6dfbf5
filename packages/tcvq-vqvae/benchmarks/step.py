"""Time of one training step's forward and backward, all SNN steps at once against one after another.

Run ``python step.py``; the two ways give the same gradients up to rounding, and the script says how close they are.
"""

import copy
import statistics
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tcvq_neurons import LIF, LIFGate, lif, lif_gate, merge_time
from tcvq_vqvae import SpikingVQVAE, VQVAEConfig

CONFIG = VQVAEConfig(
    image_size=28, width=24, channel_mult=(1, 2), n_res_blocks=1, attn_resolutions=(7,), z_channels=48, n_embed=512,
    embed_dim=32, space_to_depth=2, codebook_init="uniform",
)  # fmt: skip
BATCH, REPEATS = 32, 10


class SteppedNeuron(nn.Module):
    """A neuron that is called once per SNN step and keeps its membrane in between."""

    def __init__(self, gate: bool) -> None:
        super().__init__()
        self.neuron = lif_gate if gate else lif
        self.v: Tensor | None = None

    def forward(self, x_seq: Tensor) -> Tensor:
        """One step, ``(1, B, ...)``."""
        y_seq, self.v = self.neuron(x_seq, self.v)
        return y_seq


def stepped(model: SpikingVQVAE) -> SpikingVQVAE:
    """A copy with the same weights, whose neurons run step by step."""
    model = copy.deepcopy(model)
    for module in list(model.modules()):
        for name, child in module.named_children():
            if isinstance(child, LIF):
                setattr(module, name, SteppedNeuron(isinstance(child, LIFGate)))
    return model


def loop_forward(model: SpikingVQVAE, x: Tensor) -> Tensor:
    """The network as a Python loop over SNN steps."""
    for module in model.modules():
        if isinstance(module, SteppedNeuron):
            module.v = None
    z = torch.cat([merge_time(model.quant_conv, model.encoder(x[None])) for _ in range(model.config.n_steps)])
    quantized = model.codebook(z)
    y = torch.cat([model.decoder(merge_time(model.post_quant_conv, step[None])) for step in quantized.z_q])
    return F.l1_loss(y.mean(0), x) + quantized.loss


def merged_forward(model: SpikingVQVAE, x: Tensor) -> Tensor:
    """The network as it is."""
    out = model(x)
    return F.l1_loss(out.x_hat, x) + out.quantized.loss


def seconds(model: SpikingVQVAE, forward: Callable[[SpikingVQVAE, Tensor], Tensor], x: Tensor) -> float:
    """Median time of forward and backward, after one round of warm-up."""
    times = []
    for _ in range(REPEATS + 1):
        model.zero_grad()
        start = time.perf_counter()
        forward(model, x).backward()
        times.append(time.perf_counter() - start)
    return statistics.median(times[1:])


def main() -> None:
    """Print both times and how far the gradients are apart."""
    torch.manual_seed(0)
    merged, x = SpikingVQVAE(CONFIG), torch.rand(BATCH, 1, 28, 28) * 2 - 1
    loop = stepped(merged)
    at_once, in_turn = seconds(merged, merged_forward, x), seconds(loop, loop_forward, x)
    pairs = list(zip(merged.parameters(), loop.parameters(), strict=True))
    distance = sum((a.grad - b.grad).square().sum() for a, b in pairs) ** 0.5
    size = sum(a.grad.square().sum() for a, _ in pairs) ** 0.5
    print(f"{torch.get_num_threads()} threads, {BATCH} images of 28 px, T = {CONFIG.n_steps}")
    print(f"all steps at once {1e3 * at_once:7.1f} ms")
    print(f"step by step      {1e3 * in_turn:7.1f} ms   ratio {in_turn / at_once:.2f}")
    print(f"relative distance of the gradients {distance / size:.1e}")


if __name__ == "__main__":
    main()
