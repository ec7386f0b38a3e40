"""Reading members out of tar files by their place. A gzipped one is unpacked once, onto the disk if there is room."""

from __future__ import annotations

import gzip
import threading
import zlib
from collections import OrderedDict, deque
from typing import IO, BinaryIO, Final

from shoal.errors import DecodeError
from shoal.images.gate import Gate
from shoal.images.storage import reading_errors

GZIP_ENDINGS: Final = (".gz", ".tgz")
WINDOW_BYTES: Final = 64 << 20  # of the unpacked stream, kept behind the reading point
CHUNK_BYTES: Final = 1 << 20
OPEN_STREAMS: Final = 4


def open_unpacked(gate: Gate, uri: str) -> IO[bytes] | None:
    """What is in a gzipped file, as far as it can be unpacked, seekable; None if there is no room for it.

    Raises:
        OSError: it is not gzipped.
    """
    return gate.unpacked(uri, _unpack)


def _unpack(packed: IO[bytes], target: BinaryIO) -> None:
    with gzip.GzipFile(fileobj=packed) as stream:
        try:
            while chunk := stream.read1(CHUNK_BYTES):
                target.write(chunk)
        except (EOFError, zlib.error):  # broken off: what came before is good
            return


class MemberReader:
    """Reads members of any number of tar files; may be used from several threads.

    In a gzipped tar there is no seeking. Where the disk has no room for what is in it, it is unpacked forwards, and the
    last WINDOW_BYTES are kept for members that are asked for a little out of order. A member before the window costs
    unpacking from the beginning again.
    """

    def __init__(self, gate: Gate) -> None:
        self._gate = gate
        self._lock = threading.Lock()
        self._streams: OrderedDict[str, _Stream] = OrderedDict()

    def read(self, uri: str, offset: int, size: int) -> bytes:
        """`size` bytes at `offset` of the (unpacked) tar at `uri`.

        Raises:
            DecodeError: the file is gone, broken, or ends before.
        """
        if uri.lower().endswith(GZIP_ENDINGS):
            data = self._read_packed(uri, offset, size)
        else:
            data = self._gate.read_range(uri, offset, size)
        if len(data) < size:
            raise DecodeError("the tar file ends within this member")
        return data

    def _read_packed(self, uri: str, offset: int, size: int) -> bytes:
        with reading_errors():
            unpacked = open_unpacked(self._gate, uri)
            if unpacked is not None:
                with unpacked:
                    unpacked.seek(offset)
                    return unpacked.read(size)
            with self._lock:
                return self._stream(uri).read(offset, size)

    def _stream(self, uri: str) -> _Stream:
        stream = self._streams.get(uri)
        if stream is None:
            while len(self._streams) >= OPEN_STREAMS:
                self._streams.popitem(last=False)[1].close()
            stream = self._streams[uri] = _Stream(self._gate, uri)
        self._streams.move_to_end(uri)
        return stream


class _Stream:
    """An unpacked stream with a window behind it."""

    def __init__(self, gate: Gate, uri: str) -> None:
        self._gate, self._uri = gate, uri
        self._raw: IO[bytes] | None = None
        self._unpacked: gzip.GzipFile | None = None
        self._chunks: deque[bytes] = deque()
        self._first = 0  # offset of the window's first byte
        self._last = 0  # offset of the next byte to unpack

    def read(self, offset: int, size: int) -> bytes:
        if self._unpacked is None or offset < self._first:
            self.close()
            self._raw = self._gate.open(self._uri)
            self._unpacked = gzip.GzipFile(fileobj=self._raw)
        while self._last < offset + size and self._unpack(offset):
            pass
        return self._cut(offset, size)

    def close(self) -> None:
        """Forget everything; the next read begins anew."""
        for file in (self._unpacked, self._raw):
            if file is not None:
                file.close()
        self._unpacked = self._raw = None
        self._chunks.clear()
        self._first = self._last = 0

    def __del__(self) -> None:  # readers are made freely and have no end of their own
        self.close()

    def _unpack(self, needed: int) -> bool:
        """Unpack one more chunk, and forget what lies behind the window and is not `needed` (an offset)."""
        try:
            chunk = self._unpacked.read1(CHUNK_BYTES) if self._unpacked is not None else b""
        except EOFError:  # broken off: what came before is good
            chunk = b""
        if not chunk:
            return False
        self._chunks.append(chunk)
        self._last += len(chunk)
        while self._last - self._first > WINDOW_BYTES and self._first + len(self._chunks[0]) <= needed:
            self._first += len(self._chunks.popleft())
        return True

    def _cut(self, offset: int, size: int) -> bytes:
        parts = []
        start = self._first
        for chunk in self._chunks:
            if start + len(chunk) > offset and start < offset + size:
                parts.append(chunk[max(0, offset - start) : offset + size - start])
            start += len(chunk)
        return b"".join(parts)
