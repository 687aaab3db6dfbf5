"""The command `tcvq doctor`: arguments to calls, nothing else."""

from typing import Any

import click

from tcvq_runner.options import compute_options


@click.command()
@compute_options
def doctor(**options: Any) -> None:
    """Say what this machine will compute with, and why."""
    from tcvq_runner.doctor import diagnose
    from tcvq_runner.wiring import open_compute

    for topic, finding in diagnose(open_compute(**options)):
        click.echo(f"{topic:<20}{finding}")
