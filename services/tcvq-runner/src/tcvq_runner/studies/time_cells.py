"""`tcvq study time-cells`: do the entries of a codebook fire in an order of their own, and more so than by chance?"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import torch
from jaxtyping import Float, Int
from torch import Tensor

from tcvq_codebook import TemporalCodebook, principal_paths, temporal_profile, unit_activity
from tcvq_data import ImageSource, read_batch
from tcvq_eval import Headline, Table, TimeCellPanels, TimeCells, evaluate_time_cells, time_cell_figure
from tcvq_runner.config import Recipe
from tcvq_runner.progress import Reporter
from tcvq_runner.recipe import ConfigError
from tcvq_runner.run_dir import RunFolder
from tcvq_runner.studies.result import Study, StudyFigure
from tcvq_runner.wiring import Compute, open_split, stage_seed
from tcvq_vqvae import SpikingVQVAE, VQVAEConfig, load_vqvae

N_IMAGES = 2000
MIN_SITES = 8  # in each half, below which the mean latent of a code says nothing
_KMEANS_BATCHES = 8


@dataclass(frozen=True, kw_only=True, slots=True)
class Population:
    """The codes of one network as units over time.

    Attributes:
        halves: Mean latent of each used code over either half of the images, each coordinate a unit.
        counts: Use of each code.
        codebook: The entries.
        error: Mean squared quantisation error per element at each step.
        order: Cross-validated order of the units.
        variance_share: ρ of the entries, weighted by use.
    """

    halves: tuple[Float[Tensor, "U T"], Float[Tensor, "U T"]]
    counts: Int[Tensor, " K"]
    codebook: Float[Tensor, "K T D"]
    error: Float[Tensor, " T"]
    order: TimeCells
    variance_share: float


def time_cells(folder: RunFolder, recipe: Recipe, compute: Compute, reporter: Reporter) -> Study:
    """Measure the order of a run's codes in time, beside permuted steps and a network with random weights.

    Raises as `populations`.
    """
    with reporter.task("time cells", 2, "network") as task:
        return _study(folder.path, *populations(folder, recipe, compute, done=task.update))


def populations(
    folder: RunFolder,
    recipe: Recipe,
    compute: Compute,
    *,
    limit: int = N_IMAGES,
    done: Callable[[int], None] = lambda _: None,
) -> tuple[Population, Population]:
    """Return the codes of a run as units over time, and those of the same network with random weights.

    Raises:
        RunFolderError: The VQ-VAE is missing.
        ConfigError: The codebook is not temporal, or has a single step.
        ArtifactError: The VQ-VAE is damaged.
    """
    trained = load_vqvae(folder.need(folder.vqvae)).model
    if not isinstance(trained.codebook, TemporalCodebook) or trained.config.n_steps < 2:
        raise ConfigError(
            f"time cells need a temporal codebook of at least 2 steps; {folder.path} has codebook "
            f"{type(trained.codebook).__name__} and n_steps {trained.config.n_steps}"
        )
    source = open_split(recipe, "test")
    images = _Images(source, min(limit, len(source)), recipe.eval.batch_size, compute)
    random = _untrained(trained.config, images, seed=stage_seed(recipe.seed, "time-cells"))
    ours = _population(trained.to(compute.device), images)
    done(1)
    control = _population(random, images)
    done(2)
    return ours, control


@dataclass(frozen=True, slots=True)
class _Images:
    """The first n images of a dataset in batches of one size, recordings with time first."""

    source: ImageSource
    n: int
    size: int
    compute: Compute

    def __iter__(self) -> Iterator[Tensor]:
        for first in range(0, self.n - self.n % self.size or self.n, self.size):
            rows = list(range(first, min(first + self.size, self.n)))
            images = read_batch(self.source, rows).image.to(self.compute.device)
            yield images.transpose(0, 1) if images.ndim == 5 else images


@torch.no_grad()
def _untrained(config: VQVAEConfig, images: _Images, seed: int) -> SpikingVQVAE:
    """Return a network with random weights and the codebook that k-means finds for its latents."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = SpikingVQVAE(config).eval().to(images.compute.device)
        model.codebook.initialize(torch.cat([model.latents(x) for x in islice(images, _KMEANS_BATCHES)], dim=1))
    return model


@torch.no_grad()
def _population(model: SpikingVQVAE, images: _Images) -> Population:
    """Average the latents that fall to each code, over even and over odd images."""
    codebook = model.codebook.codebook.detach()
    n_embed, n_steps, width = codebook.shape
    sums = torch.zeros(2, n_embed, n_steps * width, dtype=torch.float64, device=codebook.device)
    counts = torch.zeros(2, n_embed, dtype=torch.float64, device=codebook.device)
    error, elements = torch.zeros(n_steps, dtype=torch.float64, device=codebook.device), 0
    for x in images:
        z = model.latents(x)
        indices = model.codebook.encode(z)
        error += (z - model.codebook.lookup(indices)).double().square().sum((1, 2, 3, 4))
        elements += z[0].numel()
        sites = z.permute(1, 3, 4, 0, 2).flatten(3).double()  # (B, h, w, T·D)
        for half in (0, 1):
            chosen = indices[half::2].flatten()
            sums[half].index_add_(0, chosen, sites[half::2].flatten(0, 2))
            counts[half] += torch.bincount(chosen, minlength=n_embed)
    used = (counts >= MIN_SITES).all(0)
    means = (sums / counts.clamp(min=1)[..., None])[:, used].unflatten(2, (n_steps, width)).cpu()
    first, second = (unit_activity(half) for half in means)
    total = counts.sum(0).long().cpu()
    return Population(
        halves=(first, second),
        counts=total,
        codebook=codebook.cpu(),
        error=(error / elements).cpu(),
        order=evaluate_time_cells(first, second),
        variance_share=temporal_profile(codebook.cpu(), total).variance_share.item(),
    )


