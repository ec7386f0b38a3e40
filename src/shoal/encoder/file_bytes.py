"""A file's bytes, read when they are asked for.

Not mapped into memory: whoever shortens a mapped file kills the process that looks at it (SIGBUS), and a model's file
may be written by others while it is read.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import BinaryIO, Final, overload

BLOCK: Final = 1 << 16  # bytes that are read for the sake of one
AT_ONCE: Final = 1 << 20  # bytes of a part that is read as a whole


class CutOffError(ValueError):
    """The file has fewer bytes than it had."""


@dataclass(slots=True)
class FileBytes:
    """Bytes `start` to `end` of an open file: one by one, or parts of them, of which small ones are memoryviews."""

    file: BinaryIO
    start: int
    end: int
    block: bytes = field(default=b"", init=False)
    place: int = field(default=0, init=False)  # of the block, in this part

    def __len__(self) -> int:
        return self.end - self.start

    @overload
    def __getitem__(self, key: int) -> int: ...
    @overload
    def __getitem__(self, key: slice) -> memoryview | FileBytes: ...
    def __getitem__(self, key: int | slice) -> int | memoryview | FileBytes:
        if isinstance(key, slice):
            start, stop, _ = key.indices(len(self))
            if stop - start > AT_ONCE:
                return FileBytes(self.file, self.start + start, self.start + stop)
            return memoryview(self._read(start, stop))
        if not self.place <= key < self.place + len(self.block):
            self.block, self.place = self._read(key, min(key + BLOCK, len(self))), key
        return self.block[key - self.place]

    def __bytes__(self) -> bytes:
        return self._read(0, len(self))

    def _read(self, start: int, stop: int) -> bytes:
        self.file.seek(self.start + start)
        data = self.file.read(stop - start)
        if len(data) < stop - start:
            raise CutOffError("it was cut off while it was read")
        return data
