"""Names of places: file URIs that keep every byte of a file name, and the text by which people know a path."""

from __future__ import annotations

import codecs
import os
import re
from urllib.parse import quote, unquote_to_bytes

_ESCAPED_BYTES = "shoal.percent"
_FRAGMENT = re.compile(r"#(?:row=(?P<row>\d+)|offset=(?P<offset>\d+)&size=(?P<size>\d+))\Z")


def _percent_encode(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeDecodeError):
        raise error
    return "".join(f"%{byte:02X}" for byte in error.object[error.start : error.end]), error.end


codecs.register_error(_ESCAPED_BYTES, _percent_encode)


def display_path(path: str) -> str:
    """A path as text for people and tables: `/` between parts, bytes that are not UTF-8 percent-encoded."""
    text = os.fsencode(path).decode("utf-8", _ESCAPED_BYTES)
    return text if os.sep == "/" else text.replace(os.sep, "/")


def valid_text(text: str) -> str:
    """`text` without lone surrogates, which no table can hold."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", _ESCAPED_BYTES)


def file_uri(path: str) -> str:
    """The `file:` URI of a local path, made absolute; links in it are not resolved."""
    raw = os.fsencode(os.path.abspath(path))
    if os.name == "nt":
        raw = raw.replace(b"\\", b"/")
    return uri_from_path(raw, windows=os.name == "nt")


def local_path(uri: str) -> str:
    """The local path that `file_uri` was made from."""
    raw = path_from_uri(uri, windows=os.name == "nt")
    return os.fsdecode(raw)


def uri_from_path(raw: bytes, *, windows: bool) -> str:
    """`/a b` → `file:///a%20b`; on Windows also `C:/a` → `file:///C:/a` and `//host/share` → `file://host/share`."""
    quoted = quote(raw, safe="/:") if windows else quote(raw, safe="/")
    if windows and quoted.startswith("//"):
        return f"file:{quoted}"
    return f"file:///{quoted.lstrip('/')}"


def path_from_uri(uri: str, *, windows: bool) -> bytes:
    """The inverse of `uri_from_path`."""
    raw = unquote_to_bytes(os.fsencode(uri.removeprefix("file:")))  # of a list that is not UTF-8
    raw = b"//" + raw.removeprefix(b"//localhost") if raw.startswith(b"//localhost/") else raw
    if raw.startswith(b"///"):
        raw = raw[3:] if windows and raw[4:5] == b":" else raw[2:]
    return raw


def split_fragment(uri: str) -> tuple[str, dict[str, int]]:
    """Part a URI from the place inside its file: `…#row=12` or `…#offset=512&size=90`; {} if it is a whole file."""
    match = _FRAGMENT.search(uri)
    if match is None:
        return uri, {}
    return uri[: match.start()], {key: int(value) for key, value in match.groupdict().items() if value is not None}


def is_uri(text: str) -> bool:
    """True for `scheme://…` and chains of them such as `zip://a.jpg::s3://…`."""
    return re.match(r"[A-Za-z][A-Za-z0-9+.-]+:", text) is not None and "://" in text
