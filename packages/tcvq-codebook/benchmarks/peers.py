"""One training step, forward and backward, against vector-quantize-pytorch on the same trajectories.

    python benchmarks/peers.py                                          # N = 2,048, K = 1,024, T = 4, D = 256

The peer is `VectorQuantize` with its Euclidean codebook, which takes flattened trajectories (1, N, T·D). It is timed
doing the same work as ours, from latents (T, B, D, H, W) to quantized latents of that shape, and also without what
flattening there and back costs. Both learn by moving averages with the same decay, ε and commitment weight, use the
straight-through estimator, revive nothing, and start from the same entries with a count of 1. Before anything is timed,
several batches must give both the same indices, and the same entries up to rounding, or the benchmark stops.
Repetitions take turns and medians count; ratios are relative to `TemporalCodebook`.
"""

import argparse
from collections.abc import Callable
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch
from einops import rearrange
from measure import Call, measure, table, write_json
from torch import Tensor, nn

from tcvq_codebook import TemporalCodebook

Quantize = Callable[[Tensor], tuple[Tensor, Tensor]]
PEER = "vector-quantize-pytorch"
CHECKED_BATCHES = 3


def latents(codes: Tensor, sites: int, side: int, seed: int) -> Tensor:
    """Return latents (T, B, D, side, side) scattered around entries (K, T, D)."""
    draw = torch.Generator().manual_seed(seed)
    pick = torch.randint(len(codes), (sites,), generator=draw)
    z = codes[pick] + 0.5 * torch.randn(sites, *codes.shape[1:], generator=draw)
    return rearrange(z, "(b h w) t d -> t b d h w", h=side, w=side).contiguous()


def flat(z: Tensor) -> Tensor:
    """Return latents as the peer takes them, (1, N, T·D)."""
    return rearrange(z, "t b d h w -> 1 (b h w) (t d)").contiguous()


def build_peer(codes: Tensor, args: argparse.Namespace) -> nn.Module:
    """Return the peer's module with these entries."""
    from vector_quantize_pytorch import VectorQuantize

    peer = VectorQuantize(
        dim=codes[0].numel(),
        codebook_size=len(codes),
        decay=args.decay,
        eps=args.eps,
        commitment_weight=args.beta,
        rotation_trick=False,
        threshold_ema_dead_code=0,
    ).to(codes.device)
    state = peer._codebook
    state.embed.copy_(codes.flatten(1)[None])
    state.embed_avg.copy_(codes.flatten(1)[None])
    state.cluster_size.fill_(1)
    return peer.train()


def check(ours: TemporalCodebook, peer: nn.Module, batches: list[Tensor]) -> None:
    """Stop unless both choose the same entries in every batch and end with the same entries up to rounding."""
    for number, z in enumerate(batches):
        same = ours(z).indices.flatten() == peer(flat(z))[1].flatten()
        if not same.all():
            raise SystemExit(f"batch {number}: {int((~same).sum())} of {len(same)} indices differ; nothing was timed")
    torch.testing.assert_close(ours.codebook.flatten(1), peer._codebook.embed[0], rtol=1e-4, atol=1e-4)


def step_of(quantize: Quantize, z: Tensor) -> Call:
    """Return a function that does one forward and backward."""
    weight = torch.randn_like(z)

    def step() -> None:
        z_q, loss = quantize(z.detach().requires_grad_())
        ((z_q * weight).sum() + loss).backward()

    return step


def ours_on(codebook: TemporalCodebook, z: Tensor) -> tuple[Tensor, Tensor]:
    """Return quantized latents and loss."""
    out = codebook(z)
    return out.z_q, out.loss


def peer_on(peer: nn.Module, z: Tensor) -> tuple[Tensor, Tensor]:
    """Return quantized latents (T, B, D, H, W) and loss."""
    t, b, _, h, w = z.shape
    z_q, _, loss = peer(flat(z))
    return rearrange(z_q, "1 (b h w) (t d) -> t b d h w", t=t, b=b, h=h, w=w).contiguous(), loss.sum()


def peer_on_flat(peer: nn.Module, z: Tensor) -> tuple[Tensor, Tensor]:
    """Return quantized flattened trajectories (1, N, T·D) and loss."""
    z_q, _, loss = peer(z)
    return z_q, loss.sum()


def main() -> None:
    """Print one line per library."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    sizes = {"threads": 1, "sites": 2048, "side": 8, "codes": 1024, "steps": 4, "dim": 256, "repeats": 7}
    for name, default in (sizes | {"decay": 0.99, "eps": 1e-5, "beta": 0.25}).items():
        parser.add_argument(f"--{name}", type=type(default), default=default)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--json", type=Path, help="also write the numbers to this file")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    device = torch.device(args.device)
    codes = torch.randn(args.codes, args.steps, args.dim)
    batches = [latents(codes, args.sites, args.side, seed).to(device) for seed in range(CHECKED_BATCHES)]
    ours = TemporalCodebook(
        args.codes, args.dim, args.steps, update="ema", decay=args.decay, eps=args.eps, beta=args.beta
    ).to(device)
    ours.assign(codes.to(device))
    calls = {"tcvq-codebook": step_of(partial(ours_on, ours), batches[0])}
    try:
        name = f"{PEER} {version(PEER)}"
        peer = build_peer(codes.to(device), args)
        check(ours, peer, batches)
        calls[name] = step_of(partial(peer_on, peer), batches[0])
        calls["the same, flattened for it"] = step_of(partial(peer_on_flat, peer), flat(batches[0]))
    except PackageNotFoundError:
        print(f"{PEER} is not installed and so not compared; pip install {PEER}")
    setting = {name: value for name, value in vars(args).items() if name != "json"}
    print(" ".join(f"{name}={value}" for name, value in setting.items()), f"torch={torch.__version__}")
    results = measure(calls, dict.fromkeys(calls, args.repeats), device)
    notes = dict.fromkeys(list(calls)[1:], "same indices")
    print(table(results, notes))
    write_json(args.json, setting, results, notes)


if __name__ == "__main__":
    main()
