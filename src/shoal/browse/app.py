"""The server's application: the page's files, the API, errors as one line of JSON, and the guard around everything."""

from __future__ import annotations

import mimetypes
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse, Response
from starlette.exceptions import HTTPException

from shoal import __version__
from shoal.browse import answers, changing, looking, searching, working
from shoal.browse.errors import MissingError, UploadTooLargeError
from shoal.browse.overview import warm_up
from shoal.browse.search import Searcher
from shoal.browse.security import Access, Guard
from shoal.browse.site import OpenedRun, Site
from shoal.corrections.changes import StaleError
from shoal.errors import DecodeError, RequestError, RunLockedError, ShoalError
from shoal.model import is_model_folder

PAGE = Path(__file__).with_name("page")
NO_PAGE = """<!doctype html><meta charset=utf-8><title>Shoal</title>
<h1>The page is not built</h1><p>This installation of Shoal lacks its page. Install it again with
<code>pip install .</code>, which builds the page from <code>web/</code>. The API works meanwhile.</p>"""
STATUS_OF = (
    (MissingError, 404),
    (StaleError, 409),
    (UploadTooLargeError, 413),
    (DecodeError, 422),
    (RunLockedError, 423),
    (RequestError, 400),
    (ShoalError, 500),
)


def create_app(folder: Path, access: Access, page: Path = PAGE) -> FastAPI:
    """The application for a run directory or a model folder.

    Raises:
        RunError: it is neither, or is unfinished.
    """
    run = None if is_model_folder(folder) else OpenedRun.open(folder)
    site = Site(folder, access, run, Searcher(folder))

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        if run is not None:
            threading.Thread(target=warm_up, args=(run,), name="warm-up", daemon=True).start()
        yield
        site.jobs.close()

    app = FastAPI(
        title="shoal browse",
        version=__version__,
        docs_url=None,  # their pages load scripts from elsewhere
        redoc_url=None,
        openapi_url="/api/openapi.json",
        lifespan=lifespan,
        responses={"4XX": {"model": answers.Error}, "5XX": {"model": answers.Error}},
    )
    app.state.site = site
    for module in (looking, changing, searching, working):
        app.include_router(module.router)
    _serve_page(app, page)
    app.add_exception_handler(ShoalError, _of_shoal)
    app.add_exception_handler(HTTPException, _of_http)
    app.add_exception_handler(RequestValidationError, _of_validation)
    app.add_middleware(Guard, access=access)
    return app


def _serve_page(app: FastAPI, page: Path) -> None:
    """Serve the files that are in `page` now, each under its own name; no request's name is ever made into a path."""
    files = {f"/{path.relative_to(page).as_posix()}": path for path in sorted(page.rglob("[!.]*")) if path.is_file()}

    @app.api_route("/{name:path}", methods=["GET", "HEAD"], include_in_schema=False)
    def of_the_page(name: str) -> Response:
        path = files.get(f"/{name or 'index.html'}")
        if path is None and name in ("", "index.html"):
            return HTMLResponse(NO_PAGE, 503)
        if path is None:
            return JSONResponse({"error": "there is no such file of the page"}, 404)
        kind = mimetypes.guess_type(path.name)[0] or "application/octet-stream"
        kept = "public, max-age=31536000, immutable" if name.startswith("assets/") else "no-cache"
        return Response(path.read_bytes(), media_type=kind, headers={"cache-control": kept})


async def _of_shoal(_: Request, error: Exception) -> Response:
    status = next(status for kind, status in STATUS_OF if isinstance(error, kind))
    return JSONResponse({"error": " ".join(str(error).split())}, status)


async def _of_http(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return JSONResponse({"error": str(error.detail)}, error.status_code, headers=error.headers)


async def _of_validation(_: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"] if part not in ("body", "query", "path"))
    return JSONResponse({"error": f"{where or 'the request'}: {first['msg']}"}, 422)
