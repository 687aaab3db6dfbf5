"""The JSON schema of recipes, by which an editor completes keys, explains them and marks mistakes."""

import dataclasses
import inspect
import re
import typing
from typing import Any

from tcvq_runner.config import FOLLOWS_VQVAE, Recipe
from tcvq_runner.layers import EXTENDS
from tcvq_runner.recipe import adapter

_EXTENDS = {
    "type": "string",
    "minLength": 1,
    "description": "The recipe that this one changes: its name, or the path of a .yaml file beside this one.",
}
_FIELD = re.compile(r"^    (\w+): (.*(?:\n {8,}\S.*)*)", re.MULTILINE)


def recipe_schema() -> dict[str, Any]:
    """Return the schema of recipe files (JSON Schema 2020-12): every key is optional, none may be unknown.

    The descriptions are those of the dataclasses; an editor shows them beside the key.
    """
    tree = adapter(Recipe).json_schema()
    sections = _sections()
    for definition in (tree, *tree["$defs"].values()):
        _describe(definition, sections[definition["title"]])
    for key in FOLLOWS_VQVAE:  # pydantic's default would name the VQ-VAE of the paper
        tree["$defs"]["PriorConfig"]["properties"][key].pop("default", None)
    tree["properties"] = {EXTENDS: _EXTENDS} | tree["properties"]
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **tree, "title": "A recipe of tcvq"}


def _sections() -> dict[str, type]:
    """Return the dataclasses that a recipe consists of, by name."""
    kinds: list[type] = [Recipe, *typing.get_type_hints(Recipe).values()]
    return {kind.__name__: kind for kind in kinds if dataclasses.is_dataclass(kind)}


def _describe(definition: dict[str, Any], section: type) -> None:
    """Give a section of the schema what its docstring says about it and its fields."""
    text = inspect.cleandoc(section.__doc__ or "")
    about = {name: " ".join(what.split()) for name, what in _FIELD.findall(text.partition("Attributes:")[2])}
    definition |= {"description": text.partition("\n")[0].replace("``", "`"), "additionalProperties": False}
    definition.pop("required", None)
    for name, field in definition["properties"].items():
        field.pop("title", None)
        if name in about:
            field["description"] = about[name].replace("``", "`")
