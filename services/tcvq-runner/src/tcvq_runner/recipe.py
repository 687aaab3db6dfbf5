"""From a recipe's text and the user's settings to a checked `Recipe`, and back to text.

A recipe is the defaults, overlaid by a YAML file and those it extends, overlaid by ``key=value`` settings. The fields
of the models' sections belong to the packages that own the models; nothing here lists them.
"""

import dataclasses
import difflib
import functools
import json
import math
import typing
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import TypeAdapter, ValidationError

from tcvq_runner.config import FOLLOWS_VQVAE, Recipe
from tcvq_runner.layers import ConfigError, builtin_recipes, is_file, overlay, read_layers
from tcvq_vqvae import VQVAEConfig

DEFAULT_RECIPE = "fashion-mini"

__all__ = [
    "DEFAULT_RECIPE",
    "ConfigError",
    "adapter",
    "builtin_recipes",
    "changes",
    "differing_keys",
    "dump_recipe",
    "flat_recipe",
    "load_recipe",
    "recipe_tree",
]


def load_recipe(source: str | Path = DEFAULT_RECIPE, settings: Sequence[str] = ()) -> Recipe:
    """Return the recipe of a built-in name or a YAML file, changed by ``key=value`` settings.

    Args:
        source: Name of a built-in recipe, or the path of a ``.yaml`` file.
        settings: Such as ``"vqvae.n_steps=6"``; later ones win.

    Raises:
        ConfigError: In one line: what is wrong, where, and what would be right.
    """
    try:
        layers = read_layers(source, settings)
        for layer in layers:
            # Checked before the defaults are laid under them: a scalar would silently replace a section.
            _refuse_unknown(Recipe, typing.cast(dict[str, Any], OmegaConf.to_container(layer, resolve=False)))
        return _validate(overlay(_defaults(), layers), Path(source).stem if is_file(source) else str(source))
    except ValidationError as error:
        raise ConfigError("; ".join(_messages(error))) from error
    except ConfigError:
        raise
    except (ValueError, TypeError, OSError, yaml.YAMLError, OmegaConfBaseException, RecursionError) as error:
        raise ConfigError(f"recipe {source}: {str(error) or type(error).__name__}") from error


def dump_recipe(recipe: Recipe) -> str:
    """Return the recipe as YAML that ``load_recipe`` reads back to an equal value."""
    return yaml.safe_dump(recipe_tree(recipe), sort_keys=False, allow_unicode=True)


def recipe_tree(recipe: Recipe) -> dict[str, Any]:
    """Return the recipe as JSON types."""
    tree: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(recipe)))
    return tree


def flat_recipe(recipe: Recipe) -> dict[str, Any]:
    """Return every setting of the recipe by its dotted key, in order of the sections."""
    return dict(_leaves(recipe_tree(recipe)))


def differing_keys(a: Recipe, b: Recipe) -> list[str]:
    """Return the dotted keys whose values differ, in order of the sections."""
    return list(changes(a, b))


def changes(a: Recipe, b: Recipe) -> dict[str, tuple[Any, Any]]:
    """Return for each dotted key whose values differ the two values, in order of the sections."""
    flat_a, flat_b = flat_recipe(a), flat_recipe(b)
    return {key: (value, flat_b[key]) for key, value in flat_a.items() if value != flat_b[key]}


def _defaults() -> dict[str, Any]:
    """Return the lowest layer: every setting that neither the recipe's name nor its VQ-VAE decides."""
    defaults = dataclasses.asdict(Recipe())
    del defaults["name"]
    for key in FOLLOWS_VQVAE:
        del defaults["prior"][key]
    return defaults


def _validate(tree: dict[str, Any], name: str) -> Recipe:
    """Turn a tree into a recipe; what the recipe leaves open follows from its name and from the VQ-VAE."""
    _refuse_unknown(Recipe, tree)
    vqvae = adapter(dict[str, VQVAEConfig]).validate_json(_json({"vqvae": tree["vqvae"]}), strict=True)["vqvae"]
    tree["prior"] = {key: getattr(vqvae, key) for key in FOLLOWS_VQVAE} | tree["prior"]
    if tree["prior"]["code_features"]:  # on or off in a recipe; their width is that of a codebook entry
        tree["prior"]["code_features"] = vqvae.entry_size
    recipe: Recipe = adapter(Recipe).validate_json(_json({"name": name} | tree), strict=True)
    return recipe


@functools.cache
def adapter(kind: Any) -> TypeAdapter[Any]:
    """Return pydantic's validator of a type; building one takes longer than using it."""
    return TypeAdapter(kind)


def _json(tree: dict[str, Any]) -> str:
    """Encode for pydantic's strict JSON mode: no ``true`` or ``6.0`` for an int, yet lists for tuples."""
    for key, value in _leaves(tree):
        if isinstance(value, float) and not math.isfinite(value):
            raise ValueError(f"{key} is {value}; it must be finite")
    return json.dumps(tree, default=str)


def _leaves(tree: Mapping[str, Any], at: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{at}{key}.")
        else:
            yield f"{at}{key}", value


def _refuse_unknown(section: type, tree: Mapping[str, Any], at: str = "") -> None:
    """Raise for a key that the section does not have: pydantic would drop it in silence."""
    known = typing.get_type_hints(section)
    for key, value in tree.items():
        if key not in known:
            near = [f"{at}{name}" for name in difflib.get_close_matches(str(key), known, 1)] or _namesakes(str(key))
            raise ConfigError(f"unknown key {at}{key}" + (f"; did you mean {near[0]}?" if near else ""))
        if dataclasses.is_dataclass(known[key]):
            if not isinstance(value, Mapping):
                raise ConfigError(f"{at}{key} is a section, not a value ({value!r}); set {at}{key}.<key>=...")
            _refuse_unknown(typing.cast(type, known[key]), value, f"{at}{key}.")


def _namesakes(key: str) -> list[str]:
    """Return the dotted keys of all sections that end in this key."""
    return [full for full, _ in _leaves(dataclasses.asdict(Recipe())) if full.endswith(f".{key}")]


def _messages(error: ValidationError) -> Iterator[str]:
    """Yield one message per invalid field."""
    for item in error.errors():
        at = ".".join(str(part) for part in item["loc"])
        if item["type"] == "value_error":  # raised by a __post_init__, which names the field itself
            yield str(item["ctx"]["error"])
        else:
            hint = "; quote it" if item["type"] == "string_type" else ""
            yield f"{at}: {item['msg'][:1].lower()}{item['msg'][1:]}, not {item['input']!r}{hint}"
