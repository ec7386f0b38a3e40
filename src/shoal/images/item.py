"""What a source yields: one item for each image, or for each thing that should have been one."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Item:
    """One entry of a source.

    `path` is how people know it (relative to the source, `/` between parts, valid UTF-8); `uri` is from where its
    bytes can be read again without the source. `problem` is a reason, known without reading it, why it is no image.
    """

    path: str
    uri: str
    size_bytes: int | None = None
    mtime: float | None = None  # seconds since the epoch
    label: str | None = None
    problem: str | None = None
