"""The commands that train: `tcvq run`, `tcvq train …` and `tcvq encode`; arguments to calls, nothing else."""

import json
from pathlib import Path
from typing import Any

import click

from tcvq_runner.options import (
    compute_options,
    json_option,
    out_option,
    profile_option,
    recipe_argument,
    run_argument,
    scale_options,
    settings_argument,
)

_FRESH = "Start anew instead of continuing; what is there is kept aside."
fresh_option = click.option("--fresh", is_flag=True, help=_FRESH)


@click.command()
@recipe_argument
@out_option
@fresh_option
@profile_option
@json_option
@scale_options
@compute_options
def run(items: tuple[str, ...], out: Path | None, *, fresh: bool, as_json: bool, **options: Any) -> None:
    """Train both stages, encode, sample, evaluate and report.

    RECIPE is a name from `tcvq recipes` (default fashion-mini), a .yaml file, or the folder of an interrupted run. An
    interrupted run of the recipe with the same settings is continued by itself; --fresh starts anew.
    """
    from tcvq_runner import pipeline, report, session
    from tcvq_runner.run_details import details

    with session.run_session(items, out, fresh=fresh, **options) as at:
        pipeline.run(at.folder, at.recipe, at.compute, at.reporter)
        if as_json:
            click.echo(json.dumps(details(at.folder.path), indent=2))
            return
        _echo_profiles(at.folder.path)
        click.echo(f"report:  {at.folder.report_html}\nsamples: {at.folder.samples_png}")
        click.echo(f"next:    {report.next_commands(at.folder.path)['draw more images']}")


@click.group()
def train() -> None:
    """Train one stage alone."""


@train.command()
@recipe_argument
@out_option
@fresh_option
@profile_option
@scale_options
@compute_options
def stage1(items: tuple[str, ...], out: Path | None, *, fresh: bool, **options: Any) -> None:
    """Train the VQ-VAE in a new run folder, or go on in the folder of --out."""
    from tcvq_runner import session, stages

    with session.run_session(items, out, fresh=fresh or out is None, **options) as at:
        stages.train_stage1(at.folder, at.recipe, at.compute, at.reporter)
        _echo_profiles(at.folder.path)
        click.echo(f"wrote {at.folder.vqvae}\nnext: tcvq encode {at.folder.path}")


@train.command()
@run_argument
@settings_argument
@click.option("--fresh", is_flag=True, help="Forget the checkpoints of this stage, and start it anew.")
@profile_option
@scale_options
@compute_options
def stage2(run: Path, settings: tuple[str, ...], *, fresh: bool, **options: Any) -> None:
    """Train the prior on the codes of a run.

    Settings may change prior.*, stage2.*, sample.* and eval.*; the run keeps them.
    """
    from tcvq_runner import session, stages
    from tcvq_runner.distributed import on_first

    with session.old_session(run, settings, **options) as at:
        if fresh:
            on_first(stages.checkpoints_of(at.folder, "stage2", at.recipe).clear)
        stages.train_stage2(at.folder, at.recipe, at.compute, at.reporter)
        _echo_profiles(at.folder.path)
        click.echo(f"wrote {at.folder.prior}\nnext: tcvq sample {run}")


@click.command()
@run_argument
@scale_options
@compute_options
def encode(run: Path, **options: Any) -> None:
    """Encode both splits with the VQ-VAE of a run."""
    from tcvq_runner import encoding, session

    with session.old_session(run, **options) as at:
        encoding.encode(at.folder, at.recipe, at.compute, at.reporter)
        click.echo(f"wrote {at.folder.codes('train')} and {at.folder.codes('test')}\nnext: tcvq train stage2 {run}")


def _echo_profiles(run: Path) -> None:
    """Print what profiling summed up, if it was asked for."""
    for path in sorted(run.glob("profile/*.txt")):
        click.echo(path.read_text("utf-8"))
