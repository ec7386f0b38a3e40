"""Images on the web: one request each, no further than the cap, and led nowhere that was not meant."""

from __future__ import annotations

import ipaddress
import socket
import threading
import time
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from email.utils import parsedate_to_datetime
from functools import lru_cache
from html.parser import HTMLParser
from typing import TYPE_CHECKING, BinaryIO, Final
from urllib.parse import urljoin, urlsplit
from urllib.request import getproxies

import psutil

from shoal.errors import DecodeError
from shoal.images.storage import GONE, LARGEST_FILE, UNREADABLE, too_large
from shoal.wording import in_words

if TYPE_CHECKING:
    import httpx

SCHEMES: Final = ("http", "https")
OWN_ADDRESS: Final = "an address of this machine, where another one led"
MOST_REDIRECTS: Final = 10
MOST_SECONDS: Final = 600.0  # for one file, however slowly it comes
LARGEST_PAGE: Final = 1 << 24  # bytes of an index page
MOST_PAGES: Final = 10_000
CHUNK_BYTES: Final = 1 << 20
_SECONDS: Final = 30.0  # for an answer, and for each part of it ...
_CONNECT_SECONDS: Final = 10.0  # ... and to be spoken to at all
_MISSING: Final = (404, 410)


class Web:
    """Reads http(s) URLs. Thread-safe; connections are kept."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._client: httpx.Client | None = None

    def read(self, url: str) -> bytes:
        """All bytes. Raises DecodeError: gone, refused, too large, or led to where it must not."""
        with self._get(url) as response:
            return b"".join(_chunks(response, LARGEST_FILE))

    def fill(self, url: str, file: BinaryIO) -> None:
        """Write all bytes into `file`, however many there are. Raises DecodeError."""
        with self._get(url) as response:
            for chunk in _chunks(response, None):
                file.write(chunk)

    def information(self, url: str) -> tuple[int | None, float | None]:
        """Size and time of change, as far as the server tells. Raises DecodeError if there is nothing."""
        with self._get(url, "HEAD") as response:
            length = response.headers.get("Content-Length", "")
            size = int(length) if length.isdecimal() and "Content-Encoding" not in response.headers else None
            return size, _time(response.headers.get("Last-Modified"))

    def files_below(self, url: str) -> list[str]:
        """URLs of the files that the index page at `url` (which ends in `/`) and those below it link to.

        Raises:
            DecodeError: it cannot be read.
        """
        found: set[str] = set()
        pages, waiting = {url}, [url]
        while waiting:
            page = waiting.pop()
            for link in self._links(page):
                if not link.startswith(url):
                    continue
                if not link.endswith("/"):
                    found.add(link)
                elif link not in pages and len(pages) < MOST_PAGES:
                    pages.add(link)
                    waiting.append(link)
        return sorted(found)

    def _links(self, page: str) -> Iterator[str]:
        with self._get(page) as response:
            text = b"".join(_chunks(response, LARGEST_PAGE)).decode(response.encoding or "utf-8", "replace")
        parser = _Links()
        parser.feed(text)
        for link in parser.found:
            try:
                yield urljoin(page, link.partition("#")[0].partition("?")[0])
            except ValueError:
                continue

    @contextmanager
    def _get(self, url: str, method: str = "GET") -> Iterator[httpx.Response]:
        """A response with its body to come, after redirects that stay among http(s) and off this machine."""
        import httpx  # noqa: PLC0415  (a fifteenth of a second that files on a disk need not wait for)

        try:
            first_is_own = is_own_address(url)
            for _ in range(MOST_REDIRECTS + 1):
                with self._opened().stream(method, url) as response:
                    if not response.has_redirect_location:
                        if not first_is_own:
                            _require_elsewhere(response)
                        _require_success(response)
                        yield response
                        return
                    url = _led_to(url, response.headers["Location"], first_is_own)
            raise DecodeError(f"{UNREADABLE} (more than {MOST_REDIRECTS} redirects)")
        except httpx.HTTPError as error:
            raise DecodeError(f"{UNREADABLE} ({in_words(error)})") from error
        except (httpx.InvalidURL, ValueError) as error:
            raise DecodeError("not a possible URL") from error

    def _opened(self) -> httpx.Client:
        import httpx  # noqa: PLC0415  (as above)

        with self._lock:
            if self._client is None:
                timeout = httpx.Timeout(_SECONDS, connect=_CONNECT_SECONDS)
                client = httpx.Client(timeout=timeout, headers={"User-Agent": "shoal", "Accept-Encoding": "identity"})
                self._client = client
                weakref.finalize(self, client.close)
            return self._client


def is_own_address(url: str) -> bool:
    """Does the URL name this machine, or what only it and its neighbours on the wire can reach (link-local)?"""
    parts = urlsplit(url)
    host = parts.hostname if parts.scheme.lower() in SCHEMES else None
    return host is not None and any(_is_own(address) for address in _addresses(host))


def _led_to(url: str, location: str, first_is_own: bool) -> str:
    target = urljoin(url, location)
    if urlsplit(target).scheme.lower() not in SCHEMES:
        raise DecodeError(f"redirected to {urlsplit(target).scheme}:, which is not followed")
    if not first_is_own and is_own_address(target):
        raise DecodeError(f"redirected to {OWN_ADDRESS}")
    return target


@lru_cache(maxsize=4096)
def _addresses(host: str) -> tuple[str, ...]:
    try:
        return tuple({str(found[4][0]) for found in socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)})
    except (OSError, UnicodeError):  # only a proxy may know it
        return ()


def _is_own(text: str) -> bool:
    address = ipaddress.ip_address(text.partition("%")[0])
    mapped = getattr(address, "ipv4_mapped", None)
    if mapped is not None:
        address = mapped
    return address.is_loopback or address.is_unspecified or address.is_link_local or str(address) in _interfaces()


@lru_cache(maxsize=1)
def _interfaces() -> frozenset[str]:
    return frozenset(one.address.partition("%")[0] for found in psutil.net_if_addrs().values() for one in found)


def _require_elsewhere(response: httpx.Response) -> None:
    """Names may lead elsewhere from one moment to the next: look at who has answered, unless that is a proxy."""
    stream = response.extensions.get("network_stream")
    peer = stream.get_extra_info("server_addr") if stream is not None else None
    if peer and not getproxies() and _is_own(str(peer[0])):
        raise DecodeError(f"redirected to {OWN_ADDRESS}")


def _require_success(response: httpx.Response) -> None:
    if response.status_code in _MISSING:
        raise DecodeError(GONE)
    if not response.is_success:
        raise DecodeError(f"{UNREADABLE} (HTTP {response.status_code} {response.reason_phrase})")


def _chunks(response: httpx.Response, most: int | None) -> Iterator[bytes]:
    """The body; a DecodeError as soon as it is larger than `most` bytes, or takes too long."""
    length = response.headers.get("Content-Length", "")
    if most is not None and length.isdecimal() and int(length) > most:
        raise DecodeError(too_large(int(length)) or "too large")
    until, size = time.monotonic() + MOST_SECONDS, 0
    for chunk in response.iter_bytes(CHUNK_BYTES):
        size += len(chunk)
        if most is not None and size > most:
            raise DecodeError(too_large(size) or "too large")
        if most is not None and time.monotonic() > until:
            raise DecodeError(f"{UNREADABLE} (not done after {MOST_SECONDS:.0f} s)")
        yield chunk


def _time(text: str | None) -> float | None:
    try:
        return parsedate_to_datetime(text).timestamp() if text else None
    except ValueError:
        return None


class _Links(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "a":
            self.found += [value for name, value in attrs if name == "href" and value]
