"""What a run knows of its images: one row for each id, carried from one listing of the source to the next.

All of it is columns: a million images are some hundred bytes each, and no Python object.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from shoal import parquet, records
from shoal.images.listed import Bools, Listed, Positions, Texts, chained, replaced
from shoal.images.storage import GONE, NEEDS, UNREADABLE

NOT_LISTED: Final = "no longer in the source"
BEYOND_LIMIT: Final = "beyond --limit"
MOST_DETAILS: Final = 3  # of one kind of reason that are told apart
NONE: Final = -1  # no id
BLOCK: Final = 1 << 16  # rows of a digest at a time
STATUSES: Final = pa.array([records.OK, records.SKIPPED, records.DUPLICATE, records.VANISHED])
OK, SKIPPED, DUPLICATE, VANISHED = range(len(STATUSES))
CONTENTS: Final = pa.schema([(name, records.IMAGES.field(name).type) for name in ("sha256", "width", "height")])

Codes = npt.NDArray[np.int8]


@dataclass(frozen=True, slots=True)
class Catalogue:
    """Rows by ascending id, and what is to be done to bring them up to date.

    Attributes:
        table: `records.IMAGES`.
        unread: ids whose content has to be looked at, in the order of the listing.
        ids: of each listed entry; NONE of one that gets no row.
        labels: `records.LABELS`, by id.
    """

    table: pa.Table
    unread: Positions
    ids: Positions
    labels: pa.Table


def match(earlier: pa.Table, listed: Listed, selected: Bools | None = None, is_same_decoder: bool = True) -> Catalogue:
    """Bring the rows of an earlier listing together with a new one.

    A path keeps its id for ever; new paths get the next ids in the order of `listed`. `selected` are the entries that
    --limit lets in, None if all; others get no row, and one that has a row is skipped. What another decoder has skipped
    is looked at again.

    Args:
        earlier: `records.IMAGES`, ids counting from 0.
    """
    known, count = earlier.num_rows, len(listed)
    ids = _filled(pc.index_in(listed.paths, value_set=earlier["path"]), NONE)
    selected = np.ones(count, np.bool_) if selected is None else selected
    is_new = (ids == NONE) & selected
    ids[is_new] = known + np.arange(is_new.sum())
    rows = known + int(is_new.sum())
    at = np.full(rows, NONE)  # of each row: its entry
    has_row = np.flatnonzero(ids != NONE)
    at[ids[has_row]] = has_row

    is_listed, is_beyond = at != NONE, np.zeros(rows, np.bool_)
    is_beyond[is_listed] = ~selected[at[is_listed]]
    is_kept = np.zeros(rows, np.bool_)
    is_kept[:known] = _is_kept(earlier, listed, at[:known], is_same_decoder)
    is_kept &= is_listed & ~is_beyond
    is_renewed = is_listed & ~is_beyond & ~is_kept
    has_problem = np.zeros(rows, np.bool_)
    has_problem[is_renewed] = pc.is_valid(listed.table["problem"]).to_numpy()[at[is_renewed]]

    source = np.where(is_renewed, known + at, np.arange(rows))  # in a column of the earlier rows and then the entries
    told = {name: chained(earlier[name], listed.table[name]).take(pa.array(source)) for name in ("size_bytes", "mtime")}
    told["path"] = chained(earlier["path"], listed.paths.filter(pa.array(is_new)))
    told["uri"] = parquet.take(chained(earlier["uri"], listed.uris), pa.array(source))
    of_earlier = pa.array(np.where(is_renewed, 0, np.arange(rows)), mask=is_renewed)
    told |= {field.name: parquet.take(earlier[field.name], of_earlier) for field in CONTENTS}

    status = np.zeros(rows, np.int8)
    status[:known] = codes_of(earlier["status"])
    is_whole = is_kept & pc.is_valid(told["width"]).to_numpy()  # as it was before copies, limits and absence had a say
    status[is_whole | is_renewed] = OK
    status[has_problem | is_beyond] = SKIPPED
    status[~is_listed] = VANISHED
    words = chained(earlier["reason"], listed.table["problem"], pa.array([BEYOND_LIMIT, NOT_LISTED]))
    reason = np.where(is_renewed, known + at, np.arange(rows))
    reason[is_beyond], reason[~is_listed] = known + count, known + count + 1
    no_reason = is_whole | (is_renewed & ~has_problem)
    told["reason"] = parquet.take(words, pa.array(np.where(no_reason, 0, reason), mask=no_reason))
    copies = np.full(rows, NONE)
    copies[:known] = _filled(earlier["duplicate_of"], NONE)
    copies[is_whole | is_renewed | is_beyond | ~is_listed] = NONE

    unread = ids[has_row]
    return Catalogue(
        _table(np.arange(rows), status, copies, told),
        unread[(is_renewed & ~has_problem)[unread]],
        ids,
        _labels(listed, ids, selected),
    )


def _is_kept(earlier: pa.Table, listed: Listed, at: Positions, is_same_decoder: bool) -> Bools:
    """Of which earlier rows the entry `at` is the file that they were made from, with nothing to be read again."""
    entries = parquet.take_rows(listed.table, pa.array(np.maximum(at, 0), mask=at == NONE))
    same = [
        pc.equal(earlier["uri"], entries["uri"]),
        pc.or_kleene(pc.is_null(entries["size_bytes"]), pc.equal(earlier["size_bytes"], entries["size_bytes"])),
        pc.or_(
            pc.and_(pc.is_null(earlier["mtime"]), pc.is_null(entries["mtime"])),
            pc.fill_null(pc.equal(earlier["mtime"], entries["mtime"]), False),
        ),
        pc.is_null(entries["problem"]),
    ]
    kept = _is_settled(earlier)
    for condition in same:
        kept &= pc.fill_null(condition, False).to_numpy()
    return kept if is_same_decoder else kept & (codes_of(earlier["status"]) != SKIPPED)


def _is_settled(rows: pa.Table) -> Bools:
    """Where what is known of the content needs no reading again, as long as the file does not change."""
    status = codes_of(rows["status"])
    is_beyond = pc.fill_null(pc.equal(rows["reason"], BEYOND_LIMIT), False).to_numpy()
    is_read = pc.and_(pc.is_valid(rows["sha256"]), pc.is_valid(rows["width"])).to_numpy()
    may_pass = _starts(rows["reason"], UNREADABLE) | _starts(rows["reason"], NEEDS)
    settled: Bools = np.where(
        (status == OK) | (status == DUPLICATE),
        True,
        np.where(is_beyond | (status == VANISHED), is_read, (status == SKIPPED) & ~may_pass),
    )
    return settled


def look_up(found: Catalogue, known: pa.Table) -> Catalogue:
    """Fill in contents that a killed index has read already; what is still to be looked at stays `unread`."""
    if known.num_rows == 0 or len(found.unread) == 0:
        return found
    wanted = parquet.take_rows(found.table.select(["uri", "size_bytes", "mtime"]), pa.array(found.unread))
    at = _filled(pc.index_in(wanted["uri"], value_set=known["uri"]), NONE)
    there = parquet.take_rows(known, pa.array(np.maximum(at, 0), mask=at == NONE))
    is_same = pc.is_valid(there["width"]).to_numpy() & pc.is_valid(wanted["mtime"]).to_numpy()
    for name in ("size_bytes", "mtime"):
        both_null = pc.and_(pc.is_null(wanted[name]), pc.is_null(there[name]))
        is_same &= pc.or_(both_null, pc.fill_null(pc.equal(wanted[name], there[name]), False)).to_numpy()
    return Catalogue(
        _with_contents(found.table, found.unread[is_same], there.filter(pa.array(is_same)).select(CONTENTS.names)),
        found.unread[~is_same],
        found.ids,
        found.labels,
    )


def fill(table: pa.Table, ids: Positions, contents: pa.Table) -> pa.Table:
    """The rows with what reading their files told.

    Args:
        ids: of the files that were read; contents: of each, `CONTENTS` with `size_bytes`, and `reason` where it is no
            image.
    """
    order = np.argsort(ids)
    ids, contents = ids[order], parquet.take_rows(contents, pa.array(order))
    known = table["size_bytes"].take(pa.array(ids))
    sizes = pc.coalesce(known, contents["size_bytes"])
    is_image = pc.is_valid(contents["width"]).to_numpy()
    status = codes_of(table["status"])
    is_gone = pc.fill_null(pc.equal(contents["reason"], GONE), False).to_numpy()
    status[ids] = np.where(is_image, status[ids], np.where(is_gone, VANISHED, SKIPPED))
    table = _with_contents(table, ids, contents.select(CONTENTS.names))
    table = _set(table, "size_bytes", replaced(table["size_bytes"], ids, sizes))
    reasons = contents["reason"].filter(pa.array(~is_image))
    table = _set(table, "reason", replaced(table["reason"], ids[~is_image], reasons))
    return _set(table, "status", texts_of(status))


def find_duplicates(table: pa.Table) -> pa.Table:
    """Of ok rows with the same content the one with the lowest id stays; the others become its duplicates."""
    status = codes_of(table["status"])
    rows = np.flatnonzero((status == OK) & pc.is_valid(table["sha256"]).to_numpy())
    contents = parquet.codes(parquet.take(table["sha256"], pa.array(rows)))
    _, first = np.unique(contents, return_index=True)
    originals = rows[first][contents]
    is_copy = originals != rows
    status[rows[is_copy]] = DUPLICATE
    copies = _filled(table["duplicate_of"], NONE)
    copies[rows[is_copy]] = originals[is_copy]
    table = _set(table, "status", texts_of(status))
    return _set(table, "duplicate_of", pa.array(copies, mask=copies == NONE))


def digest(table: pa.Table) -> str:
    """A digest of what later stages build on: ids, paths, contents and statuses; not times, not labels."""
    state = hashlib.sha256()
    for rows in table.select(["id", "path", "sha256", "status"]).to_batches(BLOCK):
        ends = pc.binary_join_element_wise(rows["status"], "\n", "")
        texts = [rows["id"].cast(pa.string()), rows["path"], pc.fill_null(rows["sha256"], "None"), ends]
        records.update(state, pc.binary_join_element_wise(*texts, "\0"))
    return state.hexdigest()


def select(paths: Texts, limit: int) -> Bools:
    """Which are the `limit` paths with the smallest hashes: spread over the source, and kept when the limit rises."""
    hashes = np.empty((len(paths), 4), ">u8")
    for number, path in enumerate(paths):
        hashes[number] = np.frombuffer(hashlib.sha256(path.as_py().encode()).digest(), ">u8")
    chosen = np.zeros(len(paths), np.bool_)
    chosen[np.lexsort(hashes.T[::-1])[:limit]] = True
    return chosen


def counts(table: pa.Table) -> dict[str, int]:
    """How many rows there are of each status."""
    found = np.bincount(codes_of(table["status"]), minlength=len(STATUSES))
    return dict(zip(STATUSES.to_pylist(), found.tolist(), strict=True))


def reasons(column: Texts) -> dict[str, int]:
    """How many rows there are for each reason; the most frequent first. Where there are many details, without these."""
    found = {pair["values"]: pair["counts"] for pair in pc.value_counts(column).to_pylist() if pair["values"]}
    details = Counter(_kind(reason) for reason in found)
    told: Counter[str] = Counter()
    for reason, count in found.items():
        told[reason if details[_kind(reason)] <= MOST_DETAILS else _kind(reason)] += count
    return dict(sorted(told.items(), key=lambda pair: (-pair[1], pair[0])))


def first_with(table: pa.Table, *beginnings: str) -> str | None:
    """The path of the first row whose reason begins so."""
    rows = np.flatnonzero(np.logical_or.reduce([_starts(table["reason"], words) for words in beginnings]))
    path: str | None = table["path"][int(rows[0])].as_py() if len(rows) else None
    return path


def codes_of(status: Texts) -> Codes:
    """Numbers of statuses among STATUSES."""
    found: Codes = pc.index_in(status, value_set=STATUSES).to_numpy(zero_copy_only=False).astype(np.int8)
    return found


def texts_of(codes: Codes) -> pa.Array:
    """The statuses of such numbers."""
    return STATUSES.take(pa.array(codes))


def _table(ids: Positions, status: Codes, copies: Positions, told: dict[str, Any]) -> pa.Table:
    made = {"id": ids, "status": texts_of(status), "duplicate_of": pa.array(copies, mask=copies == NONE)}
    columns = {**told, **made}
    return pa.table({name: columns[name] for name in records.IMAGES.names}, schema=records.IMAGES)


def _labels(listed: Listed, ids: Positions, selected: Bools) -> pa.Table:
    has_label = pc.is_valid(listed.table["label"]).to_numpy() & selected
    columns = {"id": ids[has_label], "label": listed.table["label"].filter(pa.array(has_label))}
    return parquet.in_order(pa.table(columns, schema=records.LABELS), "id")


def _with_contents(table: pa.Table, ids: Positions, contents: pa.Table) -> pa.Table:
    order = np.argsort(ids)
    for name in CONTENTS.names:
        table = _set(table, name, replaced(table[name], ids[order], parquet.take(contents[name], pa.array(order))))
    return table


def _set(table: pa.Table, name: str, values: Texts) -> pa.Table:
    return table.set_column(table.column_names.index(name), records.IMAGES.field(name), values)


def _starts(reasons: Texts, words: str) -> Bools:
    found: Bools = pc.fill_null(pc.starts_with(reasons, words), False).to_numpy(zero_copy_only=False)
    return found


def _filled(numbers: Texts, instead: int) -> Positions:
    found: Positions = pc.fill_null(numbers, instead).to_numpy(zero_copy_only=False).astype(np.int64)
    return found


def _kind(reason: str) -> str:
    """A reason without its details, which stand in brackets."""
    return reason.split(" (", maxsplit=1)[0]
