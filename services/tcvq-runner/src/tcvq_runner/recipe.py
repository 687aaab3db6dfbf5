"""From a recipe's text and the user's settings to a checked `Recipe`, and back to text.

A recipe is the defaults, overlaid by a YAML file, overlaid by ``key=value`` settings. The fields of the models'
sections belong to the packages that own the models; nothing here lists them.
"""

import dataclasses
import difflib
import io
import json
import math
import re
import typing
from collections.abc import Iterator, Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import yaml
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import TypeAdapter, ValidationError

from tcvq_runner.config import FOLLOWS_VQVAE, Recipe
from tcvq_vqvae import VQVAEConfig

DEFAULT_RECIPE = "fashion-mini"


class ConfigError(ValueError):
    """A recipe that is missing, unreadable, or asks for something that does not exist or does not fit."""

    def __init__(self, message: str) -> None:
        super().__init__(" ".join(message.split()))  # what is quoted from a file may hold line breaks


def builtin_recipes() -> dict[str, str]:
    """Return the names of the recipes that come with the package, each with its first comment line."""
    files = sorted(resources.files("tcvq_runner").joinpath("recipes").iterdir(), key=lambda item: item.name)
    texts = {item.name.removesuffix(".yaml"): item.read_text("utf-8") for item in files if item.name.endswith(".yaml")}
    return {name: text.partition("\n")[0].removeprefix("#").strip() for name, text in texts.items()}


def load_recipe(source: str | Path = DEFAULT_RECIPE, settings: Sequence[str] = ()) -> Recipe:
    """Return the recipe of a built-in name or a YAML file, changed by ``key=value`` settings.

    Args:
        source: Name of a built-in recipe, or the path of a ``.yaml`` file.
        settings: Such as ``"vqvae.n_steps=6"``; later ones win.

    Raises:
        ConfigError: In one line: what is wrong, where, and what would be right.
    """
    try:
        name, text = _read(source)
        for setting in settings:
            if not re.match(r"[A-Za-z_][\w.]*=", setting):
                raise ConfigError(f"setting {setting!r} is not of the form section.key=value")
        return _validate(_merge(text, list(settings)), name)
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


def differing_keys(a: Recipe, b: Recipe) -> list[str]:
    """Return the dotted keys whose values differ, in order of the sections."""
    flat_a, flat_b = dict(_leaves(recipe_tree(a))), dict(_leaves(recipe_tree(b)))
    return [key for key in flat_a if flat_a[key] != flat_b[key]]


def _read(source: str | Path) -> tuple[str, str]:
    """Return a default name and the YAML text of a recipe."""
    path = Path(source)
    if path.suffix in {".yaml", ".yml"}:
        try:
            return path.stem, path.read_text("utf-8")
        except UnicodeDecodeError as error:
            raise ConfigError(f"recipe {path} is not a text file in UTF-8") from error
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else error
            raise ConfigError(f"cannot read recipe {str(path)!r}: {reason}") from error
    known = builtin_recipes()
    if str(source) not in known:
        near = difflib.get_close_matches(str(source), known, 1)
        hint = f"did you mean {near[0]}?" if near else f"known: {', '.join(known)}; or give the path of a .yaml file"
        raise ConfigError(f"unknown recipe {str(source)!r}; {hint}")
    return path.name, resources.files("tcvq_runner").joinpath("recipes", f"{source}.yaml").read_text("utf-8")


def _merge(text: str, settings: list[str]) -> dict[str, Any]:
    """Overlay the defaults with the file and the settings, and resolve references."""
    layer = OmegaConf.load(io.StringIO(text))
    if not isinstance(layer, DictConfig):
        raise ValueError("the file must be a mapping of sections, such as 'vqvae: {n_steps: 4}'")
    given = OmegaConf.merge(layer, OmegaConf.from_dotlist(settings))
    # The sections are checked before the defaults are laid under them: a scalar would silently replace a section.
    _refuse_unknown(Recipe, typing.cast(dict[str, Any], OmegaConf.to_container(given, resolve=False)))
    defaults = dataclasses.asdict(Recipe())
    del defaults["name"]
    for key in FOLLOWS_VQVAE:
        del defaults["prior"][key]
    merged = OmegaConf.to_container(OmegaConf.merge(defaults, given), resolve=True)
    return typing.cast(dict[str, Any], merged)


def _validate(tree: dict[str, Any], name: str) -> Recipe:
    """Turn a tree into a recipe; what the recipe leaves open follows from its name and from the VQ-VAE."""
    _refuse_unknown(Recipe, tree)
    vqvae = TypeAdapter(dict[str, VQVAEConfig]).validate_json(_json({"vqvae": tree["vqvae"]}), strict=True)["vqvae"]
    tree["prior"] = {key: getattr(vqvae, key) for key in FOLLOWS_VQVAE} | tree["prior"]
    if tree["prior"]["code_features"]:  # on or off in a recipe; their width is that of a codebook entry
        tree["prior"]["code_features"] = vqvae.n_steps * vqvae.embed_dim
    return TypeAdapter(Recipe).validate_json(_json({"name": name} | tree), strict=True)


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
