"""The commands `tcvq study …`: arguments to calls, nothing else."""

from functools import partial
from pathlib import Path
from typing import Any, cast

import click

from tcvq_runner.options import FOLDER, compute_options, out_option, recipe_argument, run_argument


@click.group()
def study() -> None:
    """Repeat the paper's studies: each a table, a figure and a paragraph of numbers."""


@study.command("time-cells")
@run_argument
@out_option
@compute_options
def time_cells(run: Path, out: Path | None, **options: Any) -> None:
    """Show in which order the codes of a run fire, beside chance and an untrained encoder."""
    from tcvq_runner.studies import time_cells as module

    _study_of(run, out, options, module.time_cells)


@study.command()
@run_argument
@click.option("--against", type=FOLDER, metavar="RUN", help="Put another run beside it, such as one of vanilla codes.")
@click.option(
    "--tune-steps",
    type=click.IntRange(min=0),
    default=200,
    show_default=True,
    help="Train the decoder so many batches on frozen and on intact sequences, as a control; 0: no control.",
)
@out_option
@compute_options
def destruction(run: Path, against: Path | None, tune_steps: int, out: Path | None, **options: Any) -> None:
    """Reverse, freeze and empty the steps of the same codes before they are decoded."""
    from tcvq_runner.run_dir import RunFolder
    from tcvq_runner.studies import destruction as module

    other = None if against is None else RunFolder(against)
    _study_of(run, out, options, partial(module.destruction, against=other, tune_steps=tune_steps))


def _training_study(name: str, text: str, *, values: bool = False) -> None:
    """Add a command that trains the arms of a comparison."""

    def command(items: tuple[str, ...], out: Path | None, seeds: int, **options: Any) -> None:
        from tcvq_runner.session import typed_source
        from tcvq_runner.studies.comparisons import run_comparison

        sizes = options.pop("values", ())
        source, settings = typed_source(items)
        page, answer = run_comparison(name, source, settings, sizes, seeds, out=out, options=cast(Any, options))
        click.echo(f"{answer}\nreport: {page}")

    command.__doc__ = text
    for decorator in (
        compute_options,
        click.option("--seeds", type=click.IntRange(min=1), default=1, help="Seeds per arm; default 1."),
        *([click.option("--values", type=int, multiple=True, help="A value of the arm; repeat it.")] if values else []),
        out_option,
        recipe_argument,
    ):
        command = decorator(command)
    study.command(name)(command)


_training_study("temporal-vs-vanilla", "Train both codebooks on equal budgets and compare codec, prior and samples.")
_training_study("spiking-prior", "Compare the spiking prior with a softmax GPT on the same codes.")
_training_study("codebook-size", "Train several numbers of codes and compare.", values=True)
_training_study("time-steps", "Train several numbers of time steps and compare.", values=True)


def _study_of(run: Path, out: Path | None, options: dict[str, Any], function: Any) -> None:
    """Run a study of one finished run and say what it found."""
    from tcvq_runner import session
    from tcvq_runner.studies.result import write_study

    with session.old_session(run, **options) as at:
        found = function(at.folder, at.recipe, at.compute, at.reporter)
        folder = out or run / "studies" / found.name
        page = write_study(folder, found, at.compute)
    click.echo(f"{found.answer}\nreport: {page}")
