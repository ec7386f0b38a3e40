"""The image behind a picture: where it lies, its bytes as they were clustered, or why they cannot be had."""

from __future__ import annotations

import hashlib
import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from shoal.errors import DecodeError, ShoalError
from shoal.images.location import display_path, local_path, split_fragment
from shoal.images.reading import ImageReader
from shoal.images.storage import GONE, UNREADABLE, is_local
from shoal.rundir import RunDir
from shoal.wording import command

READERS: Final = 16  # at once: waiting for a network is not work, but what is read takes memory
MOST_FAILURES: Final = 16  # in a row, after which a network is left alone for a while
REST_SECONDS: Final = 60.0
CHANGED: Final = "changed since clustering"


@dataclass(frozen=True, slots=True)
class Original:
    """An image as images.parquet has it; `sha256`, `width` and `height` are None where it was never read."""

    path: str
    uri: str
    sha256: str | None
    width: int | None
    height: int | None

    @property
    def longest(self) -> int | None:
        """Pixels along its longer side."""
        return None if self.width is None or self.height is None else max(self.width, self.height)

    def lies_in(self) -> str | None:
        """The folder that `path` is relative to, or the table or tar that holds it; None where it is not local."""
        base, place = split_fragment(self.uri)
        if not is_local(base):
            return None
        found = local_path(base)
        for _ in () if place else self.path.strip("/").split("/"):
            found = os.path.dirname(found)
        return found


class Originals:
    """Reads the bytes of a run's images; may be used from several threads."""

    def __init__(self, run_dir: RunDir, clock: Callable[[], float] = time.monotonic) -> None:
        self._run = run_dir.root
        self._reader = ImageReader(run_dir.spool)
        self._reading = threading.BoundedSemaphore(READERS)
        self._network = _Patience(clock)

    def read(self, original: Original) -> bytes:
        """All bytes, the very ones that were clustered.

        Raises:
            DecodeError: they cannot be had: the file or its source is gone, was changed, or cannot be read. The text
                stands where a person looks for the picture.
        """
        is_near = is_local(original.uri)
        if not is_near:
            self._network.require()
        try:
            with self._reading:
                data = self._reader.read(original.uri)
        except (ShoalError, OSError) as error:
            if not is_near:
                self._network.failed(str(error))
            raise DecodeError(self._why(original, str(error))) from error
        if not is_near:
            self._network.worked()
        if original.sha256 is not None and hashlib.sha256(data).hexdigest() != original.sha256:
            raise DecodeError(CHANGED)
        return data

    def _why(self, original: Original, reason: str) -> str:
        if reason != GONE:
            return reason
        place = original.lies_in()
        state = None if place is None else _state_of(place)
        if place is None or state is None:
            return "gone from the source"
        name = self._run.absolute().name
        how = command("shoal", "relink", name, "SOURCE")
        return f"the source {display_path(place)} is {state} ({how} says where it is now)"


def _state_of(place: str) -> str | None:
    """Why nothing of a source can be there, or None. Where nothing is mounted, there is an empty folder."""
    try:
        if os.path.isdir(place):
            with os.scandir(place) as entries:
                return None if any(entries) else "empty"
    except OSError:
        return None
    return None if os.path.lexists(place) else "not there"


class _Patience:
    """Gives a network a rest that fails again and again: each try may take minutes, and pictures are many."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._failures = 0
        self._reason = ""
        self._rests_until = 0.0

    def require(self) -> None:
        """Raises DecodeError while it rests."""
        with self._lock:
            if self._failures >= MOST_FAILURES and self._clock() < self._rests_until:
                raise DecodeError(self._reason)

    def failed(self, reason: str) -> None:
        with self._lock:
            if not reason.startswith(UNREADABLE):  # gone, or no image: the network told so
                self._failures = 0
                return
            self._failures += 1
            self._reason, self._rests_until = reason, self._clock() + REST_SECONDS

    def worked(self) -> None:
        with self._lock:
            self._failures = 0
