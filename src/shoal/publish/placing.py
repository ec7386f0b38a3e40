"""Putting a publication in the place of an earlier one, so that at every moment one of the two is there, whole.

Folders cannot be swapped on every system, and not all have symbolic links; but on each of them a file takes another's
name in one step. `shoal.publication` says how that is enough.
"""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

from shoal import atomic, lock
from shoal.errors import DiskSpaceError, RequestError
from shoal.publication import MANIFEST, Manifest, is_staging_name, staging_folder
from shoal.rundir import digest_file

EARLIER: Final = "earlier.json"  # in the folder where it is made ready: the manifest whose files may be replaced
PART: Final = ".part"


def check_replaceable(target: Path) -> None:
    """Raise RequestError unless there is nothing at `target`, or an earlier publication that nobody changed since."""
    if not target.exists():
        return
    if not target.is_dir():
        raise RequestError(f"--to has value {str(target)!r}, which is a file; expected a folder, new or not")
    found = sorted(path.name for path in target.iterdir() if not _is_staging(path))
    if not found:
        return
    if (target / MANIFEST).is_symlink() or Manifest.read(target / MANIFEST) is None:
        raise RequestError(
            f"--to has value {str(target)!r}, a folder with files that shoal publish has not written (such as "
            f"{found[0]!r}); expected a new folder, or an earlier publication"
        )
    known = _known(target)
    for name in found:
        if name != MANIFEST:
            _require_own(target / name, known.get(name, set()))


def put(made: Path, target: Path) -> list[str]:
    """Make the files of `made` the publication in `target`. May be killed, and called again with the same or others.

    Args:
        made: a folder of files with their manifest.

    Returns:
        Lines for the person about what was left where it lies.

    Raises:
        RequestError: somebody else's file is in the way; it is untouched.
        RunLockedError: another process publishes there. DiskSpaceError: the disk ran full.
    """
    is_new = not target.exists()
    if is_new:
        target.mkdir(parents=True)
    with lock.alone(target):
        check_replaceable(target)
        _finish(target)
        news = [path for path in sorted(made.iterdir()) if not _is_there(path, target)]
        if not news:
            return _clear(target)
        manifest = (made / MANIFEST).read_bytes()
        staging = staging_folder(target, manifest)
        try:
            _make_ready(news, made / MANIFEST, target, staging)
        except OSError as error:
            _remove(staging, _own_names(manifest))
            if is_new:
                with suppress(OSError):  # it holds something
                    target.rmdir()
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise DiskSpaceError(f"the disk of {target} is full; nothing there has changed") from error
            raise
        (staging / MANIFEST).replace(target / MANIFEST)  # from here on this is what is published
        atomic.sync_folder(target)
        _finish(target)
        return _clear(target)


def _make_ready(news: Sequence[Path], manifest: Path, target: Path, staging: Path) -> None:
    """Put what `target` has not got yet, the manifest first, whole and on the disk, into `staging`."""
    staging.mkdir(exist_ok=True)
    _copy(manifest, staging / MANIFEST)
    if (target / MANIFEST).exists():
        _copy(target / MANIFEST, staging / EARLIER)
    for path in news:
        if path != manifest:
            _copy(path, staging / path.name)
    atomic.sync_folder(staging)
    atomic.sync_folder(target)


def _copy(source: Path, target: Path) -> None:
    part = target.with_name(target.name + PART)
    shutil.copyfile(source, part)
    shutil.copymode(source, part)
    with part.open("rb+") as file:
        os.fsync(file.fileno())
    part.replace(target)


def _finish(target: Path) -> None:
    """Move the files of what is published already, and is still on its way, to where other programs look for them.

    Raises:
        RequestError: one of the earlier files was changed meanwhile; it stays.
    """
    staging, current = _arriving(target)
    if staging is None or current is None:
        return
    known, earlier = _known(target), Manifest.read(staging / EARLIER)
    for name in current.files:
        if (staging / name).exists():
            if os.path.lexists(target / name):
                _require_own(target / name, known[name])
            (staging / name).replace(target / name)
    for name in set(() if earlier is None else earlier.files) - set(current.files):
        if os.path.lexists(target / name):
            _require_own(target / name, known[name])
            (target / name).unlink()
    atomic.sync_folder(target)
    _remove(staging, (*current.files, EARLIER))


def _clear(target: Path) -> list[str]:
    """Remove what killed publications left, as far as it is what their manifests say."""
    left = []
    for staging in sorted(path for path in target.iterdir() if _is_staging(path)):
        manifest = staging / MANIFEST
        data = manifest.read_bytes() if manifest.is_file() and not manifest.is_symlink() else b""
        if not _remove(staging, _own_names(data) if staging_folder(target, data) == staging else ()):
            left.append(f"{staging} is left of a publication that was cut off; what is in it is not known for Shoal's")
    return left


def _remove(staging: Path, files: Iterable[str]) -> bool:
    """Remove the named files, whole or not, and the folder; False if something else is in it."""
    for name in files:
        for path in (staging / (name + PART), staging / name):
            path.unlink(missing_ok=True)
    try:
        staging.rmdir()
    except OSError:
        return not staging.exists()
    return True


def _arriving(target: Path) -> tuple[Path | None, Manifest | None]:
    """The folder that holds files of the current publication still, if there is one, and its manifest."""
    try:
        data = (target / MANIFEST).read_bytes()
    except OSError:
        return None, None
    staging = staging_folder(target, data)
    return (staging, Manifest.parse(data)) if staging.is_dir() and not staging.is_symlink() else (None, None)


def _known(target: Path) -> dict[str, set[str]]:
    """Digests by name of what may lie in `target`: the publication's files, and while it arrives the earlier ones."""
    staging, _ = _arriving(target)
    known: dict[str, set[str]] = {}
    for manifest in (Manifest.read(target / MANIFEST), Manifest.read(staging / EARLIER) if staging else None):
        for name, digest in ({} if manifest is None else manifest.files).items():
            known.setdefault(name, set()).add(digest)
    return known


def _own_names(manifest: bytes) -> list[str]:
    """What a publication with this manifest has in the folder where it is made ready; what tells so is the last."""
    found = Manifest.parse(manifest)
    return [*(() if found is None else found.files), EARLIER, MANIFEST]


def _is_there(path: Path, target: Path) -> bool:
    there = target / path.name
    return there.is_file() and digest_file(there) == digest_file(path)


def _require_own(path: Path, digests: set[str]) -> None:
    if not digests:
        raise RequestError(
            f"{path.parent} holds {path.name!r}, which shoal publish has not written; move it elsewhere first"
        )
    if path.is_symlink() or not path.is_file() or digest_file(path) not in digests:
        raise RequestError(f"{path} was changed since it was published; move it elsewhere first")


def _is_staging(path: Path) -> bool:
    return is_staging_name(path.name) and path.is_dir() and not path.is_symlink()
