"""What a source yields: one item for each image, or for each thing that should have been one."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol

from shoal.images.left_out import LeftOut
from shoal.spool import Spool


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


class Source(Protocol):
    """A place that holds images."""

    @property
    def identity(self) -> str:
        """Canonical text: two sources are the same if and only if it is equal."""

    @property
    def name(self) -> str:
        """A short name, fit for a file name."""

    @property
    def spool(self) -> Spool:
        """Where what was fetched of it is kept."""

    def items(self, left_out: LeftOut | None = None) -> Iterator[Item]:
        """Every entry, in an order that only depends on what the source holds.

        The folders that are not looked into are added to `left_out`.

        Raises:
            SourceError: the source cannot be listed.
        """


def with_distinct_paths(items: Iterable[Item]) -> Iterator[Item]:
    """Number items whose path was seen before (`a.jpg#2`), since ids belong to paths."""
    seen: dict[str, int] = {}
    for item in items:
        count = seen.get(item.path, 0) + 1
        seen[item.path] = count
        if count == 1:
            yield item
            continue
        path = f"{item.path}#{count}"
        while path in seen:
            count += 1
            path = f"{item.path}#{count}"
        seen[item.path] = count  # the next looks no further back
        seen[path] = 1
        yield dataclasses.replace(item, path=path)
