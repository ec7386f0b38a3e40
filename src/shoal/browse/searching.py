"""API: where an image of the person's own belongs and what is like it, and images by what words say."""

from __future__ import annotations

from typing import Annotated, Any

import numpy as np
from fastapi import APIRouter, Query, Request
from starlette.concurrency import run_in_threadpool

from shoal.browse import answers
from shoal.browse.details import neighbour_list
from shoal.browse.errors import MissingError
from shoal.browse.guesses import Guessed, told
from shoal.browse.looking import site_of
from shoal.browse.site import Site
from shoal.browse.snapshot import CHOSEN, Snapshot
from shoal.browse.upload import uploaded_image
from shoal.corrections.corrected import NONE
from shoal.corrections.model import CorrectedModel
from shoal.find import why_not
from shoal.names import finding
from shoal.neighbours.query import nearest
from shoal.rundir import digest_bytes
from shoal.similar import stored_features

router = APIRouter(prefix="/api")

NEIGHBOURS = 20
MOST_LETTERS = 200  # of words: each that is not known is compared with all that are
MOST_FOUND = 1000
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


@router.post("/search", response_model=answers.UploadMatch, openapi_extra=_UPLOAD)
async def search(request: Request) -> dict[str, Any]:
    """The cluster of an uploaded image (field `image`, at most 20 MiB and 50 megapixels), and the nearest images."""
    site = site_of(request)
    data = await uploaded_image(request)
    return await run_in_threadpool(_search, site, data)


def _search(site: Site, data: bytes) -> dict[str, Any]:
    snapshot = None if site.run is None else site.run.view.snapshot()
    neighbours: list[dict[str, Any]] = []
    if site.run is not None and snapshot is not None:
        corrected = snapshot.corrected
        clusters = site.run.models.of(snapshot)
        store = snapshot.store
        known = stored_features(snapshot.images.table, store, "sha256", digest_bytes(data))
        features = site.searcher.embed(data, snapshot.run_dir)[0] if known is None else known[0]
        distinct = np.unique(corrected.ids[corrected.original])
        near, similarity = nearest(store, distinct, features, NEIGHBOURS)
        neighbours = neighbour_list(snapshot, list(zip(near[0].tolist(), similarity[0].tolist(), strict=True)))
    else:
        features, clusters = site.searcher.embed(data)
    assigned = clusters.assign(features)
    guesses = _guesses(site, snapshot, clusters)
    cluster, runner_up = int(assigned.cluster[0]), int(assigned.runner_up[0])
    return {
        "cluster": cluster,
        "confidence": round(float(assigned.confidence[0]), 4),
        "unknown": bool(assigned.unknown[0]),
        "unsure": bool(assigned.unsure[0]),
        "runner_up": None if runner_up == NONE else runner_up,
        "called": [
            {"id": number, "name": clusters.names.get(number), "guess": guesses.get(number)}
            for number in dict.fromkeys((cluster, runner_up))
            if number != NONE
        ],
        "neighbours": neighbours,
    }


def _guesses(site: Site, snapshot: Snapshot | None, clusters: CorrectedModel) -> Guessed:
    """What clusters may show: a run's as the page has them, a model's as it says."""
    if site.run is not None and snapshot is not None:
        return site.run.guesses.known(snapshot, CHOSEN)[0]
    return told(() if clusters.guesses is None else clusters.guesses.medium)


@router.get("/find", response_model=answers.FoundByWords)
def find(
    request: Request,
    words: Annotated[str, Query(max_length=MOST_LETTERS)],
    offset: Annotated[int, Query(ge=0)] = 0,
    limit: Annotated[int, Query(ge=1, le=MOST_FOUND)] = 60,
) -> dict[str, Any]:
    """Images that show what words say, as `shoal find` finds them, as far as the words fit them at all."""
    opened = site_of(request).opened_run()
    snapshot = opened.view.snapshot()
    why = why_not(snapshot.run_dir)
    if why is not None:
        raise MissingError(why)
    finder = opened.finders.of(snapshot)
    found = finder.look(words)
    unknown = [{"text": one.text, "near": list(one.near)} for one in found.unknown]
    answer = {"version": snapshot.corrected.version, "notes": found.notes, "unknown": unknown}
    if found.scores is None:
        return {**answer, "total": 0, "images": []}
    total = int(np.count_nonzero(found.scores >= finder.least))
    best = finding.best(found.scores, min(offset + limit, total))[offset:]
    ids = finder.ids[best]
    clusters = snapshot.corrected.cluster[snapshot.corrected.rows(ids)]
    columns = zip(ids.tolist(), found.scores[best].tolist(), clusters.tolist(), strict=True)
    images = [{"id": image, "score": round(score, 4), "cluster": cluster} for image, score, cluster in columns]
    return {**answer, "total": total, "images": images}