def panels_of(ours: Population, control: Population) -> TimeCellPanels:
    """Return what the figure shows."""
    profile = temporal_profile(ours.codebook, ours.counts)
    by_use = ours.counts.argsort(descending=True)
    by_use = by_use[ours.counts[by_use] > 0]
    paths = principal_paths(ours.codebook, 2, counts=ours.counts)
    order = ours.order
    return TimeCellPanels(
        rasters={
            "trained codes": order.shown,
            "control: steps permuted": order.shown_null,
            "control: random weights": control.order.shown,
        },
        peak_counts=order.peak_counts,
        null_low=order.null_low,
        null_high=order.null_high,
        paths=paths.paths[by_use].float(),
        explained=paths.explained.tolist(),
        profiles={
            "quantisation error": ours.error.tolist(),
            "norm of an entry": (profile.norm / profile.norm.max()).tolist(),
            "step change": (profile.change / profile.norm.max()).tolist(),
        },
        variance_shares={"trained": ours.variance_share, "random weights": control.variance_share},
    )


def answer_of(ours: Population, control: Population) -> str:
    """Return the paragraph of numbers."""
    order = ours.order
    gap = order.agreement - control.order.agreement
    return (
        f"Trained network: {order.verdict}. A network with random weights: {control.order.verdict}. "
        f"The temporal variance share of the entries is {ours.variance_share:.3f}, of the random network's "
        f"{control.variance_share:.3f}. {_reading(ours.order, control.order)} Training changes the agreement by "
        f"{100 * gap:+.1f} points and the share by {ours.variance_share - control.variance_share:+.3f}. Units "
        f"that peak at steps 1 to {len(order.peak_counts)}: "
        f"{', '.join(map(str, order.peak_counts))}; permuted steps give "
        f"{min(order.null_low):.0f} to {max(order.null_high):.0f}."
    )


def _study(path: Path, ours: Population, control: Population) -> Study:
    order, panels = ours.order, panels_of(ours, control)
    rows = [
        _row("trained", ours),
        ["steps permuted", order.n_units, order.chance, order.chance_high, None, None, None],
        _row("random weights", control),
    ]
    columns = ("network", "units", "same peak step", "95 % of chance", "p", "above chance", "variance share")
    return Study(
        name="time-cells",
        title=f"Time cells of {path}",
        question="Do the codes fire at steps of their own, and more so than chance and than an untrained encoder?",
        answer=answer_of(ours, control),
        table=Table(columns=columns, rows=rows),
        figures=[
            StudyFigure(
                name="time-cells",
                alt="Sorted activity of the codes over time beside its controls; paths of the most used codes; profile",
                draw=lambda kind: time_cell_figure(panels, kind=kind),
                caption="A: units (one coordinate of one code) sorted by one half of the test images and shown by the "
                "other. Norm and step change in C are relative to the largest norm.",
            )
        ],
        headlines=[
            Headline(
                label="units with the same peak step in both halves",
                value=100 * order.agreement,
                digits=1,
                unit="%",
                reference=f"permuted {100 * order.chance:.1f} %, random weights {100 * control.order.agreement:.1f} %",
                better="higher",
            ),
            Headline(
                label="temporal variance share",
                value=ours.variance_share,
                digits=3,
                reference=f"random weights {control.variance_share:.3f}",
            ),
        ],
        metrics={name: numbers_of(found) for name, found in (("trained", ours), ("random_weights", control))},
        commands={"make this again": f"tcvq study time-cells {path}"},
    )


def _reading(ours: TimeCells, control: TimeCells) -> str:
    """Say what the comparison allows to conclude."""
    if not ours.above_chance:
        return "The codes have no order in time."
    if control.above_chance:
        return (
            "Order by itself is no finding of training: a network with random weights has it as well, from the "
            "transient of its neurons and from what moves in its input."
        )
    return "The order comes from training: random weights do not give it."


def _row(name: str, found: Population) -> list[object]:
    order = found.order
    chance = "yes" if order.above_chance else "no"
    return [name, order.n_units, order.agreement, order.chance_high, order.p_value, chance, found.variance_share]


def numbers_of(found: Population) -> dict[str, object]:
    """Return what was measured of one network, for a JSON file."""
    order = found.order
    return {
        "verdict": order.verdict,
        "agreement": order.agreement,
        "chance": order.chance,
        "p_value": order.p_value,
        "above_chance": order.above_chance,
        "peak_counts": list(order.peak_counts),
        "null_low": list(order.null_low),
        "null_high": list(order.null_high),
        "variance_share": found.variance_share,
        "error_per_step": found.error.tolist(),
        "codes_used": int((found.counts > 0).sum()),
    }
