"""The studies that train: which arms they compare, and what their numbers say."""

import dataclasses
import math
import statistics
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from tcvq_eval import Bars, Headline, Picture, Table, event_strips, image_grid, variants_plot
from tcvq_runner.batching import in_batches, tensors
from tcvq_runner.progress import Reporter, open_reporter
from tcvq_runner.recipe import ConfigError, load_recipe
from tcvq_runner.session import ComputeOptions
from tcvq_runner.studies.measures import Measures, batch_first, drawn_indices, measure_run
from tcvq_runner.studies.result import Study, StudyFigure, write_study
from tcvq_runner.studies.sweep import Trained, Variant, plan, train_all
from tcvq_runner.wiring import Compute, open_compute, open_split
from tcvq_vqvae import SpikingVQVAE, load_vqvae

_SHOWN = 8


@dataclass(frozen=True, kw_only=True, slots=True)
class Comparison:
    """A question that arms of a recipe answer.

    Attributes:
        name: Name of the command.
        title: Heading of the report.
        question: One or two sentences.
        variants: The arms; the first one is what the paper proposes.
        caution: What the comparison does not say.
    """

    name: str
    title: str
    question: str
    variants: tuple[Variant, ...]
    caution: str


def comparison(name: str, source: str, settings: Sequence[str], values: Sequence[int] = ()) -> Comparison:
    """Return the arms of a study, for the recipe that it starts from.

    Raises:
        ConfigError: The recipe is wrong, or a value is given where none is wanted.
    """
    recipe = load_recipe(source, settings)
    if name == "temporal-vs-vanilla":
        return Comparison(
            name=name,
            title=f"Temporal against vanilla codebook: {recipe.name}",
            question="Does one index per site for all steps (temporal) serve generation better than one index per site "
            "and step (vanilla), at the same number of training steps?",
            variants=(
                Variant(name="temporal", settings=("vqvae.codebook=temporal",)),
                Variant(name="vanilla", settings=("vqvae.codebook=vanilla",)),
            ),
            caution="The vanilla codebook writes T times as many codes, so its reconstructions may be closer while its "
            "prior has a T times longer sequence to learn; capacity and bits per image stand in the table.",
        )
    if name == "spiking-prior":
        return Comparison(
            name=name,
            title=f"Spiking against softmax prior: {recipe.name}",
            question="What does a prior of spiking neurons cost against a GPT of the same size on the same codes?",
            variants=tuple(Variant(name=kind, settings=(f"prior.kind={kind}",)) for kind in ("spiking", "gpt")),
            caution="Both arms have equal width, depth and steps; learning rates were chosen for the spiking prior.",
        )
    key, default = {
        "codebook-size": ("vqvae.n_embed", (recipe.vqvae.n_embed, *_around(recipe.vqvae.n_embed))),
        "time-steps": ("vqvae.n_steps", (recipe.vqvae.n_steps, *_around(recipe.vqvae.n_steps))),
    }[name]
    sizes = tuple(sorted(dict.fromkeys(values or default)))
    if len(sizes) < 2 or min(sizes) < 1:
        raise ConfigError(f"tcvq study {name} compares at least two values, each at least 1; got {list(sizes)}")
    short = key.partition(".n_")[2]
    return Comparison(
        name=name,
        title=f"{'Codebook size' if short == 'embed' else 'Time steps'}: {recipe.name}",
        question=f"How do codec, prior and samples change with {key}, all else equal?",
        variants=tuple(Variant(name=f"{short}-{n}", settings=(f"{key}={n}",)) for n in sizes),
        caution="Learning rates and numbers of steps are those of the recipe in every arm.",
    )


