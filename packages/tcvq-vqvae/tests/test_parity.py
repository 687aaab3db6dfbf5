"""Twenty steps of training against a plain implementation: every step of the SNN by itself, distances in full.

Nothing of ours is used below but the starting weights: neurons keep a voltage in a dictionary, the codebook compares
each site with each entry, and both networks are trained with torch's Adam as a reader of the paper would write it.
"""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from tcvq_vqvae import LitVQVAE, LossConfig, Stage1Config, VQVAEConfig, conv

pytestmark = pytest.mark.slow  # all of them together
STEPS, DISC_START = 20, 8
SIZES = {
    "image_size": 8,
    "n_steps": 3,
    "width": 8,
    "channel_mult": (1, 2),
    "n_res_blocks": 1,
    "attn_resolutions": (4,),
    "z_channels": 8,
    "n_embed": 12,
    "embed_dim": 4,
    "codebook_init": "uniform",
}
CASES = {
    "images": (SIZES, {}),
    "released code": (
        {**SIZES, "upsample": "nearest", "legacy_beta": True},
        {"pixel": "l2", "disc_loss": "vanilla", "disc_warmup": 3},
    ),
    "events": ({**SIZES, "in_channels": 2, "encoding": "event", "decoding": "event"}, {"disc_norm": "none"}),
}


class Spike(torch.autograd.Function):
    """1 above the threshold; the derivative is the triangle 2 − 4|u| where it is positive."""

    @staticmethod
    def forward(ctx, u):
        ctx.save_for_backward(u)
        return (u > 0).to(u)

    @staticmethod
    def backward(ctx, grad):
        (u,) = ctx.saved_tensors
        return grad * (2 - 4 * u.abs()).clamp(min=0)


class Step:
    """One step of one forward pass: layers by name, voltages from the step before."""

    def __init__(self, weights, voltages):
        self.weights, self.voltages = weights, voltages

    def spikes(self, name, x):
        v = self.voltages.get(name, torch.zeros_like(x))
        h = v + (x - v) / 2
        s = Spike.apply(h - 0.5)
        self.voltages[name] = h * (1 - s.detach())
        return s

    def gate(self, name, x):
        return x * self.spikes(name, x)

    def conv(self, name, x, **options):
        return F.conv2d(x, self.weights[f"{name}.weight"], self.weights[f"{name}.bias"], **options)

    def norm(self, name, x):
        groups = math.gcd(32, x.shape[1])
        return F.group_norm(x, groups, self.weights[f"{name}.weight"], self.weights[f"{name}.bias"], eps=1e-6)

    def block(self, name, x):
        h = self.conv(f"{name}.conv1", self.gate(f"{name}.1", self.norm(f"{name}.norm1", x)), padding=1)
        h = self.conv(f"{name}.conv2", self.gate(f"{name}.2", self.norm(f"{name}.norm2", h)), padding=1)
        return (self.conv(f"{name}.shortcut", x) if f"{name}.shortcut.weight" in self.weights else x) + h

    def attention(self, name, x):
        h = self.norm(f"{name}.norm", x)
        q = self.spikes(f"{name}.q", self.conv(f"{name}.q", h)).flatten(2)
        k = self.spikes(f"{name}.k", self.conv(f"{name}.k", h)).flatten(2)
        v = self.conv(f"{name}.v", h).flatten(2)
        y = torch.einsum("bci,bcj,bdj->bdi", q, k, v) * x.shape[1] ** -0.5
        return x + self.conv(f"{name}.proj", y.view_as(x))

    def level(self, name, x, n_blocks):
        for i in range(n_blocks):
            x = self.block(f"{name}.blocks.{i}", x)
            if f"{name}.attns.{i}.q.weight" in self.weights:
                x = self.attention(f"{name}.attns.{i}", x)
        return x

    def middle(self, name, x):
        return self.block(f"{name}.block2", self.attention(f"{name}.attn", self.block(f"{name}.block1", x)))

    def encode(self, x):
        h = self.level("encoder.levels.0", self.conv("encoder.conv_in", x, padding=1), 1)
        h = self.conv("encoder.levels.0.resample.conv", F.pad(h, (0, 1, 0, 1)), stride=2)
        h = self.middle("encoder.mid", self.level("encoder.levels.1", h, 1))
        h = self.gate("encoder.out", self.norm("encoder.norm_out", h))
        return self.conv("quant_conv", self.conv("encoder.conv_out", h, padding=1))

    def decode(self, z):
        h = self.middle("decoder.mid", self.conv("decoder.conv_in", self.conv("post_quant_conv", z), padding=1))
        h, name = self.level("decoder.levels.0", h, 2), "decoder.levels.0.resample.conv"
        if self.weights[f"{name}.weight"].shape[2] == 4:
            h = F.conv_transpose2d(h, self.weights[f"{name}.weight"], self.weights[f"{name}.bias"], stride=2, padding=1)
        else:
            h = self.conv(name, F.interpolate(h, scale_factor=2.0, mode="nearest"), padding=1)
        h = self.level("decoder.levels.1", h, 2)
        return self.conv("decoder.conv_out", self.gate("decoder.out", self.norm("decoder.norm_out", h)), padding=1)


