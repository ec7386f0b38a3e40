"""Values from elsewhere made into typed ones: the JSON of runs and models, the YAML of recipes.

A dataclass says which fields there are and of what type; `Annotated` says how large a number, how long a text and how
many values may be. NaN and infinities are no numbers here. What does not fit is told in one line: which field, its
value, what was expected.
"""

from __future__ import annotations

import dataclasses
import math
import re
import reprlib
import types
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Annotated, Any, Final, TypeVar, Union, get_args, get_origin, get_type_hints

T = TypeVar("T")

LARGEST: Final = (1 << 63) - 1
LONGEST: Final = 1 << 16  # characters of a text of which nothing is said


class UnfitError(ValueError):
    """A value that does not fit; the text names the field, the value and what was expected."""


@dataclass(frozen=True, slots=True)
class Between:
    """A number from `least` to `most`; `above` and `below` leave the ends themselves out."""

    least: float = -math.inf
    most: float = math.inf
    above: bool = False
    below: bool = False

    def takes(self, value: float) -> bool:
        low = value > self.least if self.above else value >= self.least
        high = value < self.most if self.below else value <= self.most
        return low and high

    def __str__(self) -> str:
        low = "" if math.isinf(self.least) else f" above {self.least:,}" if self.above else f" from {self.least:,}"
        if math.isinf(self.most):
            return low if self.above or not low else f"{low} up"
        if self.below:
            return f"{low} and below {self.most:,}"
        return f"{low} and at most {self.most:,}" if self.above else f"{low} to {self.most:,}"


@dataclass(frozen=True, slots=True)
class Most:
    """At most so many values, or characters."""

    count: int


@dataclass(frozen=True, slots=True)
class OneOf:
    """One of the texts named."""

    choices: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Like:
    """A text that a pattern matches as a whole; `words` say which texts those are."""

    pattern: re.Pattern[str]
    words: str


@dataclass(frozen=True, slots=True)
class Printable:
    """A text that can be put on a terminal: nothing in it moves the cursor or turns the direction of writing."""


@dataclass(frozen=True, slots=True)
class Reader:
    """Makes values typed.

    Attributes:
        numbers_as_text: `1e-4` is a number, as people write it in YAML, which takes it for text.
        whole: what an error calls the outermost value.
        others: keys that a dataclass does not have are passed over, as a newer version may have written them; else
            they are refused.
    """

    numbers_as_text: bool = False
    whole: str = "it"
    others: bool = False

    def read(self, kind: type[T], value: Any, where: str = "") -> T:
        """`value` as `kind` says.

        Args:
            kind: a dataclass, or any type that one of its fields may have.
            where: what the value is called in an error: `encoder.size`.

        Raises:
            UnfitError: it is something else. What the dataclass itself raises goes through.
        """
        found: T = self._read(kind, value, where, ())
        return found

    def _read(self, kind: Any, value: Any, where: str, limits: tuple[Any, ...]) -> Any:
        origin, arguments = get_origin(kind), get_args(kind)
        if origin is Annotated:
            return self._read(arguments[0], value, where, (*limits, *arguments[1:]))
        if origin in (Union, types.UnionType):  # of X | None: no others are needed
            if value is None and type(None) in arguments:
                return None
            return self._read(next(one for one in arguments if one is not type(None)), value, where, limits)
        if origin in (tuple, dict):
            return (self._list if origin is tuple else self._mapping)(arguments, value, where, limits)
        if dataclasses.is_dataclass(kind):
            return self._object(kind, value, where)
        return value if kind is Any else self._plain(kind, value, where, limits)

    def _object(self, kind: Any, value: Any, where: str) -> Any:
        if not isinstance(value, Mapping):
            raise unfit(where or self.whole, value, "keys with values")
        fields = _fields(kind)
        unknown = sorted(str(name) for name in value if name not in fields)
        if unknown and not self.others:
            raise UnfitError(
                f"{where or self.whole} has unknown key {shown(unknown[0])}; expected only {', '.join(fields)}"
            )
        prefix = f"{where}." if where else ""
        for name, (_, is_needed) in fields.items():
            if is_needed and name not in value:
                raise UnfitError(f"{prefix}{name} is missing; expected one of the keys {', '.join(fields)}")
        return kind(
            **{
                name: self._read(hint, value[name], f"{prefix}{name}", ())
                for name, (hint, _) in fields.items()
                if name in value
            }
        )

    def _list(self, kinds: tuple[Any, ...], value: Any, where: str, limits: tuple[Any, ...]) -> tuple[Any, ...]:
        if not isinstance(value, list | tuple):
            raise unfit(where, value, "a list")
        _check_count(value, where, limits)
        if len(kinds) == 2 and kinds[1] is Ellipsis:
            kinds = (kinds[0],) * len(value)
        if len(value) != len(kinds):
            raise unfit(where, value, f"a list of {len(kinds)}")
        return tuple(
            self._read(kind, one, f"{where}[{place}]", ())
            for place, (kind, one) in enumerate(zip(kinds, value, strict=True))
        )

    def _mapping(self, kinds: tuple[Any, Any], value: Any, where: str, limits: tuple[Any, ...]) -> dict[Any, Any]:
        told = where or self.whole
        if not isinstance(value, Mapping):
            raise unfit(told, value, "keys with values")
        _check_count(value, told, limits)
        prefix = f"{where}." if where else ""
        return {
            self._read(kinds[0], _key(kinds[0], key), f"a key of {told}", ()): self._read(
                kinds[1], one, f"{prefix}{str(key)[:60]}", ()
            )
            for key, one in value.items()
        }

    def _plain(self, kind: Any, value: Any, where: str, limits: tuple[Any, ...]) -> Any:
        if kind is bool:
            if not isinstance(value, bool):
                raise unfit(where, value, "true or false")
            return value
        if kind is str:
            return _text(value, where, limits)
        if kind is float and self.numbers_as_text and isinstance(value, str):
            value = _as_number(value)
        return _number(kind, value, where, next((one for one in limits if isinstance(one, Between)), Between()))


