"""Prototypes of clusters for the page: looked for among the surest images only, and kept while a cluster stays."""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from typing import Final

import numpy as np

from shoal.browse.snapshot import Rows, Snapshot
from shoal.cluster.model import ClusterModel
from shoal.report.prototypes import prototypes

SHOWN: Final = 8
POOL: Final = 48  # surest images of a cluster that are looked at
KEPT: Final = 5000


class Prototypes:
    """Finds prototypes; may be used from several threads."""

    def __init__(self) -> None:
        self._found: OrderedDict[bytes, list[int]] = OrderedDict()
        self._lock = threading.Lock()

    def of(self, snapshot: Snapshot, clusters: list[Rows]) -> list[list[int]]:
        """Up to SHOWN ids for each cluster, given its rows, surest first."""
        pools = [_pool(snapshot, rows) for rows in clusters]
        keys = [
            hashlib.blake2b(pool.tobytes() + snapshot.corrected.base.encode(), digest_size=16).digest()
            for pool in pools
        ]
        with self._lock:
            missing = [place for place, key in enumerate(keys) if key not in self._found]
            if missing:
                self._find(snapshot, [pools[place] for place in missing], [keys[place] for place in missing])
            return [self._found[key] for key in keys]

    def _find(self, snapshot: Snapshot, pools: list[Rows], keys: list[bytes]) -> None:
        """Look for all at once: every part of the embeddings is opened once."""
        corrected = snapshot.corrected
        store = snapshot.store
        space = ClusterModel.load(snapshot.run_dir.model).space.plain
        together = np.concatenate(pools)
        distinct, place = np.unique(corrected.ids[corrected.original[together]], return_inverse=True)
        points = np.concatenate([space.transform(rows) for _, rows in store.blocks(distinct, 2048)])[place]
        start = 0
        for key, pool in zip(keys, pools, strict=True):
            inside = slice(start, start + len(pool))
            shown = prototypes(points[inside], corrected.confidence[pool], SHOWN, corrected.pinned[pool])
            self._found[key] = corrected.ids[pool[np.sort(shown)]].tolist()
            start += len(pool)
        while len(self._found) > KEPT + len(pools):
            self._found.popitem(last=False)


def _pool(snapshot: Snapshot, rows: Rows) -> Rows:
    """The surest originals, those that a person put there last; where all are unsure, the surest of those."""
    corrected = snapshot.corrected
    originals = rows[corrected.original[rows] == rows]
    sure = originals[~corrected.unsure[originals]]
    pool = sure if len(sure) else originals if len(originals) else rows
    return pool[np.argsort(corrected.pinned[pool], kind="stable")][:POOL]