def quantize(z, codes, config):
    """Return entries with a straight-through gradient, and the loss; z is (T, B, D, h, w)."""
    sites = z.permute(1, 3, 4, 0, 2).flatten(0, 2).flatten(1)  # (N, T·D)
    nearest = (sites[:, None] - codes.flatten(1)[None]).square().sum(2).argmin(1)
    e = codes.flatten(1)[nearest]
    learn, commit = (sites.detach() - e).square().mean(), (sites - e.detach()).square().mean()
    loss = 0.25 * learn + commit if config.legacy_beta else learn + 0.25 * commit
    through = (sites + (e - sites).detach()).view(z.shape[1], *z.shape[3:], z.shape[0], z.shape[2])
    return through.permute(3, 0, 4, 1, 2), loss


def autoencode(weights, x, config):
    voltages, events = {}, x.dim() == 5
    frames = list(x) if events else [x] * config.n_steps
    z = torch.stack([Step(weights, voltages).encode(frame) for frame in frames])
    z_q, loss = quantize(z, weights["codebook.codebook"], config)
    voltages = {}
    out = torch.stack([Step(weights, voltages).decode(step) for step in z_q])
    return (out if events else out.mean(0)), loss


def judge(d, x):
    x = x.flatten(0, 1) if x.dim() == 5 else x
    h = F.leaky_relu(F.conv2d(x, d["layers.0.weight"], d["layers.0.bias"], stride=2, padding=1), 0.2)
    h = F.conv2d(h, d["layers.2.weight"], d.get("layers.2.bias"), padding=1)
    if "layers.3.weight" in d:
        h = F.batch_norm(h, None, None, d["layers.3.weight"], d["layers.3.bias"], training=True)
    return F.conv2d(F.leaky_relu(h, 0.2), d["layers.5.weight"], d["layers.5.bias"], padding=1)


def plain_training(module, batches, learning_rate):
    """Return the terms of every step."""
    config, loss = module.model.config, module.objective.loss
    weights, d = (
        {name: nn.Parameter(p.detach().clone().double()) for name, p in part.named_parameters()}
        for part in (module.model, module.discriminator)
    )
    adam, adam_d = (torch.optim.Adam(w.values(), lr=learning_rate, betas=(0.5, 0.9)) for w in (weights, d))
    log = []
    for step, x in enumerate(batches):
        x_hat, vq = autoencode(weights, x, config)
        rec = (x - x_hat).abs().mean() if loss.pixel == "l1" else (x - x_hat).square().mean()
        total, terms = rec + vq, {loss.pixel: rec, "codebook": vq}
        if step >= DISC_START + loss.disc_warmup:
            generator = -judge(d, x_hat).mean()
            last = weights["decoder.conv_out.weight"]
            norms = [torch.autograd.grad(part, last, retain_graph=True)[0].norm() for part in (rec, generator)]
            weight = 0.8 * (norms[0] / (norms[1] + 1e-4)).clamp(0, 1e4).detach()
            total = total + weight * generator
            terms |= {"generator": generator, "adaptive_weight": weight}
        adam.zero_grad()
        total.backward()
        adam.step()
        if step >= DISC_START:
            real, fake = judge(d, x), judge(d, x_hat.detach())
            if loss.disc_loss == "hinge":
                objective = 0.5 * (F.relu(1 - real).mean() + F.relu(1 + fake).mean())
            else:
                objective = 0.5 * (-F.logsigmoid(real).mean() - F.logsigmoid(-fake).mean())
            adam_d.zero_grad()
            objective.backward()
            adam_d.step()
            terms["discriminator"] = objective
        log.append({name: term.item() for name, term in {**terms, "loss": total}.items()})
    return log


class Logged(LitVQVAE):
    """Keeps the terms of every step."""

    seen = ()

    def log_dict(self, dictionary, *args, **kwargs):
        self.seen = (*self.seen, {name.removeprefix("train/"): value.item() for name, value in dictionary.items()})


@pytest.mark.parametrize("case", CASES)
def test_twenty_steps_equal_the_plain_implementation(case, fit, monkeypatch):
    sizes, options = CASES[case]
    if case == "images":  # the others take torch's convolutions
        monkeypatch.setattr(conv, "SITES", 16)
        monkeypatch.setattr(conv, "WEIGHTS", 1)
    config = VQVAEConfig(**sizes)
    train = Stage1Config(max_steps=STEPS, batch_size=3, learning_rate=2e-3, revive_every=0)
    loss = LossConfig(disc_start=DISC_START, disc_width=8, disc_layers=1, **options)
    module = Logged(config, loss, train)
    module.model.codebook.assign(torch.randn(12, 3, 4) * 0.3)
    shape = (3, 3, 2, 8, 8) if config.encoding == "event" else (3, 1, 8, 8)
    batches = [torch.rand(shape, dtype=torch.float64) * 2 - 1 for _ in range(STEPS)]
    expected = plain_training(module, batches, 2e-3)
    fit(module, *(x.transpose(0, 1) if x.dim() == 5 else x for x in batches), precision="64-true")
    assert len(module.seen) == STEPS
    for step, terms in enumerate(expected):
        for name, value in terms.items():
            assert module.seen[step][name] == pytest.approx(value, rel=1e-8), f"{name} at step {step}"
    assert expected[-1].keys() - expected[0].keys() == {"generator", "adaptive_weight", "discriminator"}
