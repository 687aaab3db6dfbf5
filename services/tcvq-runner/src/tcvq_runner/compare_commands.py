"""The command `tcvq compare`: arguments to calls, nothing else."""

from pathlib import Path

import click

from tcvq_runner.options import FOLDER, debug_option


@click.command()
@click.argument("runs", nargs=-1, type=FOLDER, metavar="RUN RUN...")
@click.option("--out", type=FOLDER, metavar="FOLDER", help="Also write report.html and report.json there.")
@debug_option
def compare(runs: tuple[Path, ...], out: Path | None) -> None:
    """Put measured runs side by side; warn where their numbers were not measured alike."""
    from tcvq_eval import write_report
    from tcvq_runner.side_by_side import side_by_side

    found = side_by_side(runs)
    for line in found.lines():
        click.echo(line)
    if out is not None:
        click.echo(f"report: {write_report(out, found.report(runs)).html}")