def unfit(where: str, value: Any, expected: str) -> UnfitError:
    return UnfitError(f"{where} has value {shown(value)}; expected {expected}")


def shown(value: Any) -> str:
    """A value as an error can tell it: cut, on one line, whatever is in it."""
    return _SHORT.repr(value)


_SHORT: Final = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = 80
_SHORT.maxlong = 40


@cache
def _fields(kind: Any) -> dict[str, tuple[Any, bool]]:
    """Of a dataclass by name: the type, and whether a value has to be given."""
    hints = get_type_hints(kind, include_extras=True)
    missing = dataclasses.MISSING
    return {
        field.name: (hints[field.name], field.default is missing and field.default_factory is missing)
        for field in dataclasses.fields(kind)
        if field.init
    }


def _check_count(value: Any, where: str, limits: tuple[Any, ...]) -> None:
    for limit in limits:
        if isinstance(limit, Most) and len(value) > limit.count:
            raise UnfitError(f"{where} has {len(value):,} values; expected at most {limit.count:,}")


def _key(kind: Any, key: Any) -> Any:
    """A key of JSON is a text; where numbers are expected it is read as one."""
    inner = get_args(kind)[0] if get_origin(kind) is Annotated else kind
    return int(key) if inner is int and isinstance(key, str) and re.fullmatch(r"[0-9]{1,18}", key) else key


def _text(value: Any, where: str, limits: tuple[Any, ...]) -> str:
    if not isinstance(value, str):
        raise unfit(where, value, "text")
    longest = min((one.count for one in limits if isinstance(one, Most)), default=LONGEST)
    if len(value) > longest:
        raise UnfitError(f"{where} has {len(value):,} characters; expected at most {longest:,}")
    for limit in limits:
        if isinstance(limit, OneOf) and value not in limit.choices:
            raise unfit(where, value, f"one of {', '.join(limit.choices)}")
        if isinstance(limit, Like) and not limit.pattern.fullmatch(value):
            raise unfit(where, value, limit.words)
        if isinstance(limit, Printable) and not value.isprintable():
            raise unfit(where, value, "text without characters that cannot be shown")
    return value


def _as_number(text: str) -> Any:
    try:
        return float(text)
    except ValueError:
        return text


def _number(kind: Any, value: Any, where: str, limit: Between) -> Any:
    expected = ("a whole number" if kind is int else "a number") + str(limit)
    fits = isinstance(value, int | float if kind is float else int) and not isinstance(value, bool)
    if not fits or (isinstance(value, float) and not math.isfinite(value)) or abs(value) > LARGEST_OF[kind]:
        raise unfit(where, value, expected)
    if not limit.takes(value):
        raise unfit(where, value, expected)
    return kind(value)


LARGEST_OF: Final = {int: LARGEST, float: 1.7e308}
