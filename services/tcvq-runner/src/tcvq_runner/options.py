"""The options and arguments that several commands share."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click
from click.shell_completion import CompletionItem

F = TypeVar("F", bound=Callable[..., Any])
FOLDER = click.Path(file_okay=False, path_type=Path)
_DEVICE = "auto (default) takes a CUDA device if there is one."
_STRATEGY = "auto (default) and ddp: a copy of the model per process; fsdp: each holds a share (CUDA)."
_PRECISION = "Of training; auto (default) takes bf16 where the hardware computes in it."


def combined(*decorators: Callable[[F], F]) -> Callable[[F], F]:
    """Return one decorator that applies all of these; the first one is listed first in the help."""

    def apply(function: F) -> F:
        for decorator in reversed(decorators):
            function = decorator(function)
        return function

    return apply


def complete_recipe(context: click.Context, parameter: click.Parameter, typed: str) -> list[CompletionItem]:
    """Return what a shell offers for a recipe: the names that begin so, and files."""
    from tcvq_runner.layers import builtin_recipes

    names = [CompletionItem(name, help=text) for name, text in builtin_recipes().items() if name.startswith(typed)]
    return names or [CompletionItem(typed, type="file")]


debug_option = click.option("--debug", is_flag=True, expose_value=False, help="Show where an error came from.")
json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead, for scripts.")
recipe_argument = click.argument("items", nargs=-1, metavar="[RECIPE] [KEY=VALUE]...", shell_complete=complete_recipe)
run_argument = click.argument("run", type=FOLDER, metavar="RUN")
settings_argument = click.argument("settings", nargs=-1, metavar="[KEY=VALUE]...")
out_option = click.option("--out", type=FOLDER, metavar="FOLDER", help="Where to write; default runs/RECIPE/TIME.")
compute_options = combined(
    click.option("--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", help=_DEVICE),
    click.option("--precision", type=click.Choice(["auto", "32", "bf16", "64"]), default="auto", help=_PRECISION),
    click.option("--threads", type=click.IntRange(min=1), help="CPU threads; default: torch's choice."),
    debug_option,
)
profile_option = click.option(
    "--profile", is_flag=True, help="Profile a few steps of each training: a trace and a summary in RUN/profile."
)
scale_options = combined(
    click.option("--devices", type=click.IntRange(min=1), default=1, help="Processes on this machine, one per device."),
    click.option("--num-nodes", type=click.IntRange(min=1), default=1, help="Machines; torchrun or srun starts them."),
    click.option("--strategy", type=click.Choice(["auto", "ddp", "fsdp"]), default="auto", help=_STRATEGY),
)
