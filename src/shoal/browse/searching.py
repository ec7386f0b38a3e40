"""API: where an image of the person's own belongs, and what is like it."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from fastapi import APIRouter, Request
from starlette.concurrency import run_in_threadpool

from shoal.browse import answers
from shoal.browse.details import neighbour_list
from shoal.browse.looking import site_of
from shoal.browse.site import Site
from shoal.browse.upload import uploaded_image
from shoal.cores import core_count
from shoal.corrections.base import Int64
from shoal.corrections.corrected import NONE
from shoal.embeddings import EmbeddingStore, Float32
from shoal.neighbours.query import nearest
from shoal.rundir import digest_bytes
from shoal.similar import stored_features

router = APIRouter(prefix="/api")

NEIGHBOURS = 20
_UPLOAD = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {"type": "object", "properties": {"image": {"type": "string", "format": "binary"}}}
            }
        },
    }
}


@router.post("/search", response_model=answers.Found, openapi_extra=_UPLOAD)
async def search(request: Request) -> dict[str, Any]:
    """The cluster of an uploaded image (field `image`, at most 20 MiB and 50 megapixels), and the nearest images."""
    site = site_of(request)
    data = await uploaded_image(request)
    return await run_in_threadpool(_search, site, data)


def _nearest(store: EmbeddingStore, ids: Int64, features: Float32) -> list[tuple[int, float]]:
    """Pairs (id, similarity) of the nearest images, nearest first; every core looks through a part of them."""
    parts = [part for part in np.array_split(ids, core_count()) if len(part)]
    with ThreadPoolExecutor(len(parts)) as pool:
        found = list(pool.map(lambda part: nearest(store, part, features, NEIGHBOURS), parts))
    pairs = [pair for near, score in found for pair in zip(near[0].tolist(), score[0].tolist(), strict=True)]
    return sorted(pairs, key=lambda pair: (-pair[1], pair[0]))[:NEIGHBOURS]


def _search(site: Site, data: bytes) -> dict[str, Any]:
    snapshot = None if site.run is None else site.run.view.snapshot()
    neighbours: list[dict[str, Any]] = []
    if site.run is not None and snapshot is not None:
        corrected = snapshot.corrected
        clusters = site.run.models.of(snapshot)
        store = EmbeddingStore.open(snapshot.run_dir.embeddings)
        known = stored_features(snapshot.images.table, store, "sha256", digest_bytes(data))
        features = site.searcher.embed(data, snapshot.run_dir)[0] if known is None else known[0]
        distinct = np.unique(corrected.ids[corrected.original])
        neighbours = neighbour_list(snapshot, _nearest(store, distinct, features))
    else:
        features, clusters = site.searcher.embed(data)
    assigned = clusters.assign(features)
    cluster, runner_up = int(assigned.cluster[0]), int(assigned.runner_up[0])
    return {
        "cluster": cluster,
        "name": clusters.names.get(cluster),
        "confidence": round(float(assigned.confidence[0]), 4),
        "unknown": bool(assigned.unknown[0]),
        "unsure": bool(assigned.unsure[0]),
        "runner_up": None if runner_up == NONE else runner_up,
        "neighbours": neighbours,
    }
