"""The command `tcvq sample`: arguments to calls, nothing else."""

import re
from pathlib import Path
from typing import Any

import click

from tcvq_runner.options import FOLDER, compute_options, run_argument

_SETTINGS = ("n", "temperature", "top_k", "top_p", "min_p", "guidance", "cache")
_SEED = "Another draw; default: the recipe's seed."
_MIN_P = "Draw from the codes at least so probable as this times the likeliest."
_GUIDANCE = "Above 1 follows the class more strictly; needs a prior trained with class_dropout."
_CLASS = "Name or number of a class; may be repeated."
_CACHE = "What the prior remembers; changes memory and time. Default auto."
_GRID = "Also grid.png: so many columns and rows in the order drawn."
_GIF = "Also samples.gif: recordings play, still images come into being step by step."
_UNFOLD = "Also unfolded.png: every time step of ten samples."
_FORMAT = "Also a PNG per image, one .npz of all, or an event file (.bin) per recording; may be repeated."
_COMPLETE = "Complete so many test images, each so often; such as 8x8."
_KEEP = "What is given of them; default upper:0.5. Codes are drawn row by row: of lower and right little is seen."
_WORKERS = "Processes that draw; each takes a GPU of its own where there are several."
_PART = (
    "Draw only every N-th shard from the K-th on (K from 0); the last part to finish puts all together. Needs --out."
)


class _Pair(click.ParamType):  # type: ignore[type-arg]  # generic for type checkers only
    """Two numbers, such as 8x4 or 0/4."""

    def __init__(self, sign: str) -> None:
        self.name, self._sign = f"A{sign}B", sign

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, int]:
        """Return both numbers."""
        found = re.fullmatch(rf"(\d+){self._sign}(\d+)", str(value))
        if found is None or int(found[2]) < 1 or (self._sign == "x" and int(found[1]) < 1):
            self.fail(f"{value!r} is not of the form {self.name}, such as {'8x4' if self._sign == 'x' else '0/4'}")
        if self._sign == "/" and int(found[1]) >= int(found[2]):
            self.fail(f"{value!r}: parts are numbered from 0 to {int(found[2]) - 1}")
        return int(found[1]), int(found[2])


@click.command()
@run_argument
@click.option("-n", "n", type=int, help="Images to draw.")
@click.option("--seed", type=int, help=_SEED)
@click.option("--temperature", type=float, help="Below 1 is safer and less varied; 0 takes the likeliest code.")
@click.option("--top-k", type=int, help="Draw from the k likeliest codes only.")
@click.option("--top-p", type=float, help="Draw from the smallest set of codes with this probability.")
@click.option("--min-p", type=float, help=_MIN_P)
@click.option("--class", "classes", multiple=True, metavar="NAME", help=_CLASS)
@click.option("--guidance", type=float, metavar="SCALE", help=_GUIDANCE)
@click.option("--cache", type=click.Choice(["auto", "state", "kv", "none"]), help=_CACHE)
@click.option("--complete", metavar="IMAGES[xWAYS]", help=_COMPLETE)
@click.option("--keep", metavar="SIDE[:SHARE]", help=_KEEP)
@click.option("--grid", type=_Pair("x"), metavar="COLSxROWS", help=_GRID)
@click.option("--gif", is_flag=True, help=_GIF)
@click.option("--unfold", is_flag=True, help=_UNFOLD)
@click.option("--format", "formats", type=click.Choice(["png", "npz", "bin"]), multiple=True, help=_FORMAT)
@click.option("--workers", type=click.IntRange(min=1), default=1, help=_WORKERS)
@click.option("--part", type=_Pair("/"), metavar="K/N", help=_PART)
@click.option("--out", type=FOLDER, metavar="FOLDER", help="Where to write; see above.")
@compute_options
def sample(run: Path, out: Path | None, **options: Any) -> None:
    """Draw images from a trained run.

    Without options this repeats the run's own draw, in the run folder. With options the files go to a new folder
    RUN/samples-TIME, unless --out names another. A draw that was interrupted goes on where it was when the same command
    is given again.
    """
    from tcvq_runner.sampling import Wishes, sample_run

    draw = {key: options.pop(key) for key in _SETTINGS}
    settings = [f"sample.{key}={value}" for key, value in draw.items() if value is not None]
    seed = options.pop("seed")
    settings += [] if seed is None else [f"seed={seed}"]
    names = ("classes", "complete", "keep", "grid", "gif", "unfold", "formats", "workers", "part")
    wishes = Wishes(settings=tuple(settings), out=out, **{name: options.pop(name) for name in names})
    for line in sample_run(run, wishes, **options):
        click.echo(line)
