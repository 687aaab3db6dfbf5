"""The commands `tcvq recipes` and `tcvq config …`: arguments to calls, nothing else."""

import json
from typing import Any

import click

from tcvq_runner.options import debug_option, json_option, recipe_argument


@click.command()
@click.option("--parameters", is_flag=True, help="Count the parameters of each, beside those of the released code.")
@json_option
@debug_option
def recipes(parameters: bool, as_json: bool) -> None:
    """List the recipes that come with the command."""
    from tcvq_runner.layers import builtin_recipes

    known = builtin_recipes()
    if not (parameters or as_json):
        for name, text in known.items():
            click.echo(f"{name:<22}{text}")
        return
    rows: list[dict[str, Any]] = [{"name": name, "about": text} for name, text in known.items()]
    if parameters:
        from tcvq_runner.parameters import parameter_counts, parameter_lines
        from tcvq_runner.recipe import load_recipe

        loaded = {name: load_recipe(name) for name in known}
        if not as_json:
            click.echo("\n".join(parameter_lines(loaded)))
            return
        rows = [row | {"parameters": parameter_counts(loaded[row["name"]])} for row in rows]
    click.echo(json.dumps({"recipes": rows}, indent=2))


@click.group()
def config() -> None:
    """Look at settings."""


@config.command()
@recipe_argument
@json_option
@debug_option
def show(items: tuple[str, ...], as_json: bool) -> None:
    """Print every setting of a recipe, with those that it takes from others."""
    from tcvq_runner.recipe import dump_recipe, recipe_tree
    from tcvq_runner.session import typed_recipe

    recipe = typed_recipe(items)
    click.echo(json.dumps(recipe_tree(recipe), indent=2) + "\n" if as_json else dump_recipe(recipe), nl=False)


@config.command()
@click.argument("first", metavar="A")
@click.argument("second", metavar="B")
@json_option
@debug_option
def diff(first: str, second: str, as_json: bool) -> None:
    """Print the settings in which two recipes, or two runs, differ.

    A and B are names of recipes, .yaml files or run folders.
    """
    from tcvq_runner.recipe import changes
    from tcvq_runner.session import recipe_of

    found = changes(recipe_of(first), recipe_of(second))
    if as_json:
        click.echo(json.dumps({key: {"a": a, "b": b} for key, (a, b) in found.items()}, indent=2))
        return
    for key, (a, b) in found.items():
        click.echo(f"{key:<30}{json.dumps(a)} -> {json.dumps(b)}")
    if not found:
        click.echo("no setting differs")


@config.command()
@debug_option
def schema() -> None:
    """Print the JSON schema of recipe files, for editors.

    Keep it beside your recipes (tcvq config schema > recipe.schema.json) and begin each with the line
    # yaml-language-server: $schema=recipe.schema.json
    """
    from tcvq_runner.schema import recipe_schema

    click.echo(json.dumps(recipe_schema(), indent=2))
