"""The command `tcvq eval`: arguments to calls, nothing else."""

from pathlib import Path
from typing import Any

import click

from tcvq_runner.options import compute_options, run_argument


@click.command("eval")
@run_argument
@compute_options
def evaluate(run: Path, **options: Any) -> None:
    """Measure a run again and write its report."""
    from tcvq_runner import evaluation, session

    with session.old_session(run, **options) as at:
        evaluation.evaluate(at.folder, at.recipe, at.compute, at.reporter)
        click.echo(f"report: {at.folder.report_html}")
