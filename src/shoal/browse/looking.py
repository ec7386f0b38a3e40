"""API: the run, its clusters, its images and their pictures."""

from __future__ import annotations

from typing import Annotated, Literal

import numpy as np
from fastapi import APIRouter, Path, Query, Request, Response

from shoal.browse import answers
from shoal.browse.details import image_details
from shoal.browse.errors import MissingError
from shoal.browse.evidence import evidence
from shoal.browse.map import map_bytes
from shoal.browse.overview import cluster_list, run_facts
from shoal.browse.site import OpenedRun, Site
from shoal.browse.snapshot import CHOSEN, Rows, Snapshot
from shoal.corrections.corrected import NONE
from shoal.pictures.originals import Original
from shoal.pictures.pictures import MEDIA_TYPE, SIZES

router = APIRouter(prefix="/api")

MOST_LISTED = 5000
KEPT_SECONDS = 3600
ImageId = Annotated[int, Path(ge=0, lt=1 << 62)]
ClusterId = Annotated[int, Path(ge=0, lt=1 << 31)]


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


@router.get("/clusters/{cluster}/images", response_model=answers.ClusterImages)
def cluster_images(
    request: Request,
    cluster: ClusterId,
    level: str = CHOSEN,
    order: Literal["surest", "doubtful"] = "surest",
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
    if order == "doubtful":
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


@router.get("/map", responses={200: {"content": {"application/octet-stream": {}}}}, response_class=Response)
def map_(request: Request) -> Response:
    """Little-endian: uint32 n, int32 ids[n], float32 x[n], float32 y[n], int32 cluster[n]."""
    opened = site_of(request).opened_run()
    return Response(map_bytes(opened), media_type="application/octet-stream")


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
