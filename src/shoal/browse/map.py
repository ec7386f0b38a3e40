"""The map as the page takes it: plain arrays, no text to parse."""

from __future__ import annotations

import numpy as np

from shoal import records
from shoal.browse.errors import MissingError
from shoal.browse.site import OpenedRun


def map_bytes(opened: OpenedRun) -> bytes:
    """uint32 n, int32 ids[n], float32 x[n], float32 y[n], int32 cluster[n], little-endian, by rising id.

    Raises:
        MissingError: the run has no map.
    """
    snapshot = opened.view.snapshot()
    run_dir, corrected = snapshot.run_dir, snapshot.corrected
    if not run_dir.map.is_file():
        raise MissingError(
            f"this run has no map of its images as they are now; make one with: shoal report {run_dir.root}"
        )
    table = records.read_table(run_dir.map).sort_by("id")
    ids = table["id"].to_numpy()
    here = np.isin(ids, corrected.ids)
    ids = ids[here]
    columns = (
        ids.astype("<i4"),
        table["x"].to_numpy()[here].astype("<f4"),
        table["y"].to_numpy()[here].astype("<f4"),
        corrected.cluster[np.searchsorted(corrected.ids, ids)].astype("<i4"),
    )
    return b"".join([np.array([len(ids)], "<u4").tobytes(), *(column.tobytes() for column in columns)])
