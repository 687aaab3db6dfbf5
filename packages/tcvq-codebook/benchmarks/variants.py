"""What initialisation, update rule, revival and the other options do to codes fitted to frozen latents.

    python benchmarks/variants.py                                                  # clustered synthetic latents
    python benchmarks/variants.py --latents z.safetensors --codes 512 --json variants.json

Latents are one array (T, S, D, H, W), in a ``.npy``, ``.pt`` or ``.safetensors`` file (there as ``z``, unless it is the
only tensor). Those of a trained run: ``python tools/dump_latents.py RUN z.safetensors``, which is in essence

    z = torch.cat([load_vqvae(folder.vqvae).model.latents(x) for x in images.split(200)], dim=1)

Every variant sees the same batches of sites, then codes all latents once. Columns: bits per site, codes in use, their
perplexity, and the relative error Σ‖z − z_q‖² / Σ‖z‖².

With frozen latents the estimator cannot matter: no gradient passes it. The two ``maps`` variants therefore put a linear
map D → D before the codebook and one after it, both shared by all steps, and train them with it to reconstruct the
latents; their error is that of the reconstruction, as is that of the factorised variant, which has maps of its own.
``cosine`` codes directions: its error is that of latents at unit length.
"""

import argparse
import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange
from penalties import entropy_loss, orthogonality_loss
from torch import Tensor, nn

from tcvq_codebook import (
    FactorisedCodebook,
    TemporalCodebook,
    VanillaCodebook,
    code_counts,
    perplexity,
    used_fraction,
)
from tcvq_codebook.container import read_container


class Mapped(nn.Module):
    """A codebook between two linear maps that start as the identity."""

    def __init__(self, n_embed: int, embed_dim: int, n_steps: int, **options: Any) -> None:
        super().__init__()
        self.inner = TemporalCodebook(n_embed, embed_dim, n_steps, **options)
        self.before, self.after = nn.Linear(embed_dim, embed_dim), nn.Linear(embed_dim, embed_dim)
        for linear in (self.before, self.after):
            nn.init.eye_(linear.weight)
            nn.init.zeros_(linear.bias)

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return reconstruction, loss and indices."""
        out = self.inner(self.before(z.movedim(2, -1)).movedim(-1, 2))
        return self.after(out.z_q.movedim(2, -1)).movedim(-1, 2), out.loss, out.indices

    def revive(self, z: Tensor) -> Tensor:
        """Revive in the space of the codes."""
        return self.inner.revive(self.before(z.movedim(2, -1)).movedim(-1, 2))


@dataclass(frozen=True, kw_only=True)
class Variant:
    """One row of the table.

    Attributes:
        build: Makes the module from K, D and T.
        revive: Whether dead codes restart from data.
        penalty: Added to the loss, a function of latents and module.
        vanilla: Whether every step has an index of its own.
    """

    build: Callable[[int, int, int], nn.Module]
    revive: bool = False
    penalty: Callable[[Tensor, nn.Module], Tensor] | None = None
    vanilla: bool = False


def temporal(**options: Any) -> Callable[[int, int, int], nn.Module]:
    """Return what builds a temporal codebook with these options."""
    return partial(TemporalCodebook, **options)


def entropy(z: Tensor, module: nn.Module) -> Tensor:
    """Return 0.1 times the entropy penalty."""
    return 0.1 * entropy_loss(z, module.codebook)


def orthogonality(z: Tensor, module: nn.Module) -> Tensor:
    """Return 10 times the orthogonality penalty, the weight its authors use."""
    return 10 * orthogonality_loss(module.codebook)


VARIANTS: dict[str, Variant] = {
    "uniform + gradient (paper)": Variant(build=temporal(init="uniform")),
    "uniform + gradient + entropy": Variant(build=temporal(init="uniform"), penalty=entropy),
    "uniform + gradient + orthogonality": Variant(build=temporal(init="uniform"), penalty=orthogonality),
    "uniform + gradient + revival": Variant(build=temporal(init="uniform"), revive=True),
    "uniform + EMA": Variant(build=temporal(init="uniform", update="ema")),
    "uniform + EMA + revival": Variant(build=temporal(init="uniform", update="ema"), revive=True),
    "data + gradient": Variant(build=temporal(init="data")),
    "k-means + gradient": Variant(build=temporal()),
    "k-means + gradient + revival (default)": Variant(build=temporal(), revive=True),
    "k-means + EMA": Variant(build=temporal(update="ema")),
    "k-means + EMA + revival": Variant(build=temporal(update="ema"), revive=True),
    "k-means + gradient + entropy": Variant(build=temporal(), penalty=entropy),
    "k-means + gradient + orthogonality": Variant(build=temporal(), penalty=orthogonality),
    "cosine + revival": Variant(build=temporal(similarity="cosine"), revive=True),
    "factorised + revival": Variant(build=FactorisedCodebook, revive=True),
    "maps, straight-through + revival": Variant(build=Mapped, revive=True),
    "maps, rotation trick + revival": Variant(build=partial(Mapped, estimator="rotation"), revive=True),
    "maps, rotation trick": Variant(build=partial(Mapped, estimator="rotation")),
    "vanilla + revival": Variant(build=lambda k, d, t: VanillaCodebook(k, d), revive=True, vanilla=True),
}


def read_latents(path: Path) -> Tensor:
    """Read (T, S, D, H, W) latents and return one site per sample, (T, N, D, 1, 1)."""
    if path.suffix == ".npy":
        z = torch.from_numpy(np.load(path))
    elif path.suffix == ".pt":
        z = torch.load(path, weights_only=True)
    else:
        tensors = read_container(path).tensors
        z = tensors["z"] if "z" in tensors else next(iter(tensors.values()))
    if z.ndim != 5:
        raise SystemExit(f"{path} holds an array {tuple(z.shape)}; latents are (T, S, D, H, W)")
    return rearrange(z.float(), "t s d h w -> t (s h w) d 1 1").contiguous()


def synthetic(n: int = 2**14, n_clusters: int = 800, n_steps: int = 4, width: int = 32) -> Tensor:
    """Return sites (T, n, D, 1, 1) around clusters of very different size, with an offset shared by all."""
    draw = torch.Generator().manual_seed(0)
    centres = 2 + torch.randn(n_clusters, n_steps, width, generator=draw)
    share = 1 / torch.arange(1.0, n_clusters + 1)
    z = centres[torch.multinomial(share, n, replacement=True, generator=draw)]
    z = z + 0.3 * torch.randn(z.shape, generator=draw)
    return rearrange(z, "n t d -> t n d 1 1").contiguous()


def result_of(module: nn.Module, z: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return quantized latents or their reconstruction, loss and indices."""
    out = module(z)
    return out if isinstance(out, tuple) else (out.z_q, out.loss, out.indices)


