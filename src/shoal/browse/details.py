"""Everything about one image."""

from __future__ import annotations

from typing import Any

import numpy as np

from shoal.browse.neighbours import mined_neighbours
from shoal.browse.site import OpenedRun
from shoal.browse.snapshot import Snapshot
from shoal.corrections.base import Int64
from shoal.corrections.corrected import NONE

NEIGHBOURS = 20
PROBABILITIES = 5
COPIES = 100


def image_details(opened: OpenedRun, image: int) -> dict[str, Any]:
    """What `/api/images/{id}` answers, for an image of the run, clustered or not."""
    snapshot = opened.view.snapshot()
    images = snapshot.images
    row = images.row(image)
    known = {name: images.table[name][row].as_py() for name in ("path", "status", "reason", "width", "height")}
    corrected = snapshot.corrected
    try:
        place = int(corrected.rows(np.array([image]))[0])
    except KeyError:  # skipped or vanished
        return {"id": image, **known}
    original = int(corrected.original[place])
    silhouette, runner_up = float(corrected.silhouette[place]), int(corrected.runner_up[place])
    copies = corrected.ids[np.flatnonzero(corrected.original == original)]
    return {
        "id": image,
        **known,
        "cluster": int(corrected.cluster[place]),
        "confidence": round(float(corrected.confidence[place]), 4),
        "unsure": bool(corrected.unsure[place]),
        "moved": bool(corrected.pinned[place]),
        "runner_up": None if runner_up == NONE else runner_up,
        "silhouette": None if np.isnan(silhouette) else round(silhouette, 4),
        "probabilities": _probabilities(opened, snapshot, int(corrected.ids[original])),
        "duplicates": copies[copies != image][:COPIES].tolist(),
        "neighbours": neighbour_list(
            snapshot, mined_neighbours(snapshot.run_dir, int(corrected.ids[original]), NEIGHBOURS)
        ),
        "label": opened.labels.read(snapshot).of(place),
    }


def neighbour_list(snapshot: Snapshot, found: list[tuple[int, float]]) -> list[dict[str, Any]]:
    """Pairs (id, similarity) with their clusters; images that have none any more are left out."""
    corrected = snapshot.corrected
    ids: Int64 = np.array([image for image, _ in found], np.int64)
    rows = np.searchsorted(corrected.ids, ids).clip(max=max(len(corrected.ids) - 1, 0))
    here = corrected.ids[rows] == ids if len(corrected.ids) else np.zeros(len(ids), bool)
    clusters = corrected.cluster[rows[here]].tolist()
    kept = [pair for pair, is_here in zip(found, here.tolist(), strict=True) if is_here]
    return [
        {"id": image, "similarity": round(score, 4), "cluster": cluster}
        for (image, score), cluster in zip(kept, clusters, strict=True)
    ]


def _probabilities(opened: OpenedRun, snapshot: Snapshot, image: int) -> list[dict[str, Any]]:
    model = opened.models.of(snapshot)
    features = snapshot.store.read(np.array([image], np.int64))
    numbers, shares = model.probabilities(features)
    return [
        {"cluster": int(number), "p": round(float(share), 4)}
        for number, share in list(zip(numbers[0].tolist(), shares[0].tolist(), strict=True))[:PROBABILITIES]
    ]
