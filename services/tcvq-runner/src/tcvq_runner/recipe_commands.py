"""The commands `tcvq recipes` and `tcvq config …`: arguments to calls, nothing else."""

import json

import click

from tcvq_runner.options import debug_option, json_option, recipe_argument


@click.command()
@json_option
@debug_option
def recipes(as_json: bool) -> None:
    """List the recipes that come with the command."""
    from tcvq_runner.layers import builtin_recipes

    known = builtin_recipes()
    if as_json:
        click.echo(json.dumps({"recipes": [{"name": name, "about": text} for name, text in known.items()]}, indent=2))
        return
    for name, text in known.items():
        click.echo(f"{name:<22}{text}")


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
