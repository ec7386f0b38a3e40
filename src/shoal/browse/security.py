"""Who may ask the server what: Host and Origin are checked, and everything but the static page needs the token.

The page is opened at an address that carries the token behind `#`, which browsers never send. The page sends it in a
header; a page of another origin cannot read it, and cannot send that header without being let (which nobody is).
Images cannot carry a header, so the page asks for a cookie that opens images and downloads to GET, and nothing else.
"""

from __future__ import annotations

import hmac
import ipaddress
import json
import logging
import secrets
import socket
from dataclasses import dataclass, field
from http.cookies import CookieError, SimpleCookie
from typing import Final
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

MOST_BODY: Final = 64 << 20  # bytes: an edit of some million images
TOKEN_HEADER: Final = "x-shoal-token"
LOOPBACK_NAMES: Final = frozenset({"localhost", "127.0.0.1", "::1"})
CONTENT_SECURITY_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; connect-src 'self'; "
    "font-src 'self'; worker-src 'self' blob:; manifest-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'"
)
HEADERS: Final = {
    "content-security-policy": CONTENT_SECURITY_POLICY,
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
}


@dataclass(frozen=True, slots=True)
class Access:
    """The secrets of one server, and the names it answers to."""

    host: str
    port: int
    token: str = field(default_factory=lambda: secrets.token_urlsafe(32), repr=False)
    image_secret: str = field(default_factory=lambda: secrets.token_urlsafe(32), repr=False)

    @property
    def cookie(self) -> str:
        """Name of the cookie; cookies are shared by all ports of a host, so the port is in it."""
        return f"shoal_session_{self.port}"

    def knows_host(self, name: str) -> bool:
        """True if a request for this host name is meant for this server.

        Any port will do: a tunnel may have another. Names of others, which a hostile name server may point here, not.
        """
        if name in LOOPBACK_NAMES or name == self.host:
            return True
        return not is_loopback(self.host) and (_is_address(name) or name == socket.gethostname().lower())

    def knows_token(self, given: str | None) -> bool:
        return given is not None and hmac.compare_digest(given.encode(), self.token.encode())

    def knows_cookie(self, header: str | None) -> bool:
        try:
            morsel = SimpleCookie(header or "").get(self.cookie)
        except CookieError:
            return False
        return morsel is not None and hmac.compare_digest(morsel.value.encode(), self.image_secret.encode())


class Guard:
    """ASGI middleware that refuses what it must, and puts the security headers on everything."""

    def __init__(self, app: ASGIApp, access: Access) -> None:
        self._app = app
        self._access = access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self._app(scope, receive, send)
            return  # no websockets here

        started = False

        async def send_guarded(message: Message) -> None:
            nonlocal started
            started = True
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers[name] = value
                headers.setdefault("cache-control", "no-store")
            await send(message)

        headers = Headers(scope=scope)
        refusal = self._refusal(scope["method"], scope["path"], headers)
        if refusal is not None:
            await _refuse(send_guarded, *refusal)
            return
        try:
            _check_length(int(headers.get("content-length") or 0))
            await self._app(scope, _limited(receive), send_guarded)
        except _TooLongError:
            if started:
                raise
            await _refuse(send_guarded, 413, f"the request is larger than the {MOST_BODY >> 20} MiB that are taken")
        except Exception as error:
            logging.getLogger(__name__).exception("%s %s failed", scope["method"], scope["path"])
            if started:
                raise
            await _refuse(send_guarded, 500, f"unexpected {type(error).__name__}: {' '.join(str(error).split())}")

    def _refusal(self, method: str, path: str, headers: Headers) -> tuple[int, str] | None:
        host = headers.get("host", "")
        if not self._access.knows_host(_host_name(host)):
            return 421, f"Host has value {host[:200]!r}; this server answers only to its own address"
        if not _same_origin(headers, host):
            return 403, f"Origin has value {headers.get('origin', '')[:200]!r}; expected a request of the page itself"
        if not path.startswith("/api"):
            return None if method in ("GET", "HEAD") else (405, f"{method} is not for the page; expected GET")
        if self._access.knows_token(headers.get(TOKEN_HEADER)):
            return None
        if method in ("GET", "HEAD") and _opens_with_cookie(path) and self._access.knows_cookie(headers.get("cookie")):
            return None
        return 401, "the token is missing or wrong; open the address that shoal browse printed"


class _TooLongError(Exception):
    """The body is longer than any request needs."""


def _check_length(taken: int) -> None:
    if taken > MOST_BODY:
        raise _TooLongError


def _limited(receive: Receive) -> Receive:
    """The request's body; once it is longer than any request needs, no more of it is taken, whatever it announced."""
    taken = 0

    async def receive_limited() -> Message:
        nonlocal taken
        message = await receive()
        taken += len(message.get("body", b""))
        _check_length(taken)
        return message

    return receive_limited


def is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _opens_with_cookie(path: str) -> bool:
    """True for what an `<img>` or a download link fetches: pictures of images, finished exports."""
    parts = path.strip("/").split("/")
    match parts[1:]:
        case ["images", _, "thumb" | "full"] | ["jobs", _, "file"]:
            return True
        case _:
            return False


def _same_origin(headers: Headers, host: str) -> bool:
    """What other pages send is refused; what is no browser sends neither header."""
    if headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
        # Following a link to the page from elsewhere is fine: it only shows the shell.
        return headers.get("sec-fetch-mode") == "navigate" and headers.get("origin") is None
    origin = headers.get("origin")
    return origin is None or urlsplit(origin).netloc.lower() == host.lower()


def _host_name(host: str) -> str:
    try:
        return (urlsplit(f"//{host}").hostname or "").lower()
    except ValueError:
        return ""


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


async def _refuse(send: Send, status: int, reason: str) -> None:
    body = json.dumps({"error": reason}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
