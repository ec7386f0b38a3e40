"""Sound files and values with a few things changed, drawn from a generator: the same draws give the same changes."""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Iterator
from typing import Any

EXTREMES = (b"\x00", b"\xff", b"\x7f\xff\xff\xff", b"\xff\xff\xff\xff", b"\x80\x00\x00\x00", b"\x00\x00\x00\x01")
VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 1, 2, 3, 0.5, -0.5, 1e-300, 1e308, 2**31, 2**53, 2**63, -(2**63), 10**400),
    *(float("nan"), float("inf"), float("-inf"), "", " ", "a", "nan", "1e999", "..", "../../x", "/etc/passwd", "\0"),
    *(
        "\x1b[2J",
        "\u202e",
        "x" * 70_000,
        "hf_hub:a/b",
        "local-dir:/tmp",
        "lanczos",
        [],
        [[]],
        {},
        {"": None},
        [0] * 1000,
    ),
)


def damaged(data: bytes, draw: random.Random, others: list[bytes]) -> bytes:
    """A few changes to bytes, many of them near the beginning, where headers are."""
    for _ in range(draw.choice((1, 1, 1, 2, 4, 16))):
        size = len(data)
        near = min(size, draw.choice((64, 512, size, size, size)))
        at = draw.randrange(near + 1)
        match draw.choice((0, 0, 0, 1, 1, 1, 2, 2, 3, 4, 5, 6, 7)):
            case 0:  # a bit
                data = _with(data, at, bytes([data[at] ^ 1 << draw.randrange(8)]) if at < size else b"")
            case 1:
                data = _with(data, at, bytes([draw.randrange(256)]))
            case 2:
                data = _with(data, at, draw.choice(EXTREMES))
            case 3:
                data = data[: draw.randrange(size + 1)]
            case 4:
                data = data[:at] + draw.randbytes(draw.choice((1, 4, 64))) + data[at:]
            case 5:  # a piece is gone
                data = data[:at] + data[at + draw.choice((1, 4, 64)) :]
            case 6:  # a piece comes twice
                stop = at + draw.choice((4, 64, 1024))
                data = data[:stop] + data[at:stop] + data[stop:]
            case 7:  # the end of another
                other = draw.choice(others)
                data = data[:at] + other[min(at, len(other)) :]
    return data


def _with(data: bytes, at: int, piece: bytes) -> bytes:
    return data[:at] + piece + data[at + len(piece) :]


def changed(value: Any, draw: random.Random) -> Any:
    """A JSON value with one to three of the values in it replaced, removed, doubled or put elsewhere."""
    value = copy.deepcopy(value)
    for _ in range(draw.choice((1, 1, 1, 2, 3))):
        found = list(places(value))
        if not found:
            return draw.choice(VALUES)
        holder, key = draw.choice(found)
        match draw.randrange(6):
            case 0 | 1 | 2:
                holder[key] = copy.deepcopy(draw.choice(VALUES))
            case 3:
                del holder[key]
            case 4:
                holder[key] = copy.deepcopy(draw.choice(found)[0])
            case 5 if isinstance(holder, dict):
                holder[draw.choice(("", "x", "-1", "99999999999", "1.5", "../x", str(key)))] = holder[key]
            case _:
                number = holder[key]
                is_number = isinstance(number, int | float) and not isinstance(number, bool)
                holder[key] = number * draw.choice((-1, 0, 2, 1000, 10**12)) if is_number else [number, number]
    return value


def places(value: Any) -> Iterator[tuple[Any, Any]]:
    keys = list(value) if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    for key in keys:
        yield value, key
        yield from places(value[key])


def changed_json(value: Any, draw: random.Random) -> bytes:
    """JSON of a changed value; now and then the text is damaged, or nested too deeply."""
    match draw.randrange(10):
        case 0:
            text = json.dumps(value).encode()
            return damaged(text, draw, [text])
        case 1:
            return b"[" * 100_000 if draw.random() < 0.5 else b'{"a":' * 100_000
        case _:
            return json.dumps(changed(value, draw)).encode()