def forget(optimizer: torch.optim.Optimizer, parameter: Tensor, rows: Tensor) -> None:
    """Zero the optimizer's moments of revived entries."""
    for moment in optimizer.state.get(parameter, {}).values():
        if moment.shape == parameter.shape:
            moment[rows] = 0


def codebook_of(module: nn.Module) -> TemporalCodebook:
    """Return the temporal codebook inside a variant."""
    return next(part for part in module.modules() if isinstance(part, TemporalCodebook))


def fit(variant: Variant, z: Tensor, args: argparse.Namespace) -> nn.Module:
    """Train a variant on random batches of sites; the same batches for every variant."""
    torch.manual_seed(args.seed)
    module = variant.build(args.codes, z.shape[2], z.shape[0])
    inner, draw = codebook_of(module), torch.Generator().manual_seed(args.seed)
    parameters = list(module.parameters())
    optimizer = torch.optim.Adam(parameters, lr=args.rate) if parameters else None
    for step in range(1, args.steps + 1):
        batch = z[:, torch.randint(z.shape[1], (args.batch,), generator=draw)]
        z_q, loss, _ = result_of(module, batch)
        loss = loss + F.mse_loss(z_q, batch)  # reaches maps only: straight-through stops before the entries
        if variant.penalty is not None:
            loss = loss + variant.penalty(batch, module)
        if optimizer is not None:
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        if variant.revive and step % args.revive_every == 0 and step < args.steps:
            dead = module.revive(batch)
            if optimizer is not None:
                forget(optimizer, inner.codebook, dead)
    return module.eval()


@torch.no_grad()
def assess(variant: Variant, module: nn.Module, z: Tensor) -> dict[str, float]:
    """Code all latents and return the columns of the table."""
    results = [result_of(module, part) for part in z.split(4096, dim=1)]
    z_q = torch.cat([found[0] for found in results], 1)
    n_embed = codebook_of(module).n_embed
    counts = sum(code_counts(found[2], n_embed) for found in results)
    if codebook_of(module).config.similarity == "cosine":
        z = z / z.square().sum((0, 2), keepdim=True).sqrt()
    return {
        "bits": math.log2(n_embed) * (z.shape[0] if variant.vanilla else 1),
        "used": used_fraction(counts).item(),
        "perplexity": perplexity(counts).item(),
        "relative_error": ((z_q - z).square().sum() / z.square().sum()).item(),
    }


def main() -> None:
    """Print one line per variant."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--latents", type=Path, help="frozen latents; synthetic ones by default")
    sizes = {"codes": 512, "steps": 600, "batch": 2048, "revive-every": 50, "rate": 1e-3, "seed": 0, "threads": 1}
    for name, default in sizes.items():
        parser.add_argument(f"--{name}", type=type(default), default=default)
    parser.add_argument("--only", nargs="*", help="variants whose name holds one of these words")
    parser.add_argument("--json", type=Path, help="also write the numbers to this file")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    z = read_latents(args.latents) if args.latents else synthetic()
    setting = {name: str(value) for name, value in vars(args).items() if name not in ("json", "only")}
    print(f"T={z.shape[0]} D={z.shape[2]} sites={z.shape[1]}", *(f"{name}={value}" for name, value in setting.items()))
    rows = {}
    for name, variant in VARIANTS.items():
        if args.only and not any(word in name for word in args.only):
            continue
        rows[name] = row = assess(variant, fit(variant, z, args), z)
        print(
            f"{name:40} {row['bits']:5.1f} bits  used {row['used']:6.1%}  perplexity {row['perplexity']:7.1f}"
            f"  relative error {row['relative_error']:.4f}",
            flush=True,
        )
    if args.json is not None:
        tree = {"setting": setting, "latents": list(z.shape), "torch": torch.__version__, "variants": rows}
        args.json.write_text(json.dumps(tree, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
