"""The command line: arguments to calls, nothing else. Everything heavy is imported inside the commands."""

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click

from tcvq_runner import __version__
from tcvq_runner.data_commands import data
from tcvq_runner.failures import report, stop_signals

F = TypeVar("F", bound=Callable[..., Any])
FOLDER = click.Path(file_okay=False, path_type=Path)
_DEVICE = "auto (default) takes a CUDA device if there is one."
_PRECISION = "Of training; auto (default) takes bf16 where the hardware computes in it."
_debug = click.option("--debug", is_flag=True, expose_value=False, help="Show where an error came from.")


def _combined(*decorators: Callable[[F], F]) -> Callable[[F], F]:
    def apply(function: F) -> F:
        for decorator in reversed(decorators):
            function = decorator(function)
        return function

    return apply


_recipe_argument = click.argument("items", nargs=-1, metavar="[RECIPE] [KEY=VALUE]...")
_run_argument = click.argument("run", type=FOLDER, metavar="RUN")
_out = click.option("--out", type=FOLDER, metavar="FOLDER", help="Where to write; default runs/RECIPE/TIME.")
_compute = _combined(
    click.option("--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", help=_DEVICE),
    click.option("--precision", type=click.Choice(["auto", "32", "bf16"]), default="auto", help=_PRECISION),
    click.option("--threads", type=click.IntRange(min=1), help="CPU threads; default: torch's choice."),
    _debug,
)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="tcvq")
@_debug
def cli() -> None:
    """Spiking networks that generate images with a temporal codebook.

    Settings are written as KEY=VALUE without dashes, such as vqvae.n_steps=6; `tcvq config show` lists them all.
    """


@cli.command()
@_recipe_argument
@_out
@_compute
def run(items: tuple[str, ...], out: Path | None, **options: Any) -> None:
    """Train both stages, encode, sample, evaluate and report.

    RECIPE is a name from `tcvq recipes` (default fashion-mini) or a .yaml file.
    """
    from tcvq_runner import pipeline, report, session

    with session.new_session(items, out, **options) as at:
        pipeline.run(at.folder, at.recipe, at.compute, at.reporter)
        click.echo(f"report:  {at.folder.report_html}\nsamples: {at.folder.samples_png}")
        click.echo(f"next:    {report.next_commands(at.folder.path)['draw more images']}")


@cli.group()
def train() -> None:
    """Train one stage alone."""


@train.command()
@_recipe_argument
@_out
@_compute
def stage1(items: tuple[str, ...], out: Path | None, **options: Any) -> None:
    """Train the VQ-VAE in a new run folder."""
    from tcvq_runner import session, stages

    with session.new_session(items, out, **options) as at:
        stages.train_stage1(at.folder, at.recipe, at.compute, at.reporter)
        click.echo(f"wrote {at.folder.vqvae}\nnext: tcvq encode {at.folder.path}")


@train.command()
@_run_argument
@click.argument("settings", nargs=-1, metavar="[KEY=VALUE]...")
@_compute
def stage2(run: Path, settings: tuple[str, ...], **options: Any) -> None:
    """Train the prior on the codes of a run.

    Settings may change prior.*, stage2.*, sample.* and eval.*; the run keeps them.
    """
    from tcvq_runner import session, stages

    with session.old_session(run, settings, **options) as at:
        stages.train_stage2(at.folder, at.recipe, at.compute, at.reporter)
        click.echo(f"wrote {at.folder.prior}\nnext: tcvq sample {run}")


@cli.command()
@_run_argument
@_compute
def encode(run: Path, **options: Any) -> None:
    """Encode both splits with the VQ-VAE of a run."""
    from tcvq_runner import session, stages

    with session.old_session(run, **options) as at:
        stages.encode(at.folder, at.recipe, at.compute, at.reporter)
        click.echo(f"wrote {at.folder.codes('train')} and {at.folder.codes('test')}\nnext: tcvq train stage2 {run}")


@cli.command()
@_run_argument
@click.option("-n", "n", type=int, help="Images to draw.")
@click.option("--seed", type=int, help="Another draw; default: the recipe's seed.")
@click.option("--temperature", type=float, help="Below 1 is safer and less varied.")
@click.option("--top-k", type=int, help="Draw from the k likeliest codes only.")
@click.option("--top-p", type=float, help="Draw from the smallest set of codes with this probability.")
@click.option("--class", "classes", multiple=True, metavar="NAME", help="Name or number of a class; may be repeated.")
@click.option("--out", type=FOLDER, metavar="FOLDER", help="Where to write; see above.")
@_compute
def sample(run: Path, out: Path | None, classes: tuple[str, ...], **options: Any) -> None:
    """Draw images from a trained run.

    Without options this repeats the run's own draw, in the run folder. With options the files go to a new folder
    RUN/samples-TIME, unless --out names another.
    """
    from tcvq_runner import drawing, run_dir, session

    draw = {key: options.pop(key) for key in ("n", "seed", "temperature", "top_k", "top_p")}
    settings = [f"{'' if k == 'seed' else 'sample.'}{k}={v}" for k, v in draw.items() if v is not None]
    with session.old_session(run, **options) as at:
        recipe = at.folder.recipe(tuple(settings))
        with run_dir.sample_folder(at.folder, out, fresh=bool(settings or classes)) as target:
            drawing.sample(at.folder, recipe, at.compute, at.reporter, classes=classes, out=target.path)
        click.echo(f"wrote {target.samples} and {target.samples_png}")


@cli.command("eval")
@_run_argument
@_compute
def evaluate(run: Path, **options: Any) -> None:
    """Measure a run again and write its report."""
    from tcvq_runner import evaluation, session

    with session.old_session(run, **options) as at:
        evaluation.evaluate(at.folder, at.recipe, at.compute, at.reporter)
        click.echo(f"report: {at.folder.report_html}")


@cli.command()
@_debug
def recipes() -> None:
    """List the recipes that come with the command."""
    from tcvq_runner.recipe import builtin_recipes

    for name, text in builtin_recipes().items():
        click.echo(f"{name:<16}{text}")


@cli.group()
def config() -> None:
    """Look at settings."""


@config.command()
@_recipe_argument
@_debug
def show(items: tuple[str, ...]) -> None:
    """Print every setting of a recipe."""
    from tcvq_runner.recipe import dump_recipe
    from tcvq_runner.session import typed_recipe

    click.echo(dump_recipe(typed_recipe(items)), nl=False)


@cli.command()
@_compute
def doctor(**options: Any) -> None:
    """Say what this machine will compute with, and why."""
    from tcvq_runner.doctor import diagnose
    from tcvq_runner.wiring import open_compute

    for topic, finding in diagnose(open_compute(**options)):
        click.echo(f"{topic:<20}{finding}")


cli.add_command(data)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit status: 2 for what the user can mend, 130 and 143 for signals, 1 for a bug."""
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    try:
        with stop_signals():
            cli.main(arguments, prog_name="tcvq", standalone_mode=False)
            sys.stdout.flush()
    except BaseException as error:
        if "--debug" in arguments and isinstance(error, Exception):
            raise
        return report(error, arguments)
    return 0
