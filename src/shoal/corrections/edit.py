"""One line of edits.jsonl: what a person changed, about which images, on which clustering, when."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Annotated, Any, Final

import numpy as np

from shoal import foreign
from shoal.config import MOST_NUMBERS
from shoal.corrections.base import Int64
from shoal.errors import RunError
from shoal.typed import Between, Most, Printable

RENAME: Final = "rename"
MERGE: Final = "merge"
SPLIT: Final = "split"
MOVE: Final = "move"
NOISE: Final = "noise"
REFIT: Final = "refit"
UNDO: Final = "undo"
REDO: Final = "redo"
OPERATIONS: Final = (RENAME, MERGE, SPLIT, MOVE, NOISE, REFIT, UNDO, REDO)

LONGEST_NAME: Final = 200  # characters
MOST_IDS: Final = 1 << 24  # in one list: more images than one edit was ever about
SAMPLE: Final = 1000  # images by which a cluster is known again; of larger ones this many, evenly taken

Number = Annotated[int, Between(0, MOST_NUMBERS - 1)]  # of a cluster
Name = Annotated[str, Most(LONGEST_NAME), Printable()]
Names = Annotated[dict[Number, Name], Most(MOST_NUMBERS)]
Words = Annotated[str, Most(1000)]
Ranges = Annotated[str, Most(1 << 28)]  # `ids_of` looks at it

_NUMBER = "[0-9]{1,18}"  # what int64 holds
_RANGES = re.compile(f"(?:{_NUMBER}(?:-{_NUMBER})?(?:,{_NUMBER}(?:-{_NUMBER})?)*)?")


@dataclass(frozen=True, slots=True, eq=False)
class Reference:
    """A cluster as an edit names it: its number then, its size then, and images by which it is known again."""

    cluster: int
    size: int
    ids: Int64

    def to_json(self) -> dict[str, Any]:
        return {"cluster": self.cluster, "size": self.size, "ids": ranges_of(self.ids)}

    @classmethod
    def of(cls, cluster: int, members: Int64) -> Reference:
        """Of a cluster's members, ids by rising number."""
        evenly = np.linspace(0, len(members) - 1, min(len(members), SAMPLE)).astype(np.int64)
        return cls(cluster, len(members), members[evenly])


@dataclass(frozen=True, slots=True, eq=False)
class Refitted:
    """What a refit did: the clustering `to` came of the one that the edit was made on, which is kept for undoing.

    Attributes:
        names: by number in the new clustering; noise: the number of its noise, or None.
        pinned: ids that people had put where they are.
        numbers: number in the new clustering by that in the corrected one before.
        conflicts: why an edit was not in force then, by its line.
    """

    to: str
    names: dict[int, str]
    noise: int | None
    pinned: Int64
    numbers: dict[int, int]
    conflicts: dict[int, str]

    def to_json(self) -> dict[str, Any]:
        return {
            "to": self.to,
            "names": {str(cluster): name for cluster, name in self.names.items()},
            "noise": self.noise,
            "pinned": ranges_of(self.pinned),
            "numbers": {str(old): new for old, new in self.numbers.items()},
            "conflicts": {str(line): reason for line, reason in self.conflicts.items()},
        }


@dataclass(frozen=True, slots=True, eq=False)
class Edit:
    """A line of the log. `n` counts lines from 1; `base` is the digest of the clustering that it was made on.

    Attributes:
        clusters: for rename and split the cluster, for merge all of them (the first one stays), for move the target
            (none: a new cluster).
        ids: images moved, or marked as noise.
        parts: for split, the images of each part; the first one keeps the cluster's number and name.
        new: numbers of the clusters that the edit makes.
        name: for rename; None takes the name away. For move: of the new cluster.
        of: for undo and redo, the line that it is about.
        refitted: for refit, what it did.
    """

    n: int
    op: str
    base: str
    time: str
    clusters: tuple[Reference, ...] = ()
    ids: Int64 = field(default_factory=lambda: np.empty(0, np.int64))
    parts: tuple[Int64, ...] = ()
    new: tuple[int, ...] = ()
    name: str | None = None
    of: int | None = None
    refitted: Refitted | None = None

    def to_json(self) -> dict[str, Any]:
        values: dict[str, Any] = {"n": self.n, "op": self.op, "base": self.base, "time": self.time}
        if self.clusters:
            values["clusters"] = [reference.to_json() for reference in self.clusters]
        if self.op in (MOVE, NOISE):
            values["ids"] = ranges_of(self.ids)
        if self.parts:
            values["parts"] = [ranges_of(part) for part in self.parts]
        if self.new:
            values["new"] = list(self.new)
        if self.op == RENAME or self.name is not None:
            values["name"] = self.name
        if self.of is not None:
            values["of"] = self.of
        if self.refitted is not None:
            values["refit"] = self.refitted.to_json()
        return values

    def to_line(self) -> bytes:
        return json.dumps(self.to_json(), ensure_ascii=False, separators=(",", ":")).encode() + b"\n"

    @classmethod
    def from_line(cls, line: bytes, number: int) -> Edit:
        """Read line `number` (from 1). Raises RunError if it is not as this version writes them."""
        where = f"edits.jsonl, line {number}"
        values = foreign.parse_json(line, where)
        with foreign.telling_of(f"{where} is not readable as an edit"):
            written = foreign.READER.read(_Line, values)
        if written.op not in OPERATIONS:
            raise RunError(
                f"{where}: op has value {written.op!r}; this Shoal knows {', '.join(OPERATIONS)}: upgrade Shoal to "
                "open it"
            )
        try:
            edit = written.edit(number)
        except ValueError as error:
            raise RunError(f"{where} is not readable as an edit: {error}") from error
        lacks = edit.lacks()
        if lacks is not None:
            raise RunError(f"{where} is not readable as an edit: {edit.op} expects {lacks}")
        return edit

    def lacks(self) -> str | None:
        """What an operation of this kind needs and this one has not; None if it has all."""
        count, new = len(self.clusters), len(self.new)
        is_whole, needs = {
            RENAME: (count == 1, "one cluster"),
            MERGE: (count > 1, "at least two clusters"),
            SPLIT: (count == 1 and len(self.parts) - 1 == new > 0, "one cluster, its parts, a number for each but one"),
            MOVE: (count + new == 1 and len(self.ids) > 0, "images, and one cluster or the number of a new one"),
            NOISE: (new <= 1 and len(self.ids) > 0, "images, and at most one number of a new cluster"),
            REFIT: (self.refitted is not None, "what the refit did"),
        }.get(self.op, (True, ""))
        return None if is_whole else needs

    @property
    def named_ids(self) -> int:
        """How many ids it holds in memory."""
        lists = [self.ids, *self.parts, *(reference.ids for reference in self.clusters)]
        return sum(map(len, lists)) + (0 if self.refitted is None else len(self.refitted.pinned))


