"""API: edits, undo and redo, previews of splits, and hearing of other windows."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Annotated, Any

import numpy as np
from fastapi import APIRouter, Query, Request
from starlette.concurrency import run_in_threadpool

from shoal.browse import answers, requests
from shoal.browse.errors import MissingError
from shoal.browse.guesses import guess_of
from shoal.browse.looking import site_of
from shoal.browse.site import OpenedRun
from shoal.browse.snapshot import Snapshot
from shoal.browse.splitting import Preview
from shoal.corrections import changes
from shoal.corrections.changes import StaleError
from shoal.corrections.corrected import Corrected
from shoal.corrections.edit import REDO, UNDO, Edit, ranges_of
from shoal.corrections.log import in_force
from shoal.corrections.shown import guesses_for
from shoal.errors import RequestError

router = APIRouter(prefix="/api")

POLL_SECONDS = 0.4
LONGEST_POLL_SECONDS = 25


@router.get("/edits", response_model=answers.Edits)
def edits(request: Request) -> dict[str, Any]:
    """The log, undone lines and conflicts with it."""
    snapshot = site_of(request).opened_run().view.snapshot()
    done, undone = in_force(snapshot.log)
    standing = {edit.n for edit in done}
    return {
        "version": snapshot.corrected.version,
        "base": snapshot.corrected.base,
        "can_undo": bool(done),
        "can_redo": bool(undone),
        "edits": [
            _line(edit, edit.n not in standing, snapshot.corrected)
            for edit in snapshot.log
            if edit.op not in (UNDO, REDO)
        ],
    }


@router.post("/edits", response_model=answers.Changed)
def edit(request: Request, wanted: requests.EditRequest) -> dict[str, Any]:
    """Make an edit on what the person saw; 409 if somebody changed the same thing since."""
    opened = site_of(request).opened_run()
    before = opened.view.snapshot().corrected

    def make(log: Sequence[Edit]) -> Edit:
        current = opened.view.corrected(log)
        if wanted.base != current.base:
            raise StaleError("the clusters were made anew since this page was loaded; load it again")
        if wanted.base_version > len(log):
            raise StaleError("the page has seen edits that are no longer there; load it again")
        since = log[wanted.base_version :]
        try:
            made = _made(opened, current, log, wanted)
        except RequestError as error:
            if since and not isinstance(error, StaleError | MissingError):  # it was right when the page was shown
                raise StaleError(f"another window changed something since: {error}") from error
            raise
        if since:
            seen = opened.view.corrected(log[: wanted.base_version])
            changes.check_still_true(made, seen, current, since)
        return made

    opened.view.append(make)
    after = opened.view.snapshot().corrected
    return {"version": after.version, "base": after.base, "changed": _changed(before, after)}


@router.post("/split/preview", response_model=answers.SplitPreview)
def preview_split(request: Request, wanted: requests.PreviewRequest) -> dict[str, Any]:
    """What a split would give; the edit then carries the token."""
    opened = site_of(request).opened_run()
    snapshot = opened.view.snapshot()
    preview = opened.previews.make(snapshot, wanted.cluster, wanted.parts)
    shown = opened.prototypes.of(snapshot, list(preview.rows))
    parts = zip(preview.parts, shown, _guesses(snapshot, preview), strict=True)
    return {
        "token": preview.token,
        "version": preview.version,
        "parts": [
            {"size": len(ids), "prototypes": few, "guess": guess, "ids": ranges_of(ids)} for ids, few, guess in parts
        ],
    }


@router.get("/events", response_model=answers.Version)
async def events(
    request: Request, since: Annotated[int, Query(ge=0)], base: str = "", wait: Annotated[float, Query(ge=0)] = 25
) -> dict[str, Any]:
    """Answers when the version or the clustering is another than `since` and `base`, or after `wait` seconds."""
    view = site_of(request).opened_run().view
    left = min(wait, LONGEST_POLL_SECONDS)
    while True:
        corrected = (await run_in_threadpool(view.snapshot)).corrected
        is_news = corrected.version != since or (base and corrected.base != base)
        if is_news or left <= 0 or await request.is_disconnected():
            return {"version": corrected.version, "base": corrected.base}
        await asyncio.sleep(min(POLL_SECONDS, left))
        left -= POLL_SECONDS


def _guesses(snapshot: Snapshot, preview: Preview) -> list[answers.Guess | None]:
    """What each part would be called, were it a cluster."""
    corrected = snapshot.corrected
    numbers = [preview.cluster, *range(corrected.next_number, corrected.next_number + len(preview.rows) - 1)]
    clusters = corrected.cluster.copy()
    for number, rows in zip(numbers, preview.rows, strict=True):
        clusters[rows] = number
    found = {one.cluster: one for one in guesses_for(snapshot.run_dir, corrected, clusters)}
    return [guess_of(found[number]) if number in found else None for number in numbers]


def _made(opened: OpenedRun, current: Corrected, log: Sequence[Edit], wanted: Any) -> Edit:
    match wanted:
        case requests.Rename():
            return changes.rename(current, wanted.cluster, wanted.name)
        case requests.Merge():
            return changes.merge(current, wanted.clusters)
        case requests.Split():
            preview = opened.previews.find(wanted.token)
            if preview.cluster != wanted.cluster:
                raise StaleError(f"this preview is of cluster {preview.cluster}, not of {wanted.cluster}")
            return changes.split(current, wanted.cluster, preview.parts)
        case requests.Move():
            return changes.move(current, wanted.ids, wanted.cluster, wanted.name)
        case requests.Noise():
            return changes.mark_noise(current, wanted.ids)
        case _:
            return changes.undo(current, log) if wanted.op == UNDO else changes.redo(current, log)


def _changed(before: Corrected, after: Corrected) -> list[int]:
    """Clusters whose images or names differ; all of them if the clustering does."""
    if before.base != after.base or not np.array_equal(before.ids, after.ids):
        return after.numbers
    moved = before.cluster != after.cluster
    numbers = set(before.cluster[moved].tolist()) | set(after.cluster[moved].tolist())
    renamed = {number for number, _ in before.names.items() ^ after.names.items()}
    return sorted(numbers | renamed)


def _line(edit: Edit, undone: bool, corrected: Corrected) -> dict[str, Any]:
    count = len(edit.ids) + sum(len(part) for part in edit.parts)
    return {
        "n": edit.n,
        "op": edit.op,
        "ids_count": count or sum(reference.size for reference in edit.clusters),
        "clusters": [reference.cluster for reference in edit.clusters] + list(edit.new),
        "names": [edit.name] if edit.name else [],
        "time": edit.time,
        "undone": undone,
        "earlier": edit.base != corrected.base,
        "conflict": None if undone else corrected.conflicts.get(edit.n),
    }
