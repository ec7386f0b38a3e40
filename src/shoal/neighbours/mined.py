"""The mined neighbours of a run as they lie on disk."""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from shoal.embeddings import Float32, read_array
from shoal.errors import RunError
from shoal.rundir import RunDir

IDS: Final = "ids.npy"
SIMILARITY: Final = "similarity.npy"


def read_ids(run_dir: RunDir) -> npt.NDArray[np.int32] | None:
    """Ids int32 [N, K] of every image's nearest others as a memory map, -1 for none; None where none were mined.

    Raises:
        RunError: they are not readable.
    """
    path = run_dir.neighbours / IDS
    return read_array(path, (None, None), np.dtype(np.int32)) if path.is_file() else None


def read_mined(run_dir: RunDir) -> tuple[npt.NDArray[np.int32], Float32] | None:
    """What `read_ids` gives, and their similarity float32 [N, K].

    Raises:
        RunError: they are not readable, or not of each other.
    """
    ids = read_ids(run_dir)
    return None if ids is None else (ids, read_array(run_dir.neighbours / SIMILARITY, ids.shape, np.dtype(np.float32)))


def check_among(ids: npt.NDArray[np.int32], count: int, run_dir: RunDir) -> None:
    """Raise RunError unless all `ids` are -1 or of one of `count` images."""
    if ids.size and not -1 <= ids.min() <= ids.max() < count:
        raise RunError(
            f"{run_dir.neighbours / IDS} goes from {ids.min()} to {ids.max()}; expected ids of {count:,} images, or -1"
        )
