"""The command `tcvq sample`: arguments to calls, nothing else."""

from pathlib import Path
from typing import Any

import click

from tcvq_runner.options import FOLDER, compute_options, run_argument


@click.command()
@run_argument
@click.option("-n", "n", type=int, help="Images to draw.")
@click.option("--seed", type=int, help="Another draw; default: the recipe's seed.")
@click.option("--temperature", type=float, help="Below 1 is safer and less varied.")
@click.option("--top-k", type=int, help="Draw from the k likeliest codes only.")
@click.option("--top-p", type=float, help="Draw from the smallest set of codes with this probability.")
@click.option("--class", "classes", multiple=True, metavar="NAME", help="Name or number of a class; may be repeated.")
@click.option("--out", type=FOLDER, metavar="FOLDER", help="Where to write; see above.")
@compute_options
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
