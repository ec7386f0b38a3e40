"""Reading recipes: YAML into the types of `shoal.train.config`, and what `--set` changes in them."""

from __future__ import annotations

import dataclasses
import types
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

import yaml

from shoal.errors import ConfigError
from shoal.train.config import TrainConfig

Section = TypeVar("Section")


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
    return parse(TrainConfig, values, "")


def parse(kind: type[Section], values: Mapping[str, Any], where: str) -> Section:
    """An instance of the dataclass `kind` from a mapping; keys left out keep their defaults."""
    if not isinstance(values, Mapping):
        raise ConfigError(f"{where or 'the recipe'} has value {values!r}; expected keys with values")
    hints = get_type_hints(kind)
    known = [item.name for item in dataclasses.fields(kind)]  # type: ignore[arg-type]
    unknown = sorted(set(map(str, values)) - set(known))
    if unknown:
        raise ConfigError(f"{where or 'the recipe'} has unknown key {unknown[0]!r}; expected only {', '.join(known)}")
    prefix = f"{where}." if where else ""
    return kind(**{name: _typed(hints[name], value, f"{prefix}{name}") for name, value in values.items()})


def _read(recipe: str) -> dict[str, Any]:
    path = Path(recipe)
    try:
        if path.suffix in (".yaml", ".yml"):
            text = path.read_text(encoding="utf-8")
        elif recipe in names():
            text = _folder().joinpath(f"{recipe}.yaml").read_text(encoding="utf-8")
        else:
            raise ConfigError(f"--recipe has value {recipe!r}; expected one of {', '.join(names())}, or a .yaml file")
        values = yaml.safe_load(text)
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"--recipe {recipe} cannot be read: {' '.join(str(error).split())}") from error
    if values is not None and not isinstance(values, dict):
        raise ConfigError(f"--recipe {recipe} holds {type(values).__name__}; expected keys with values")
    return values or {}


def _set(values: dict[str, Any], change: str) -> None:
    """Carry out one `key.sub=value`."""
    path, separator, text = change.partition("=")
    keys = path.strip().split(".")
    if not separator or not all(keys):
        raise ConfigError(f"--set has value {change!r}; expected key.sub=value, such as pretext.epochs=100")
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"--set {path} has value {text!r}, which is no YAML value") from error
    for key in keys[:-1]:
        inner = values.setdefault(key, {})
        if not isinstance(inner, dict):
            raise ConfigError(f"--set has value {change!r}, but {key} holds no keys")
        values = inner
    values[keys[-1]] = value


def _typed(kind: Any, value: Any, where: str) -> Any:
    """`value` as the annotation `kind` says. Raises ConfigError if it is something else."""
    if dataclasses.is_dataclass(kind):
        return parse(kind, value, where)  # type: ignore[arg-type]
    if get_origin(kind) in (Union, types.UnionType):
        if value is None and type(None) in get_args(kind):
            return None
        return _typed(next(one for one in get_args(kind) if one is not type(None)), value, where)
    if get_origin(kind) is tuple:
        return _tuple(get_args(kind), value, where)
    if kind is float and isinstance(value, str):  # YAML takes 1e-4 for text
        try:
            value = float(value)
        except ValueError:
            raise _unfit(where, value, "a number") from None
    expected = {bool: "true or false", int: "a whole number", float: "a number", str: "text"}[kind]
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    fits = is_number if kind is float else isinstance(value, kind) and (kind is bool or not isinstance(value, bool))
    if not fits:
        raise _unfit(where, value, expected)
    return kind(value)


def _tuple(kinds: tuple[Any, ...], value: Any, where: str) -> tuple[Any, ...]:
    if not isinstance(value, list | tuple):
        raise _unfit(where, value, "a list")
    if len(kinds) == 2 and kinds[1] is Ellipsis:
        kinds = (kinds[0],) * len(value)
    if len(value) != len(kinds):
        raise _unfit(where, value, f"a list of {len(kinds)}")
    return tuple(_typed(kind, one, where) for kind, one in zip(kinds, value, strict=True))


def _unfit(where: str, value: Any, expected: str) -> ConfigError:
    return ConfigError(f"{where} has value {value!r}; expected {expected}")


def _folder() -> Any:
    return resources.files("shoal.train").joinpath("recipes")