def _around(n: int) -> tuple[int, int]:
    return max(1, n // 4), max(1, n // 2)


def compare_arms(
    asked: Comparison,
    source: str,
    settings: Sequence[str],
    seeds: int,
    *,
    out: Path,
    compute: Compute,
    reporter: Reporter,
) -> Study:
    """Train every arm that is not trained yet, measure all, and say what the numbers say.

    Raises:
        ConfigError: A recipe is wrong or does not fit its data.
        RunFolderError: Another process works in one of the runs.
        FloatingPointError: A loss became NaN.
    """
    runs = train_all(plan(source, settings, asked.variants, seeds), out, compute, reporter)
    found = [(run, measure_run(run.folder, run.recipe, compute)) for run in runs]
    by_arm: dict[str, list[Measures]] = {}
    for run, measures in found:
        by_arm.setdefault(run.variant, []).append(measures)
    floor = statistics.fmean(measures.fd_noise_floor for _, measures in found)
    space = found[0][1].space
    command = " ".join(["tcvq study", asked.name, source, *settings, f"--seeds {seeds}", f"--out {out}"])
    return Study(
        name=asked.name,
        title=asked.title,
        question=asked.question,
        answer=f"{_verdict(by_arm, floor, space)} {asked.caution}",
        table=_table(found),
        figures=[
            StudyFigure(
                name=asked.name,
                alt="Measures of every arm side by side",
                draw=lambda kind: variants_plot(_panels(by_arm, floor), kind=kind),
                caption=f"FD: Fréchet distance in {space}; dashed: real against real at the same n.",
            )
        ],
        pictures=[_pictures(runs, compute)],
        headlines=[
            Headline(
                label=f"FD of samples, {name}",
                value=statistics.fmean(m.fd for m in arm),
                digits=3,
                reference=f"real against real {floor:.3f}",
                better="lower",
            )
            for name, arm in by_arm.items()
        ],
        metrics={name: [dataclasses.asdict(m) for m in arm] for name, arm in by_arm.items()},
        commands={"make this again": command, "look at one run": f"tcvq compare {out / 'runs'}/*"},
    )


def run_comparison(
    name: str,
    source: str,
    settings: Sequence[str],
    values: Sequence[int],
    seeds: int,
    *,
    out: Path | None,
    options: ComputeOptions,
) -> tuple[Path, str]:
    """Do a whole study of this name and return its page and its answer; raises what `compare_arms` raises."""
    asked = comparison(name, source, settings, values)
    folder = out or Path("runs") / "studies" / f"{name}-{load_recipe(source, settings).name}"
    compute, reporter = open_compute(**options), open_reporter(sys.stderr)
    found = compare_arms(asked, source, settings, seeds, out=folder, compute=compute, reporter=reporter)
    return write_study(folder, found, compute), found.answer


def _verdict(by_arm: dict[str, list[Measures]], floor: float, space: str) -> str:
    """Compare the first arm with each other one, against the spread of the samples and the noise floor."""
    (name, ours), *others = by_arm.items()
    n, seeds = ours[0].n, len(ours)
    text = [
        f"Fréchet distance of generated samples in {space}, n = {n}, {seeds} seed{'s' * (seeds > 1)}, noise floor "
        f"(real against real) {floor:.3f}: "
        + ", ".join(f"{arm} {_mean(m, 'fd'):.3f} ± {_spread(m):.3f}" for arm, m in by_arm.items())
        + "."
    ]
    for other, theirs in others:
        gap, noise = _mean(theirs, "fd") - _mean(ours, "fd"), math.hypot(_spread(ours), _spread(theirs))
        if abs(gap) <= 2 * noise:
            text.append(f"{name} does not win over {other}: the gap {gap:+.3f} is within twice its noise {noise:.3f}.")
        else:
            winner, loser = (name, other) if gap > 0 else (other, name)
            text.append(
                f"{winner} wins over {loser} on samples by {abs(gap):.3f}, {abs(gap) / noise:.1f} times the noise."
            )
    for label, key, digits in (
        ("L1 of reconstructions", "l1", 4),
        ("FD of reconstructions", "fd_codec", 3),
        ("bits per image of the prior", "bits_per_image", 0),
        ("samples per second", "samples_per_second", 0),
    ):
        text.append(f"{label}: " + ", ".join(f"{arm} {_mean(m, key):.{digits}f}" for arm, m in by_arm.items()) + ".")
    seen = [m.fd_reversed for m in ours if m.fd_reversed is not None]
    if seen:
        text.append(
            f"The space sees time: real data reversed score {statistics.fmean(seen) / floor:.0f} times the floor."
        )
    if seeds == 1:
        text.append("One seed: the noise is that of resampled samples, not of training.")
    return " ".join(text)


def _table(found: Sequence[tuple[Trained, Measures]]) -> Table:
    keys = [field.name for field in dataclasses.fields(Measures) if field.name != "space"]
    rows = [[run.variant, run.seed, *(getattr(measures, key) for key in keys)] for run, measures in found]
    return Table(columns=["arm", "seed", *(key.replace("_", " ") for key in keys)], rows=rows)


def _panels(by_arm: Mapping[str, Sequence[Measures]], floor: float) -> list[Bars]:
    def bars(title: str, key: str, noise: float | None = None) -> Bars:
        values = {name: [float(getattr(m, key)) for m in arm] for name, arm in by_arm.items()}
        return Bars(title=title, values=values, noise_floor=noise)

    return [
        bars("FD of samples ↓", "fd", floor),
        bars("FD of reconstructions ↓", "fd_codec", floor),
        bars("L1 of reconstructions ↓", "l1"),
        bars("bits per image (prior) ↓", "bits_per_image"),
        bars("perplexity of the codes", "perplexity"),
        bars("samples per second ↑", "samples_per_second"),
    ]


def _pictures(runs: Sequence[Trained], compute: Compute) -> Picture:
    """Return test data, and for every arm of the first seed its reconstructions and its first samples."""
    first = [run for run in runs if run.seed == runs[0].seed]
    x = tensors(open_split(first[0].recipe, "test"))[0]
    rows: list[tuple[str, Tensor]] = [("test data", x[:_SHOWN])]
    for run in first:
        model = load_vqvae(run.folder.vqvae).model.to(compute.device)
        decode = partial(_decoded, model)
        drawn = drawn_indices(run.folder, run.recipe, compute, run.recipe.sample.n)[0][:_SHOWN]
        if x.shape == (len(x), *open_split(run.recipe, "test")[0].image.shape):
            codes = in_batches(partial(_codes, model), x[:_SHOWN], _SHOWN, compute)
            rows.append((f"{run.variant}: codec", in_batches(decode, codes, _SHOWN, compute)))
        rows.append((f"{run.variant}: sample", in_batches(decode, drawn, _SHOWN, compute)))
    caption = "The first of each, no selection."
    if x.ndim == 5:
        labels = [f"{name} {i + 1}" for name, images in rows for i in range(2)]
        counts = torch.cat([(images[:2].clamp(-1, 1) + 1) / 2 for _, images in rows])
        data = event_strips(counts, row_labels=labels, scale=2)
    else:
        data = image_grid(torch.cat([i for _, i in rows]), _SHOWN, row_labels=[name for name, _ in rows], scale=2)
    return Picture(
        name="samples", data=data, alt="Test data, reconstructions and samples of every arm", caption=caption
    )


def _decoded(model: SpikingVQVAE, indices: Tensor) -> Tensor:
    return batch_first(model.decode_indices(indices))


def _codes(model: SpikingVQVAE, x: Tensor) -> Tensor:
    return model.encode(_time_first(x)).indices


def _time_first(x: Tensor) -> Tensor:
    return x.transpose(0, 1) if x.ndim == 5 else x


def _mean(arm: Sequence[Measures], key: str) -> float:
    return statistics.fmean(float(getattr(m, key)) for m in arm)


def _spread(arm: Sequence[Measures]) -> float:
    """Return the deviation over seeds, or over resampled samples where there is one seed."""
    return statistics.stdev(m.fd for m in arm) if len(arm) > 1 else arm[0].fd_spread
