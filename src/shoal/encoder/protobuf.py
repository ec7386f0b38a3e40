"""Walking through a message in protobuf's binary form: fields by number, nothing made of them.

https://protobuf.dev/programming-guides/encoding/: what a file from anywhere says of its own lengths is believed only
inside what is there. What Google's parser in C++ reads as something else than it says is refused, since who looks here
has to see what that one sees: it cuts a tag to 32 bits and takes a length of 31.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from shoal.encoder.file_bytes import FileBytes

VARINT: Final = 0
EIGHT_BYTES: Final = 1
DELIMITED: Final = 2
FOUR_BYTES: Final = 5
LONGEST_VARINT: Final = 10  # bytes
LONGEST_TAG: Final = 5  # bytes; of a length too
LARGEST_TAG: Final = (1 << 32) - 1
LARGEST_LENGTH: Final = (1 << 31) - 1
MOST_FIELDS: Final = 4_000_000  # a network of 20,000 operators has less than one; walked in some seconds

Bytes = memoryview | FileBytes
Value = int | Bytes  # of a varint, or of anything that has a length


class DamagedError(ValueError):
    """This is no such message; the text says why."""


@dataclass(slots=True)
class Walker:
    """Gives the fields of messages, of one file all together at most `most`."""

    most: int = MOST_FIELDS
    seen: int = 0

    def fields(self, message: Bytes) -> Iterator[tuple[int, Value]]:
        """The fields of a message, (number, value), in order; those of a fixed length are passed over.

        Raises:
            DamagedError: it ends amid a field, or has a field that no message has.
        """
        place, end = 0, len(message)
        while place < end:
            self.seen += 1
            if self.seen > self.most:
                raise DamagedError(f"it has over {self.most:,} fields")
            tag, place = _short(message, place, LARGEST_TAG, "tag")
            number, kind = tag >> 3, tag & 7
            if number == 0:
                raise DamagedError("a field has the number 0")
            if kind == VARINT:
                value, place = _varint(message, place)
                yield number, value
                continue
            if kind == DELIMITED:
                length, place = _short(message, place, LARGEST_LENGTH, "length")
            elif kind in (EIGHT_BYTES, FOUR_BYTES):
                length = 8 if kind == EIGHT_BYTES else 4
            else:
                raise DamagedError(f"a field is of the unknown kind {kind}")
            if length > end - place:
                raise DamagedError("it ends amid a field")
            if kind == DELIMITED:
                yield number, message[place : place + length]
            place += length


def varints(packed: Bytes) -> Iterator[int]:
    """Numbers that lie packed in one field. Raises DamagedError if the last one is cut."""
    place = 0
    while place < len(packed):
        value, place = _varint(packed, place)
        yield value


def _short(message: Bytes, place: int, most: int, what: str) -> tuple[int, int]:
    """A tag or a length at `place`, and the place behind it."""
    value, behind = _varint(message, place)
    if value > most or behind - place > LONGEST_TAG:
        raise DamagedError(f"a {what} is longer than any")
    return value, behind


def _varint(message: Bytes, place: int) -> tuple[int, int]:
    """A number of up to 64 bits at `place`, and the place behind it."""
    value = 0
    for shift in range(LONGEST_VARINT):
        if place >= len(message):
            raise DamagedError("it ends amid a number")
        byte = message[place]
        place += 1
        value |= (byte & 0x7F) << (7 * shift)
        if byte < 0x80:
            return value & 0xFFFF_FFFF_FFFF_FFFF, place
    raise DamagedError("a number has over 64 bits")
