"""Rows of embeddings read at random."""

from __future__ import annotations

import threading
from functools import lru_cache
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from shoal.embeddings import EmbeddingStore, Float32, Ids, normalise_rows, part_of, part_range
from shoal.halves import widened

MOST_OPEN = 4096  # parts mapped at a time; Linux lets a process have 65,530
WIDENED_ROWS = 128  # at a time: they stay in the cache


class Rows:
    """Rows of unit length by id: parts stay mapped between calls, and are not looked through for NaN again."""

    def __init__(self, store: EmbeddingStore) -> None:
        self._dim, self._rows = store.dim, store.rows
        self._dtype = np.dtype(store.dtype)
        self._part = lru_cache(MOST_OPEN)(lambda number: np.asarray(store.part(number)))
        self._kept = threading.local()

    def read(self, ids: Ids) -> Float32:
        """Rows [len(ids), dim] of rising `ids`, in memory that this thread's next call uses again.

        To get tens of megabytes anew from the system each time takes longer than to fill them.
        """
        raw, wide = self._buffers(len(ids))
        numbers = part_of(ids)
        edges = np.flatnonzero(np.diff(numbers, prepend=-1)).tolist()
        for start, stop in pairwise([*edges, len(ids)]):
            number = int(numbers[start])
            own = ids[start:stop] - part_range(number, self._rows).start
            np.take(self._part(number), own, axis=0, out=raw[start:stop], mode="clip")
        for start in range(0, len(ids), WIDENED_ROWS):
            few = slice(start, start + WIDENED_ROWS)
            if raw.dtype == np.float16:
                widened(raw[few], wide[few])
            else:
                wide[few] = raw[few]
            normalise_rows(wide[few])
        return wide

    def _buffers(self, rows: int) -> tuple[npt.NDArray[Any], Float32]:
        if rows > getattr(self._kept, "rows", 0):
            self._kept.rows = rows + rows // 4
            self._kept.raw = np.empty((self._kept.rows, self._dim), dtype=self._dtype)
            self._kept.wide = np.empty((self._kept.rows, self._dim), dtype=np.float32)
        return self._kept.raw[:rows], self._kept.wide[:rows]
