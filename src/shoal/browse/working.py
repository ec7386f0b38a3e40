"""API: jobs: refitting with the corrections, and exports to take away."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import FileResponse

from shoal.browse import answers, requests
from shoal.browse.errors import MissingError
from shoal.browse.jobs import DONE, Job, JobProgress
from shoal.browse.looking import site_of
from shoal.browse.packing import pack
from shoal.corrections.changes import StaleError

router = APIRouter(prefix="/api")


@router.post("/refit", response_model=answers.JobStarted, status_code=202)
def refit(request: Request, wanted: requests.RefitRequest) -> dict[str, str]:
    """Learn from the corrections: clusters are fitted anew, with what people did as constraints."""
    site = site_of(request)
    opened = site.opened_run()
    corrected = opened.view.snapshot().corrected
    if (wanted.base_version, wanted.base) != (corrected.version, corrected.base):
        raise StaleError("another window changed something since; look at it, then try again")

    def work(job: Job) -> str:
        from shoal.corrections.refit import refit as learn  # noqa: PLC0415

        return learn(opened.view.run_dir, wanted.base_version, JobProgress(job))

    return {"job": site.jobs.start("refit", work).id}


@router.post("/export", response_model=answers.JobStarted, status_code=202)
def export(request: Request, wanted: requests.ExportRequest) -> dict[str, str]:
    """Make a file to take away, as `shoal export` would."""
    site = site_of(request)
    opened = site.opened_run()
    return {"job": site.jobs.start("export", lambda job: pack(opened, wanted.kind, wanted.layout, job)).id}


@router.get("/jobs/{job}", response_model=answers.JobState)
def job_state(request: Request, job: str) -> dict[str, Any]:
    """How far a job is."""
    found = _find(request, job)
    return {
        "job": found.id,
        "kind": found.kind,
        "state": found.state,
        "progress": round(found.progress, 4),
        "message": found.message,
        "file": found.file_name if found.file is not None and found.state == DONE else None,
    }


@router.get("/jobs/{job}/file", response_class=FileResponse)
def job_file(request: Request, job: str) -> FileResponse:
    """What an export made."""
    found = _find(request, job)
    if found.file is None or found.state != DONE or not found.file.is_file():
        raise MissingError(f"job {found.id} has no file")
    return FileResponse(found.file, filename=found.file_name, media_type="application/octet-stream")


def _find(request: Request, job: str) -> Job:
    try:
        return site_of(request).jobs.find(job)
    except KeyError:
        raise MissingError("there is no such job; the server keeps only the latest ones") from None
