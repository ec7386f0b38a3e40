"""One writer at a time: of a run by a lock file that names its owner, of another folder without a trace in it."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Final

import filelock
import psutil

from shoal import atomic, foreign
from shoal.errors import RunError, RunLockedError
from shoal.process import lives
from shoal.typed import Between, Most, Printable

GUARD_SECONDS: Final = 10.0
UNFINISHED: Final = ".part"  # always the same name, for the guard is held: what a kill leaves is taken up again


@dataclass(frozen=True, slots=True)
class Owner:
    """A process, named so that no other process at another time or on another machine has the same name."""

    host: Annotated[str, Most(1000), Printable()]  # an error names it
    boot: str
    pid: Annotated[int, Between(1, (1 << 31) - 1)]
    started: float  # seconds since the epoch

    @classmethod
    def this_process(cls) -> Owner:
        return cls(socket.gethostname(), _boot_id(), os.getpid(), psutil.Process().create_time())

    def is_alive(self) -> bool:
        """True if the process runs, or may run: on another host nobody here can tell."""
        if self.host != socket.gethostname():
            return True
        if self.boot != _boot_id():
            return False
        return lives(self.pid, self.started)


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Hold the lock file `path` while the block runs.

    The lock belongs to this process alone: a forked child has another pid, so it neither holds nor releases it.

    Raises:
        RunLockedError: a living process, or one on another host, holds it.
    """
    me = Owner.this_process()
    _acquire(path, me)
    try:
        yield
    finally:
        if os.getpid() == me.pid:
            path.unlink(missing_ok=True)


def writer(path: Path) -> Owner | None:
    """The living process, other than this one, that holds the lock file `path`; None if there is none."""
    owner = _read_owner(path)
    return owner if owner is not None and owner != Owner.this_process() and owner.is_alive() else None


def require_held(path: Path, owner: Owner) -> None:
    """Raise RunLockedError unless `owner` holds the lock file: for who works for it, and may outlive it."""
    if _read_owner(path) != owner:
        raise RunLockedError(f"{path.parent} is no longer being written by process {owner.pid} on {owner.host}")


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Be the only Shoal on this machine that writes into `folder`, which is there, while the block runs.

    The system's own lock on the folder: nothing is written for it, and it goes with the process. Where there is none
    (Windows, some network disks) the block runs without.

    Raises:
        RunLockedError: another process is writing there.
    """
    if sys.platform == "win32":
        yield
        return
    import fcntl  # noqa: PLC0415  (Windows has none)

    descriptor = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise RunLockedError(f"another Shoal is writing into {folder} right now; wait for it to end") from None
        except OSError:  # a file system without locks: who publishes there twice at once is not kept from it
            pass
        yield
    finally:
        os.close(descriptor)


def _acquire(path: Path, me: Owner) -> None:
    # The guard only covers the look at the owner and the writing of ours; it is never held during work.
    path.parent.mkdir(parents=True, exist_ok=True)
    with filelock.FileLock(path.with_name(path.name + ".guard"), timeout=GUARD_SECONDS):
        owner = _read_owner(path)
        if owner is not None and owner.is_alive():
            raise RunLockedError(
                f"{path.parent} is being written by process {owner.pid} on {owner.host}; "
                f"wait for it to end (if that process is gone for certain, delete {path})"
            )
        atomic.write_json(path, asdict(me), path.with_name(path.name + UNFINISHED))


def _read_owner(path: Path) -> Owner | None:
    try:
        return foreign.read_json(path, Owner)
    except (FileNotFoundError, RunError):  # none, or not a lock of ours: nobody holds it
        return None


def _boot_id() -> str:
    linux = Path("/proc/sys/kernel/random/boot_id")
    return linux.read_text().strip() if linux.exists() else f"{psutil.boot_time():.0f}"
