"""What is kept between runs, in a folder of the user's; where that cannot be written, in a temporary one to the end.

Nothing kept is needed: what is not there is made or fetched again. So a full or read-only disk costs time, and one
sentence to the person, but no work.
"""

from __future__ import annotations

import atexit
import errno
import logging
import os
import shutil
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, TypeVar

import platformdirs
from safetensors import SafetensorError

from shoal.errors import CacheError

VARIABLE: Final = "SHOAL_CACHE"
OF_MATPLOTLIB: Final = "MPLCONFIGDIR"
PROBE_BYTES: Final = 4096  # so much a full disk does not take

_OF_THE_DISK: Final = {
    *(errno.EACCES, errno.EPERM, errno.EROFS),  # not allowed
    *(errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO),  # no room, or broken
    *(errno.ENOTDIR, errno.EEXIST, errno.ELOOP, errno.ENAMETOOLONG),  # no folder can be there
}

T = TypeVar("T")


def folder() -> Path:
    """Shoal's own: $SHOAL_CACHE, or a part of the user's cache folder."""
    named = os.environ.get(VARIABLE)
    return _expanded(Path(named)) if named else platformdirs.user_cache_path("shoal")


def find(name: str) -> Path | None:
    """The file or folder `name` where it was kept, by this process or an earlier one; None if it is not."""
    places = (place / name for place in (folder(), *_stand_in.made()))
    return next((place for place in places if _is_there(place)), None)


def keep(make: Callable[[Path], T]) -> T:
    """Let `make` write into Shoal's folder or, where that cannot be written, into a temporary one.

    `make` says so by a CacheError, as `writing` makes them.

    Raises:
        CacheError: the temporary one cannot be written either.
        Whatever else `make` raises.
    """
    place = folder()
    why = _stand_in.why(place) or why_unwritable(place)
    if why is None:
        try:
            return make(place)
        except CacheError as error:
            why = str(error)
    temporary = instead_of(place, why, VARIABLE)
    try:
        return make(temporary)
    except CacheError as error:
        raise CacheError(f"{temporary} cannot be written ({error}) either; make room, or set TMPDIR") from error


@contextmanager
def writing() -> Iterator[None]:
    """Make a CacheError of whatever says that the block cannot write."""
    try:
        yield
    except (OSError, SafetensorError) as error:
        raise CacheError(words_of(error)) from error


def instead_of(place: Path, why: str, variable: str) -> Path:
    """A temporary folder in place of one that cannot be written, and a sentence to the person if it is the first.

    Args:
        why: in a few words.
        variable: of the environment, by which the folder can be moved.
    """
    return _stand_in.take(place, why, variable)


def say_no_more() -> None:
    """The process that started this one has told the person already."""
    _stand_in.is_told = True


def is_told() -> bool:
    """Has the person been told?"""
    return _stand_in.is_told


def settle_matplotlib() -> None:
    """Before matplotlib is loaded: name it a folder that can be written, if its own cannot."""
    for place in matplotlib_folders():
        why = why_unwritable(place)
        if why is not None:
            os.environ[OF_MATPLOTLIB] = str(instead_of(place, why, OF_MATPLOTLIB) / "matplotlib")
            return


def matplotlib_folders() -> list[Path]:
    """Where matplotlib looks for settings, and keeps its list of fonts."""
    named = os.environ.get(OF_MATPLOTLIB)
    if named:
        return [Path(named)]
    if sys.platform.startswith(("linux", "freebsd")):
        return [platformdirs.user_config_path("matplotlib"), platformdirs.user_cache_path("matplotlib")]
    return [_expanded(Path("~", ".matplotlib"))]


def why_unwritable(place: Path) -> str | None:
    """Why nothing can be kept in a folder, in a few words; None if something can. It need not be there yet."""
    if place.parts[:1] == ("~",):
        return "there is no home folder"
    existing = place.absolute()
    while not _is_there(existing):
        existing = existing.parent
    try:
        with tempfile.TemporaryFile(dir=existing) as file:
            file.write(bytes(PROBE_BYTES))
    except OSError as error:
        return words_of(error)
    return None


def words_of(error: BaseException) -> str:
    """What an error says went wrong, without the place."""
    return (error.strerror if isinstance(error, OSError) else None) or str(error) or type(error).__name__


def is_of_the_disk(error: BaseException) -> bool:
    """Does an error say that a place cannot be written?"""
    return isinstance(error, OSError) and error.errno in _OF_THE_DISK


def _expanded(place: Path) -> Path:
    try:
        return place.expanduser()
    except RuntimeError:  # a ~ that stands for nothing
        return place


def _is_there(place: Path) -> bool:
    try:
        return place.exists()
    except OSError:  # nobody here may look
        return False


class _StandIn:
    """This process's temporary folder, for whatever cannot be written."""

    def __init__(self) -> None:
        self.is_told = False
        self._root: Path | None = None
        self._reasons: dict[Path, str] = {}
        self._lock = threading.Lock()

    def made(self) -> list[Path]:
        """The folder, if it was needed yet."""
        return [] if self._root is None else [self._root]

    def why(self, place: Path) -> str | None:
        """Why it stands in for `place`; None if it does not."""
        return self._reasons.get(place)

    def take(self, place: Path, why: str, variable: str) -> Path:
        with self._lock:
            self._reasons.setdefault(place, why)
            if self._root is None:
                self._root = Path(tempfile.mkdtemp(prefix="shoal-cache-"))
                atexit.register(_remove, self._root, os.getpid())
            if not self.is_told:
                self.is_told = True
                logging.getLogger(__name__).warning(
                    "%s cannot be written (%s): what belongs there goes to a temporary folder, which is removed at the "
                    "end, and is made anew each time; %s may name another place",
                    place,
                    why,
                    variable,
                )
            return self._root


def _remove(root: Path, process: int) -> None:
    if os.getpid() == process:  # not a forked child, whose parent goes on
        shutil.rmtree(root, ignore_errors=True)


_stand_in = _StandIn()
