"""API: the run, its clusters, its images and their pictures."""

from __future__ import annotations

import math
from typing import Annotated, Any, Final, Literal

import numpy as np
from fastapi import APIRouter, Query, Request, Response

from shoal.browse import answers, requests
from shoal.browse.details import image_details
from shoal.browse.errors import MissingError
from shoal.browse.evidence import evidence
from shoal.browse.map import Box, inside_bytes, map_bytes
from shoal.browse.overview import cluster_list, guess_list, prototype_list, run_facts
from shoal.browse.requests import ImageId, Number
from shoal.browse.site import OpenedRun, Site
from shoal.browse.snapshot import CHOSEN, Rows, Snapshot
from shoal.corrections.changes import StaleError
from shoal.corrections.corrected import NONE
from shoal.pictures.originals import Original
from shoal.pictures.pictures import MEDIA_TYPE, SIZES

router = APIRouter(prefix="/api")

MOST_LISTED = 5000
MOST_PICTURED = 100  # clusters whose prototypes are asked for at once
KEPT_SECONDS = 3600
OCTETS: Final = "application/octet-stream"
_BYTES: Final[dict[int | str, dict[str, Any]]] = {200: {"content": {OCTETS: {}}}}


def site_of(request: Request) -> Site:
    site: Site = request.app.state.site
    return site


@router.get("/session", response_model=answers.Version)
def session(request: Request, response: Response) -> dict[str, object]:
    """Sets the cookie that opens pictures and downloads (GET only)."""
    site = site_of(request)
    response.set_cookie(
        site.access.cookie, site.access.image_secret, httponly=True, samesite="strict", path="/api", secure=False
    )
    if site.run is None:
        return {"version": 0, "base": ""}
    corrected = site.run.view.snapshot().corrected
    return {"version": corrected.version, "base": corrected.base}


@router.get("/run", response_model=answers.Run)
def run(request: Request) -> dict[str, object]:
    """What was opened."""
    return run_facts(site_of(request))


@router.get("/clusters", response_model=answers.Clusters)
def clusters(request: Request, level: str = CHOSEN) -> Response:
    """All clusters of a level, largest first."""
    opened = site_of(request).opened_run()
    snapshot = opened.view.snapshot()
    _check_level(snapshot, level)
    return Response(cluster_list(opened, snapshot, level), media_type="application/json")


@router.get("/prototypes", response_model=answers.PrototypeList)
def prototypes(
    request: Request,
    of: Annotated[str, Query(pattern="^[0-9]{1,9}(,[0-9]{1,9})*$", max_length=10 * MOST_PICTURED)],
    level: str = CHOSEN,
) -> dict[str, object]:
    """Images that show what clusters are, by their numbers: 3,5,9."""
    opened = site_of(request).opened_run()
    snapshot = opened.view.snapshot()
    _check_level(snapshot, level)
    return prototype_list(opened, snapshot, level, [int(number) for number in of.split(",")])


@router.get("/guesses", response_model=answers.GuessList)
def guesses(request: Request, level: str = CHOSEN) -> dict[str, object]:
    """What each cluster of a level may show; of many images that takes seconds."""
    opened = site_of(request).opened_run()
    snapshot = opened.view.snapshot()
    _check_level(snapshot, level)
    return guess_list(opened, snapshot, level)


@router.get("/clusters/{cluster}/images", response_model=answers.ClusterImages)
def cluster_images(
    request: Request,
    cluster: Number,
    level: str = CHOSEN,
    order: Literal["surest", "least_sure"] = "surest",
    only: Literal["all", "sure", "unsure"] = "all",
    offset: Annotated[int, Query(ge=0)] = 0,
    limit: Annotated[int, Query(ge=1, le=MOST_LISTED)] = 200,
) -> dict[str, object]:
    """Images of a cluster, from surest to least sure or the other way round."""
    snapshot = site_of(request).opened_run().view.snapshot()
    _check_level(snapshot, level)
    rows = snapshot.level(level).rows(cluster)
    if not len(rows):
        raise MissingError(f"there is no cluster {cluster} at level {level}")
    corrected = snapshot.corrected
    if only != "all":
        rows = rows[corrected.unsure[rows] == (only == "unsure")]
    if order == "least_sure":
        rows = rows[::-1]
    return {
        "version": corrected.version,
        "total": len(rows),
        "images": _listed(snapshot, rows[offset : offset + limit]),
    }


@router.get("/images/{image}", response_model=answers.Image)
def image(request: Request, image: ImageId) -> dict[str, object]:
    """One image with its neighbours and probabilities."""
    opened = site_of(request).opened_run()
    _row(opened, image)
    return image_details(opened, image)


@router.get("/images/{image}/thumb", responses={200: {"content": {MEDIA_TYPE: {}}}}, response_class=Response)
def thumb(request: Request, image: ImageId, size: int = 192) -> Response:
    """A small picture, the best that is kept if the image is gone; if none can be had, 422 with the reason."""
    if size not in SIZES:
        raise MissingError(f"size has value {size}; expected one of {', '.join(map(str, SIZES))}")
    opened = site_of(request).opened_run()
    original = _original(opened, image)
    kept = _kept(original, size)
    if _is_known(request, kept):
        return Response(status_code=304, headers=kept)
    found = opened.pictures.quick(original, size)
    return Response(found.jpeg, media_type=MEDIA_TYPE, headers=kept if found.is_sharp else {})


