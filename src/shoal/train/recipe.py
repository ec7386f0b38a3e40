"""Reading recipes: YAML into the types of `shoal.train.config`, and what `--set` changes in them."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any, Final

import yaml

from shoal import foreign
from shoal.errors import ConfigError, RunError
from shoal.train.config import TrainConfig
from shoal.typed import Reader, shown

LARGEST: Final = 1 << 15  # bytes of a recipe, and of a value of --set: what is larger takes seconds to parse
RECIPE: Final = Reader(numbers_as_text=True, whole="the recipe")


def names() -> list[str]:
    """The recipes that come with Shoal."""
    return sorted(entry.name.removesuffix(".yaml") for entry in _folder().iterdir() if entry.name.endswith(".yaml"))


def load(recipe: str, changes: Sequence[str] = ()) -> TrainConfig:
    """A recipe by name or file, with `changes` such as `pretext.epochs=3`.

    Raises:
        ConfigError: there is no such recipe, or it has a key or a value that it cannot have.
    """
    values = _read(recipe)
    for change in changes:
        _set(values, change)
    with foreign.telling_of(f"recipe {recipe}", ConfigError):
        return RECIPE.read(TrainConfig, values)


def _read(recipe: str) -> dict[str, Any]:
    try:
        values = _yaml(_text(recipe))
    except (OSError, UnicodeDecodeError, RunError, yaml.YAMLError) as error:
        raise ConfigError(f"--recipe {recipe} cannot be read: {' '.join(str(error).split())}") from error
    if values is not None and not isinstance(values, dict):
        raise ConfigError(f"--recipe {recipe} holds {type(values).__name__}; expected keys with values")
    return values or {}


def _text(recipe: str) -> str:
    path = Path(recipe)
    if path.suffix in (".yaml", ".yml"):
        return foreign.read_bytes(path, LARGEST).decode()
    if recipe not in names():
        raise ConfigError(f"--recipe has value {recipe!r}; expected one of {', '.join(names())}, or a .yaml file")
    return str(_folder().joinpath(f"{recipe}.yaml").read_text(encoding="utf-8"))


def _set(values: dict[str, Any], change: str) -> None:
    """Carry out one `key.sub=value`."""
    path, separator, text = change.partition("=")
    keys = path.strip().split(".")
    if not separator or not all(keys):
        raise ConfigError(f"--set has value {change!r}; expected key.sub=value, such as pretext.epochs=100")
    try:
        value = _yaml(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"--set {path} has value {shown(text)}, which is no YAML value") from error
    for key in keys[:-1]:
        inner = values.setdefault(key, {})
        if not isinstance(inner, dict):
            raise ConfigError(f"--set has value {change!r}, but {key} holds no keys")
        values = inner
    values[keys[-1]] = value


class _Plain(yaml.SafeLoader):
    """YAML of plain values: a few lines of references stand for more than memory holds, and tags ask for types."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        event: Any = self.peek_event()  # type: ignore[no-untyped-call]
        if isinstance(event, yaml.AliasEvent) or getattr(event, "tag", None):
            raise yaml.YAMLError("references (*name) and tags (!name) are not read; expected each value as it is")
        return super().compose_node(parent, index)


def _yaml(text: str) -> Any:
    """Raises YAMLError."""
    if len(text) > LARGEST:
        raise yaml.YAMLError(f"it has over {LARGEST:,} characters; expected fewer")
    try:
        return yaml.load(text, _Plain)
    except RecursionError:
        raise yaml.YAMLError("it is nested too deeply") from None
    except ValueError as error:  # a date or a number that looks like one and is none
        raise yaml.YAMLError(str(error)) from error


def _folder() -> Any:
    return resources.files("shoal.train").joinpath("recipes")
