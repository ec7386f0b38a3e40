"""What a run knows of its images: one row for each id, carried from one listing of the source to the next."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import pyarrow as pa

from shoal import records
from shoal.images.item import Item
from shoal.images.storage import NEEDS, UNREADABLE

NOT_LISTED = "no longer in the source"
BEYOND_LIMIT = "beyond --limit"
MOST_DETAILS = 3  # of one kind of reason that are told apart


@dataclass(slots=True)
class Row:
    """A row of images.parquet; the fields are `records.IMAGES`."""

    id: int
    path: str
    uri: str
    size_bytes: int | None = None
    mtime: float | None = None
    sha256: str | None = None
    width: int | None = None
    height: int | None = None
    status: str = records.OK
    reason: str | None = None
    duplicate_of: int | None = None

    def describes(self, item: Item) -> bool:
        """True if the item's file is, by all that its source tells, the one that this row was made from."""
        same_size = item.size_bytes is None or item.size_bytes == self.size_bytes
        return self.uri == item.uri and same_size and self.mtime == item.mtime

    @property
    def is_settled(self) -> bool:
        """True if what is known of the content needs no reading again, as long as the file does not change."""
        if self.status in (records.OK, records.DUPLICATE):
            return True
        if self.reason == BEYOND_LIMIT or self.status == records.VANISHED:
            return self.sha256 is not None and self.width is not None
        return self.status == records.SKIPPED and not (self.reason or "").startswith((UNREADABLE, NEEDS))


@dataclass(slots=True)
class Catalogue:
    """Rows by ascending id, and what is to be done to bring them up to date."""

    rows: list[Row]
    unread: list[Row]  # rows whose content has to be looked at
    labels: dict[int, str]


def match(
    earlier: Sequence[Row], items: Iterable[Item], selected: set[str] | None, is_same_decoder: bool = True
) -> Catalogue:
    """Bring the rows of an earlier listing together with the items of a new one.

    A path keeps its id for ever; new paths get the next ids in the order of `items`. `selected` are the paths that
    --limit lets in, None if all; others get no row, and one that has a row is skipped. What another decoder has skipped
    is looked at again.
    """
    known = {row.path: row for row in earlier}
    next_id = max((row.id for row in earlier), default=-1) + 1
    catalogue = Catalogue([], [], {})
    for item in items:
        row = known.pop(item.path, None)
        if selected is not None and item.path not in selected:
            if row is not None:
                row.status, row.reason, row.duplicate_of = records.SKIPPED, BEYOND_LIMIT, None
                catalogue.rows.append(row)
            continue
        if row is None:
            row = Row(next_id, item.path, item.uri)
            next_id += 1
            _renew(row, item, catalogue)
        elif (
            item.problem is None
            and row.describes(item)
            and row.is_settled
            and (is_same_decoder or row.status != records.SKIPPED)
        ):
            _keep(row)
        else:
            _renew(row, item, catalogue)
        catalogue.rows.append(row)
        if item.label is not None:
            catalogue.labels[row.id] = item.label
    for row in known.values():
        row.status, row.reason, row.duplicate_of = records.VANISHED, NOT_LISTED, None
        catalogue.rows.append(row)
    catalogue.rows.sort(key=lambda row: row.id)
    return catalogue


def look_up(catalogue: Catalogue, known: Iterable[Row]) -> list[Row]:
    """Fill in contents that a killed index has read already; return the rows that are still to be looked at."""
    by_uri = {row.uri: row for row in known}
    rest = []
    for row in catalogue.unread:
        found = by_uri.get(row.uri)
        is_same = found is not None and (found.size_bytes, found.mtime) == (row.size_bytes, row.mtime)
        if found is None or row.mtime is None or not is_same or found.width is None:
            rest.append(row)
        else:
            row.sha256, row.width, row.height = found.sha256, found.width, found.height
    return rest


def find_duplicates(rows: Iterable[Row]) -> None:
    """Of ok rows with the same content the one with the lowest id stays; the others become its duplicates."""
    originals: dict[str, int] = {}
    for row in rows:
        if row.status != records.OK or row.sha256 is None:
            continue
        original = originals.setdefault(row.sha256, row.id)
        if original != row.id:
            row.status, row.duplicate_of = records.DUPLICATE, original


def digest(rows: Iterable[Row]) -> str:
    """A digest of what later stages build on: ids, paths, contents and statuses; not times, not labels."""
    state = hashlib.sha256()
    for row in rows:
        state.update(f"{row.id}\0{row.path}\0{row.sha256}\0{row.status}\n".encode())
    return state.hexdigest()


def select(paths: Iterable[str], limit: int) -> set[str]:
    """The `limit` paths with the smallest hashes: spread over the source, and kept when the limit rises."""
    return set(sorted(set(paths), key=lambda path: (hashlib.sha256(path.encode()).digest(), path))[:limit])


def reasons(rows: Iterable[Row]) -> dict[str, int]:
    """How many rows there are for each reason; the most frequent first. Where there are many details, without these."""
    counts = Counter(row.reason for row in rows if row.reason)
    details = Counter(_kind(reason) for reason in counts)
    told: Counter[str] = Counter()
    for reason, count in counts.items():
        told[reason if details[_kind(reason)] <= MOST_DETAILS else _kind(reason)] += count
    return dict(sorted(told.items(), key=lambda pair: (-pair[1], pair[0])))


def read_rows(table: pa.Table) -> list[Row]:
    return [Row(**values) for values in table.to_pylist()]


def to_table(rows: Sequence[Row]) -> pa.Table:
    columns = {name: [getattr(row, name) for row in rows] for name in records.IMAGES.names}
    return pa.table(columns, schema=records.IMAGES)


def _kind(reason: str) -> str:
    """A reason without its details, which stand in brackets."""
    return reason.split(" (", maxsplit=1)[0]


def _keep(row: Row) -> None:
    """Back to how it was before duplicates, limits and absence had their say."""
    if row.width is not None:
        row.status, row.reason, row.duplicate_of = records.OK, None, None


def _renew(row: Row, item: Item, catalogue: Catalogue) -> None:
    row.uri, row.size_bytes, row.mtime = item.uri, item.size_bytes, item.mtime
    row.sha256 = row.width = row.height = row.duplicate_of = None
    row.status, row.reason = (records.OK, None) if item.problem is None else (records.SKIPPED, item.problem)
    if item.problem is None:
        catalogue.unread.append(row)