@dataclass(frozen=True, slots=True)
class _Reference:
    cluster: Number
    size: Annotated[int, Between(1)]
    ids: Ranges

    def reference(self) -> Reference:
        return Reference(self.cluster, self.size, ids_of(self.ids))


@dataclass(frozen=True, slots=True)
class _Refitted:
    to: Words
    names: Names
    noise: Number | None
    pinned: Ranges
    numbers: dict[Number, Number]
    conflicts: dict[Annotated[int, Between(1)], Words] = field(default_factory=dict)

    def refitted(self) -> Refitted:
        return Refitted(self.to, self.names, self.noise, ids_of(self.pinned), self.numbers, self.conflicts)


@dataclass(frozen=True, slots=True)
class _Line:
    """An edit as its line has it, where ids are written as ranges."""

    op: Words
    base: Words
    time: Words
    clusters: tuple[_Reference, ...] = ()
    ids: Ranges = ""
    parts: tuple[Ranges, ...] = ()
    new: tuple[Number, ...] = ()
    name: Name | None = None
    of: Annotated[int, Between(1)] | None = None
    refit: _Refitted | None = None

    def edit(self, number: int) -> Edit:
        """Raises ValueError if a list of ids is none."""
        return Edit(
            n=number,
            op=self.op,
            base=self.base,
            time=self.time,
            clusters=tuple(reference.reference() for reference in self.clusters),
            ids=ids_of(self.ids),
            parts=tuple(map(ids_of, self.parts)),
            new=self.new,
            name=self.name,
            of=self.of,
            refitted=None if self.refit is None else self.refit.refitted(),
        )


def now() -> str:
    """This moment as edits have it: UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def ranges_of(ids: Int64 | Sequence[int]) -> str:
    """`3,5-9` of the ids 3, 5, 6, 7, 8, 9, whatever their order."""
    numbers = np.unique(np.asarray(ids, np.int64))
    if not len(numbers):
        return ""
    breaks = np.flatnonzero(np.diff(numbers) > 1)
    firsts, lasts = numbers[np.r_[0, breaks + 1]], numbers[np.r_[breaks, len(numbers) - 1]]
    return ",".join(str(a) if a == b else f"{a}-{b}" for a, b in zip(firsts.tolist(), lasts.tolist(), strict=True))


def ids_of(ranges: str) -> Int64:
    """The inverse of `ranges_of`, rising. Raises ValueError if the text is no list of ranges, or too long."""
    if not _RANGES.fullmatch(ranges):
        raise ValueError(f"{ranges[:60]!r} is no list of ids like 3,5-9")
    if not ranges:
        return np.empty(0, np.int64)
    numbers = np.fromstring(ranges.replace("-", ","), np.int64, sep=",")
    marks = np.frombuffer(ranges.encode(), np.uint8)
    begins = marks[(marks == ord(",")) | (marks == ord("-"))] == ord(",")  # does the number after a mark begin a range?
    firsts, lasts = numbers[np.r_[True, begins]], numbers[np.r_[begins, True]]
    lengths = lasts - firsts + 1
    # One by one, since a sum of such numbers could run over.
    if (lengths < 1).any() or (lengths > MOST_IDS).any() or lengths.sum() > MOST_IDS:
        raise ValueError(
            f"{ranges[:60]!r} has a range that runs backwards, or more ids than {MOST_IDS:,}; expected 3,5-9"
        )
    starts = np.repeat(firsts - np.r_[0, np.cumsum(lengths)[:-1]], lengths)
    ids = starts + np.arange(int(lengths.sum()), dtype=np.int64)
    return ids if (np.diff(ids) > 0).all() else np.unique(ids)
