"""`shoal browse`: bind, say where, serve until interrupted."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pyarrow as pa
import uvicorn

from shoal.browse.app import create_app
from shoal.browse.security import Access, is_loopback
from shoal.errors import RequestError, WorkError

BODY_SECONDS = 5


def serve(folder: Path, host: str, port: int, opened: Callable[[str], None], say: Callable[[str], None]) -> None:
    """Serve a run or a model folder until interrupted.

    Args:
        port: 0 takes any free one.
        opened: called with the page's address, token and all, once requests are answered.
        say: takes lines for the person.

    Raises:
        RunError: there is neither a finished run nor a model at `folder`.
        RequestError: there is no such host here. WorkError: the port is taken.
    """
    os.environ["FASTAPI_OTEL_AUTO_CONFIGURE"] = "false"  # what people look at is nobody's telemetry
    pa.set_memory_pool(pa.system_memory_pool())  # it gives back what reading tables took: 50 MB of 100,000 images
    listening = _bind(host, port)
    with listening:
        access = Access(host, listening.getsockname()[1])
        app = create_app(folder, access)
        if not is_loopback(host):
            say(f"{host} can be reached by other machines; whoever has the address below sees these images")
        server = _Server(_config(app), lambda: opened(address(access)))
        with suppress(KeyboardInterrupt):  # the way to end it
            server.run(sockets=[listening])


def address(access: Access) -> str:
    """What is to be opened; what stands behind `#` is never sent to a server."""
    shown = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(access.host, access.host)
    if ":" in shown and not shown.startswith("["):
        shown = f"[{shown}]"
    return f"http://{shown}:{access.port}/#token={access.token}"


class _Server(uvicorn.Server):
    """Tells when it is ready."""

    def __init__(self, config: uvicorn.Config, ready: Callable[[], None]) -> None:
        super().__init__(config)
        self._ready = ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._ready()


def _config(app: object) -> uvicorn.Config:
    return uvicorn.Config(
        app,  # type: ignore[arg-type]
        log_level="warning",
        access_log=False,
        server_header=False,
        lifespan="on",
        ws="none",
        timeout_graceful_shutdown=2,
        h11_max_incomplete_event_size=64 * 1024,
    )


def _bind(host: str, port: int) -> socket.socket:
    try:
        family, kind, protocol, _, place = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except (socket.gaierror, UnicodeError) as error:
        raise RequestError(f"--host has value {host!r}; expected a name or address of this machine") from error
    listening = socket.socket(family, kind, protocol)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind(place)
    except OSError as error:
        listening.close()
        raise WorkError(f"--host {host} --port {port} cannot be listened on: {error.strerror or error}") from error
    return listening
