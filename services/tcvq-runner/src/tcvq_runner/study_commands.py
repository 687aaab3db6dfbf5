"""The commands `tcvq study …`: arguments to calls, nothing else."""

from pathlib import Path
from typing import Any

import click

from tcvq_runner.options import compute_options, out_option, run_argument


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
@out_option
@compute_options
def destruction(run: Path, out: Path | None, **options: Any) -> None:
    """Reverse, freeze and empty the steps of the same codes before they are decoded."""
    from tcvq_runner.studies import destruction as module

    _study_of(run, out, options, module.destruction)


def _study_of(run: Path, out: Path | None, options: dict[str, Any], function: Any) -> None:
    """Run a study of one finished run and say what it found."""
    from tcvq_runner import session
    from tcvq_runner.studies.result import write_study

    with session.old_session(run, **options) as at:
        found = function(at.folder, at.recipe, at.compute, at.reporter)
        folder = out or run / "studies" / found.name
        page = write_study(folder, found, at.compute)
    click.echo(f"{found.answer}\nreport: {page}")
