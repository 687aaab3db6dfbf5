"""From the texts of recipes, each of which may extend another, and the user's settings to one tree of values.

Nothing here knows which keys there are, and nothing heavy is imported: shells call this to complete a command.
"""

import difflib
import io
import re
import typing
from collections.abc import Iterator, Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

EXTENDS = "extends"
_ALTERNATIVES = (("max_steps", "max_epochs"), ("learning_rate", "base_lr"))  # of which a section has one
_SETTING = re.compile(r"[A-Za-z_][\w.]*=")


class ConfigError(ValueError):
    """A recipe that is missing, unreadable, or asks for something that does not exist or does not fit."""

    def __init__(self, message: str) -> None:
        super().__init__(" ".join(message.split()))  # what is quoted from a file may hold line breaks


def builtin_recipes() -> dict[str, str]:
    """Return the names of the recipes that come with the package, each with its first comment line."""
    files = sorted(resources.files("tcvq_runner").joinpath("recipes").iterdir(), key=lambda item: item.name)
    texts = {item.name.removesuffix(".yaml"): item.read_text("utf-8") for item in files if item.name.endswith(".yaml")}
    return {name: text.partition("\n")[0].removeprefix("#").strip() for name, text in texts.items()}


def is_file(source: str | Path) -> bool:
    """Return whether a recipe is named by the path of its file."""
    return Path(source).suffix in {".yaml", ".yml"}


def read_layers(source: str | Path, settings: Sequence[str]) -> list[DictConfig]:
    """Return the layers of a recipe, those it extends first, the settings last.

    Args:
        source: Name of a built-in recipe, or the path of a ``.yaml`` file.
        settings: Such as ``"vqvae.n_steps=6"``.

    Raises:
        ConfigError: A file is missing or no recipe, recipes extend each other in a circle, or a setting has no ``=``.
    """
    for setting in settings:
        if not _SETTING.match(setting):
            raise ConfigError(f"setting {setting!r} is not of the form section.key=value")
        if setting.startswith(f"{EXTENDS}="):
            raise ConfigError(f"{EXTENDS} is written in a recipe file, not on the command line; run that recipe")
    return [*_files(source, ()), OmegaConf.from_dotlist(list(settings))]


def overlay(defaults: Mapping[str, Any], layers: Sequence[DictConfig]) -> dict[str, Any]:
    """Lay the layers over the defaults and resolve references between keys.

    Where a section has one of two keys, such as ``max_steps`` or ``max_epochs``, a layer that sets one of them clears
    what the layers below say of the other.

    Args:
        defaults: The lowest layer.
        layers: What lies over it, the last one on top.
    """
    merged = OmegaConf.create(dict(defaults))
    for layer in layers:
        for section, values in layer.items():
            if isinstance(values, DictConfig) and isinstance(merged.get(section), DictConfig):
                _clear_alternatives(merged[section], values)
        merged = typing.cast(DictConfig, OmegaConf.merge(merged, layer))
    return typing.cast(dict[str, Any], OmegaConf.to_container(merged, resolve=True))


def _clear_alternatives(below: DictConfig, layer: DictConfig) -> None:
    given = typing.cast(dict[str, Any], OmegaConf.to_container(layer))
    for pair in _ALTERNATIVES:
        for key, other in (pair, pair[::-1]):
            if given.get(key) is not None and other in below and other not in given:
                below[other] = None


def _files(source: str | Path, above: tuple[Path | str, ...]) -> Iterator[DictConfig]:
    """Yield the layers of a recipe's file, the lowest first; ``above`` are the recipes that extend it."""
    identity = Path(source).resolve() if is_file(source) else str(source)
    if identity in above:
        raise ConfigError(f"recipes extend each other in a circle: {' -> '.join(map(_short, (*above, identity)))}")
    try:
        layer = OmegaConf.load(io.StringIO(_read(source)))
    except ConfigError as error:
        raise ConfigError(f"{_short(above[-1])} extends: {error}" if above else str(error)) from error
    if not isinstance(layer, DictConfig):
        raise ValueError("the file must be a mapping of sections, such as 'vqvae: {n_steps: 4}'")
    base = layer.pop(EXTENDS, None)
    if base is not None:
        if not isinstance(base, str) or not base:
            raise ConfigError(f"{_short(identity)} extends: name one recipe or .yaml file, not {base!r}")
        beside = Path(source).parent / base if is_file(source) and is_file(base) else base
        for below in _files(beside, (*above, identity)):
            below.pop("name", None)  # of the recipe that is extended
            yield below
    yield layer


def _short(recipe: Path | str) -> str:
    return recipe.name if isinstance(recipe, Path) else recipe


def _read(source: str | Path) -> str:
    """Return the YAML text of a recipe."""
    path = Path(source)
    if is_file(source):
        try:
            return path.read_text("utf-8")
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
    return resources.files("tcvq_runner").joinpath("recipes", f"{source}.yaml").read_text("utf-8")
