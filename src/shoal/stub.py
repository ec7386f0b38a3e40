"""Taking a run's folder away again that a command made, and failed before anything was in it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from shoal import lock
from shoal.draft import FIRST_MOMENTS
from shoal.errors import RunLockedError
from shoal.generations import FOLDER
from shoal.runfiles import CACHE, LOCK, RUN_JSON, read_run_json


@contextmanager
def removed_on_failure(root: Path) -> Iterator[None]:
    """If `root` is new, and the block fails before a stage has left anything in it, it goes again."""
    is_new = not os.path.lexists(root)
    try:
        yield
    except BaseException:
        if is_new and root.is_dir():
            with suppress(OSError, RunLockedError), lock.writing(root / LOCK):
                if _is_stub(root):
                    shutil.rmtree(root)
        raise


def _is_stub(root: Path) -> bool:
    names = {path.name for path in root.iterdir()}
    if not names <= {*FIRST_MOMENTS, RUN_JSON, CACHE} or read_run_json(root)["stages"]:
        return False
    return not any(path.is_file() for folder in (FOLDER, CACHE) for path in (root / folder).rglob("*"))
