"""The studies that train: which arms they compare, and what their numbers say."""

import dataclasses
import math
import statistics
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tcvq_eval import Bars, Headline, Table, variants_plot
from tcvq_runner.progress import Reporter, open_reporter
from tcvq_runner.recipe import ConfigError, load_recipe
from tcvq_runner.session import ComputeOptions
from tcvq_runner.studies.arm_pictures import arm_pictures
from tcvq_runner.studies.measures import Measures, measure_run
from tcvq_runner.studies.result import Study, StudyFigure, write_study
from tcvq_runner.studies.sweep import Trained, Variant, plan, train_all
from tcvq_runner.studies.yardstick import Pair, suite_table, time_words
from tcvq_runner.wiring import Compute, open_compute

_NOT_IN_TABLE = ("space", "time", "samples", "codec")


_NOT_OF_A_GPT = ("prior.distance_weights=false", "prior.attention_norm=none", "prior.attention_chunk=0")
_SUITE_PANELS = {
    "FD of frame differences": "FD of frame differences ↓",
    "autocorrelation, W1": "W1 of autocorrelation ↓",
    "class agreement": "class agreement ↑",
}


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
            variants=(
                Variant(name="spiking", settings=("prior.kind=spiking",)),
                Variant(name="gpt", settings=("prior.kind=gpt", *_NOT_OF_A_GPT)),
            ),
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
    caution = "Learning rates and numbers of steps are those of the recipe in every arm."
    if short == "steps" and recipe.vqvae.encoding == "event":
        caution += " Recordings of another T lie in another space: distances of two arms do not compare."
    return Comparison(
        name=name,
        title=f"{'Codebook size' if short == 'embed' else 'Time steps'}: {recipe.name}",
        question=f"How do codec, prior and samples change with {key}, all else equal?",
        variants=tuple(Variant(name=f"{short}-{n}", settings=(f"{key}={n}",)) for n in sizes),
        caution=caution,
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
    found = [(run, measure_run(run.folder, run.recipe, compute, reporter)) for run in runs]
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
        table=(table := _table(found)),
        shown=_upright(table),
        figures=[
            StudyFigure(
                name=asked.name,
                alt="Measures of every arm side by side",
                draw=lambda kind: variants_plot(_panels(by_arm, floor), kind=kind),
                caption=f"FD: Fréchet distance in {space}; dashed: the same of real data at the same n.",
            )
        ],
        pictures=arm_pictures(runs, compute),
        tables=_suites(found),
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
    if near := [arm for arm, m in by_arm.items() if _mean(m, "fd") - floor <= 2 * _spread(m)]:
        text.append(f"At this n the space cannot tell {' and '.join(near)} from real data: within 2 ± of the floor.")
    for label, key, digits in (
        ("L1 of reconstructions", "l1", 4),
        ("FD of reconstructions", "fd_codec", 3),
        ("bits per image of the prior", "bits_per_image", 0),
        ("samples per second", "samples_per_second", 0),
    ):
        text.append(f"{label}: " + ", ".join(f"{arm} {_mean(m, key):.{digits}f}" for arm, m in by_arm.items()) + ".")
    text += time_words({how: statistics.fmean(m.time[how] for m in ours) for how in ours[0].time})
    text += _suite_words(by_arm)
    if seeds == 1:
        text.append("One seed: the noise is that of resampled samples, not of training.")
    return " ".join(text)


def _suite_words(by_arm: Mapping[str, Sequence[Measures]]) -> list[str]:
    """Return the measures of the suite that say most about time and class, each beside real against real."""
    text = []
    for name in ("FD of frame differences", "autocorrelation, W1", "class agreement"):
        if name in next(iter(by_arm.values()))[0].samples:
            values = {arm: statistics.fmean(m.samples[name][0] for m in found) for arm, found in by_arm.items()}
            floor = statistics.fmean(m.samples[name][1] for found in by_arm.values() for m in found)
            shown = ", ".join(f"{arm} {value:.3f}" for arm, value in values.items())
            text.append(f"{name}: {shown}; real {floor:.3f}.")
    return text


def _suites(found: Sequence[tuple[Trained, Measures]]) -> list[Table]:
    """Return the suite for recordings, a column for the samples and one for the reconstructions of every run."""
    if not found[0][1].samples:
        return []
    columns: dict[str, dict[str, Pair]] = {}
    for run, measures in found:
        columns[f"{run.variant} s{run.seed}: samples"] = measures.samples
        columns[f"{run.variant} s{run.seed}: codec"] = measures.codec
    headings, rows = suite_table(columns)
    caption = "W1: Wasserstein-1 distance of a statistic over recordings, in standard deviations of the real ones. "
    return [Table(columns=headings, rows=rows, caption=f"{caption}Last column: the noise floor of the first.")]


def _table(found: Sequence[tuple[Trained, Measures]]) -> Table:
    keys = [field.name for field in dataclasses.fields(Measures) if field.name not in _NOT_IN_TABLE]
    rows = [[run.variant, run.seed, *(getattr(measures, key) for key in keys)] for run, measures in found]
    return Table(columns=["arm", "seed", *(key.replace("_", " ") for key in keys)], rows=rows)


def _upright(table: Table) -> Table:
    """Return the table with a measure per row and a run per column, as a page has room for it."""
    names = [f"{arm} s{seed}" for arm, seed, *_ in table.rows]
    rows = [[name, *(row[i] for row in table.rows)] for i, name in enumerate(table.columns) if i >= 2]
    return Table(columns=("measure", *names), rows=rows)


def _panels(by_arm: Mapping[str, Sequence[Measures]], floor: float) -> list[Bars]:
    def bars(title: str, key: str, noise: float | None = None) -> Bars:
        values = {name: [float(getattr(m, key)) for m in arm] for name, arm in by_arm.items()}
        return Bars(title=title, values=values, noise_floor=noise)

    def suite(title: str, name: str) -> Bars:
        pairs = {arm: [m.samples[name] for m in found] for arm, found in by_arm.items()}
        real = statistics.fmean(pair[1] for arm in pairs.values() for pair in arm)
        return Bars(
            title=title, values={arm: [pair[0] for pair in each] for arm, each in pairs.items()}, noise_floor=real
        )

    measured = next(iter(by_arm.values()))[0].samples
    return [
        bars("FD of samples ↓", "fd", floor),
        bars("FD of reconstructions ↓", "fd_codec", floor),
        bars("L1 of reconstructions ↓", "l1"),
        *(suite(title, name) for name, title in _SUITE_PANELS.items() if name in measured),
        bars("bits per image (prior) ↓", "bits_per_image"),
        bars("perplexity of the codes", "perplexity"),
        bars("samples per second ↑", "samples_per_second"),
    ]


def _mean(arm: Sequence[Measures], key: str) -> float:
    return statistics.fmean(float(getattr(m, key)) for m in arm)


def _spread(arm: Sequence[Measures]) -> float:
    """Return the deviation over seeds, or over resampled samples where there is one seed."""
    return statistics.stdev(m.fd for m in arm) if len(arm) > 1 else arm[0].fd_spread
