"""The commands `tcvq doctor` and `tcvq completion`: arguments to calls, nothing else."""

import json
import sys
from typing import Any

import click

from tcvq_runner.options import complete_recipe, compute_options, debug_option, json_option


@click.command()
@click.option(
    "--recipe",
    metavar="RECIPE",
    shell_complete=complete_recipe,
    help="Estimate memory, disk and time of a recipe here, by a few steps.",
)
@click.argument("settings", nargs=-1, metavar="[KEY=VALUE]...")
@json_option
@compute_options
def doctor(recipe: str | None, settings: tuple[str, ...], as_json: bool, **options: Any) -> None:
    """Say what this machine will compute with, and why.

    With --recipe: what that recipe takes here, before it starts. A few steps of each stage run on random data in a
    process of their own; if a whole batch would take long, its time and memory follow from smaller ones.
    """
    from tcvq_runner.wiring import open_compute

    if recipe is not None:
        _estimate((recipe, *settings), as_json, options)
        return
    if settings:
        raise click.UsageError(f"{settings[0]}: settings go with --recipe")
    from tcvq_runner.doctor import diagnose

    findings = list(diagnose(open_compute(**options)))
    if as_json:
        click.echo(json.dumps(dict(findings), indent=2))
        return
    for topic, finding in findings:
        click.echo(f"{topic:<20}{finding}")


def _estimate(items: tuple[str, ...], as_json: bool, options: dict[str, Any]) -> None:
    """Print what a recipe takes."""
    from tcvq_runner.estimate import estimate, estimate_lines
    from tcvq_runner.progress import open_reporter
    from tcvq_runner.session import typed_recipe
    from tcvq_runner.wiring import open_compute

    found = estimate(typed_recipe(items), open_compute(**options), open_reporter(sys.stderr))
    if as_json:
        click.echo(json.dumps(found.as_json(), indent=2))
        return
    for topic, finding in estimate_lines(found):
        click.echo(f"{topic:<12}{finding}")


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@debug_option
@click.pass_context
def completion(context: click.Context, shell: str) -> None:
    """Print the script by which a shell completes commands, options and recipes.

    bash: tcvq completion bash > ~/.local/share/bash-completion/completions/tcvq

    zsh: tcvq completion zsh > "${fpath[1]}/_tcvq"

    fish: tcvq completion fish > ~/.config/fish/completions/tcvq.fish
    """
    from click.shell_completion import get_completion_class

    kind = get_completion_class(shell)
    assert kind is not None
    click.echo(kind(context.find_root().command, {}, "tcvq", "_TCVQ_COMPLETE").source())
