"""A toy video that one index per site describes, and one index per site and step does not: moving bumps.

    python examples/sine_trajectories.py [picture.png]

A site is a film of T = 8 frames of D = 16 pixels on a ring: a bump that starts anywhere and drifts either way, plus
noise. A temporal codebook of K entries spends log2 K bits per site, a vanilla one of K' entries T·log2 K'. Both are
fitted by k-means on the same films and measured on new ones. Since a prior saves bits where the T indices of a site
predict each other, their joint entropy is shown too: the least that any lossless code of them could spend.
"""

import math
import sys

import torch
from torch import Tensor

from tcvq_codebook import TemporalCodebook, VanillaCodebook

Curves = dict[str, list[tuple[float, float]]]  # (bits per site, relative error) by name
STEPS, WIDTH, SITES = 8, 16, 2**14
NOISE = 0.1
TEMPORAL, VANILLA = (4, 16, 64, 256, 1024), (2, 4, 8, 16, 32)  # entries


def films(n: int, seed: int) -> Tensor:
    """Return latents (T, n, D, 1, 1): bumps of height 1, random phase and speed, plus white noise."""
    draw = torch.Generator().manual_seed(seed)
    phase = 2 * math.pi * torch.rand(n, generator=draw)
    speed = 1.2 * torch.rand(n, generator=draw) - 0.6  # radians per step
    pixels = 2 * math.pi * torch.arange(WIDTH) / WIDTH
    position = phase + speed * torch.arange(STEPS)[:, None]  # (T, n)
    bumps = (3 * (pixels - position[..., None]).cos() - 3).exp()  # (T, n, D)
    return (bumps + NOISE * torch.randn(bumps.shape, generator=draw))[..., None, None]


def fit(codebook: TemporalCodebook | VanillaCodebook, z: Tensor) -> TemporalCodebook | VanillaCodebook:
    """Draw the entries by k-means."""
    torch.manual_seed(0)
    codebook.initialize(z)
    return codebook.eval()


def relative_error(z: Tensor, codebook: TemporalCodebook | VanillaCodebook) -> float:
    """Return mean‖z − z_q‖² / mean‖z − mean z‖²: 1 if every site gets the mean film."""
    return float((z - quantized(z, codebook)).square().mean() / z.var(1, correction=0).mean())


def quantized(z: Tensor, codebook: TemporalCodebook | VanillaCodebook) -> Tensor:
    """Return the entries that the sites get."""
    return codebook.lookup(codebook.encode(z)).detach()


def joint_entropy(indices: Tensor) -> float:
    """Return the entropy in bits of the T indices of a site taken together, from their frequencies (T, n)."""
    p = indices.flatten(1).unique(dim=1, return_counts=True)[1] / indices[0].numel()
    return float(torch.special.entr(p).sum() / math.log(2))


def rate_distortion(n: int = SITES) -> Curves:
    """Return (bits per site, relative error on new films) of every codebook."""
    train, test = films(n, seed=1), films(n // 4, seed=2)
    curves: Curves = {"temporal": [], "vanilla": [], "vanilla, joint entropy": []}
    for k in TEMPORAL:
        error = relative_error(test, fit(TemporalCodebook(k, WIDTH, STEPS), train))
        curves["temporal"].append((math.log2(k), error))
    for k in VANILLA:
        vanilla = fit(VanillaCodebook(k, WIDTH), train)
        error = relative_error(test, vanilla)
        curves["vanilla"].append((STEPS * math.log2(k), error))
        curves["vanilla, joint entropy"].append((joint_entropy(vanilla.encode(train)), error))
    return curves


def draw(path: str, curves: Curves) -> None:
    """Write the picture: three films and their two reconstructions at 8 bits per site, and the curves."""
    from matplotlib.figure import Figure

    train, test, shown = (films(n, seed) for n, seed in ((SITES, 1), (SITES // 4, 2), (4, 5)))
    coded = [fit(TemporalCodebook(256, WIDTH, STEPS), train), fit(VanillaCodebook(2, WIDTH), train)]
    rows = [shown, *(quantized(shown, codebook) for codebook in coded)]
    figure = Figure(figsize=(9, 3.4), layout="constrained")
    left, right = figure.subfigures(1, 2, width_ratios=[1, 1.25])
    for row, z, name in zip(left.subplots(3, 4), rows, ("film", "temporal", "vanilla"), strict=True):
        for i, axes in enumerate(row):
            axes.imshow(z[:, i, :, 0, 0], cmap="magma", vmin=0, vmax=1, aspect="auto")
            axes.set(xticks=[], yticks=[])
        row[0].set_ylabel(name)
    left.suptitle("8 bits per site: time ↓, pixels →", fontsize=10)
    axes = right.subplots()
    axes.axhline(float(NOISE**2 / test.var(1).mean()), color="gray", lw=1, label="share of the noise")
    for (name, points), style in zip(curves.items(), ("o-", "s-", "s:"), strict=True):
        axes.plot(*zip(*points, strict=True), style, label=name)
    axes.set(xlabel="bits per site", ylabel="relative error", title="new films")
    axes.set(yscale="log", yticks=[0.1, 0.2, 0.4, 0.8])
    axes.yaxis.set(major_formatter="{x:.1f}", minor_formatter="")
    axes.legend()
    axes.grid(alpha=0.3)
    figure.savefig(path, dpi=100, metadata={"Software": None})


def main() -> None:
    """Print the curves and write the picture."""
    curves = rate_distortion()
    for name, points in curves.items():
        print(f"{name:24}", *(f"{bits:5.1f} bits: {error:.3f}" for bits, error in points))  # noqa: T201
    draw(sys.argv[1] if len(sys.argv) > 1 else "codebook-sine.png", curves)


if __name__ == "__main__":
    main()
