"""The commands `tcvq recipes` and `tcvq config …`: arguments to calls, nothing else."""

import click

from tcvq_runner.options import debug_option, recipe_argument


@click.command()
@debug_option
def recipes() -> None:
    """List the recipes that come with the command."""
    from tcvq_runner.recipe import builtin_recipes

    for name, text in builtin_recipes().items():
        click.echo(f"{name:<16}{text}")


@click.group()
def config() -> None:
    """Look at settings."""


@config.command()
@recipe_argument
@debug_option
def show(items: tuple[str, ...]) -> None:
    """Print every setting of a recipe."""
    from tcvq_runner.recipe import dump_recipe
    from tcvq_runner.session import typed_recipe

    click.echo(dump_recipe(typed_recipe(items)), nl=False)