@router.get("/images/{image}/full", responses={200: {"content": {MEDIA_TYPE: {}}}}, response_class=Response)
def full(request: Request, image: ImageId) -> Response:
    """The image, at most 2048 pixels a side; if it cannot be read, 422 with the reason."""
    opened = site_of(request).opened_run()
    original = _original(opened, image)
    kept = _kept(original, 0)
    if _is_known(request, kept):
        return Response(status_code=304, headers=kept)
    return Response(opened.pictures.large(original), media_type=MEDIA_TYPE, headers=kept)


@router.get("/map", responses=_BYTES, response_class=Response)
def map_(
    request: Request,
    west: float = -math.inf,
    south: float = -math.inf,
    east: float = math.inf,
    north: float = math.inf,
    cluster: Number | None = None,
) -> Response:
    """What of the map is in a window, at most 50,000 images; in a smaller one there are the same, and more.

    Little-endian: uint32 n, uint32 of how many, uint32 version; float32 west, south, east, north of the whole map; then
    int32 ids[n], float32 x[n], float32 y[n], int32 cluster[n].
    """
    opened = site_of(request).opened_run()
    snapshot = opened.view.snapshot()
    found = map_bytes(snapshot, opened.maps.of(snapshot), Box(west, south, east, north), cluster)
    return Response(found, media_type=OCTETS)


@router.get("/map/changes", responses=_BYTES, response_class=Response)
def map_changes(request: Request, base: Annotated[str, Query()], since: Annotated[int, Query(ge=0)]) -> Response:
    """Images that are in another cluster than they were at version `since`; 409 if the clusters were made anew.

    Little-endian: uint32 n, uint32 version, int32 ids[n], int32 cluster[n].
    """
    view = site_of(request).opened_run().view
    now = view.snapshot()
    before = None if since > len(now.log) else view.corrected(now.log[:since])
    if before is None or not before.base == now.corrected.base == base:
        raise StaleError("the clusters were made anew since this map was loaded; load it again")
    moved = np.flatnonzero(before.cluster != now.corrected.cluster)
    head = np.array([len(moved), now.corrected.version], "<u4")
    columns = (head, now.corrected.ids[moved].astype("<i4"), now.corrected.cluster[moved].astype("<i4"))
    return Response(b"".join(column.tobytes() for column in columns), media_type=OCTETS)


@router.post("/map/inside", responses=_BYTES, response_class=Response)
def map_inside(request: Request, wanted: requests.InsideRequest) -> Response:
    """All images inside a polygon, or of a cluster, or both: uint32 n, int32 ids[n], little-endian."""
    opened = site_of(request).opened_run()
    snapshot = opened.view.snapshot()
    corners = None if wanted.polygon is None else np.array(wanted.polygon, np.float64)
    return Response(inside_bytes(snapshot, opened.maps.of(snapshot), corners, wanted.cluster), media_type=OCTETS)


@router.get("/evidence", response_model=answers.Evidence)
def evidence_(request: Request) -> dict[str, object]:
    """Why these clusters."""
    return evidence(site_of(request).opened_run())


def _check_level(snapshot: Snapshot, level: str) -> None:
    if level not in snapshot.levels:
        raise MissingError(f"level has value {level[:40]!r}; expected one of {', '.join(snapshot.levels)}")


def _row(opened: OpenedRun, image: int) -> int:
    try:
        return opened.view.images.row(image)
    except KeyError:
        raise MissingError(f"there is no image {image} in this run") from None


def _original(opened: OpenedRun, image: int) -> Original:
    images = opened.view.images
    row = _row(opened, image)
    return Original(*(images.table[name][row].as_py() for name in ("path", "uri", "sha256", "width", "height")))


def _kept(original: Original, size: int) -> dict[str, str]:
    """Headers by which a browser keeps a picture of known bytes; what may be another one next time it does not keep."""
    if original.sha256 is None:
        return {}
    return {"etag": f'"{original.sha256[:20]}-{size}"', "cache-control": f"private, max-age={KEPT_SECONDS}"}


def _is_known(request: Request, kept: dict[str, str]) -> bool:
    """True if the browser has this very picture."""
    return "etag" in kept and request.headers.get("if-none-match") == kept["etag"]


def _listed(snapshot: Snapshot, rows: Rows) -> list[dict[str, object]]:
    corrected = snapshot.corrected
    columns = zip(
        corrected.ids[rows].tolist(),
        np.round(corrected.confidence[rows].astype(np.float64), 4).tolist(),
        corrected.unsure[rows].tolist(),
        corrected.runner_up[rows].tolist(),
        (corrected.original[rows] != rows).tolist(),
        corrected.pinned[rows].tolist(),
        strict=True,
    )
    return [
        {
            "id": image,
            "confidence": confidence,
            "unsure": unsure,
            "runner_up": None if runner_up == NONE else runner_up,
            "duplicate": duplicate,
            "moved": moved,
        }
        for image, confidence, unsure, runner_up, duplicate, moved in columns
    ]
