"""One line of edits.jsonl: what a person changed, about which images, on which clustering, when."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

import numpy as np

from shoal.corrections.base import Int64
from shoal.errors import RunError

RENAME: Final = "rename"
MERGE: Final = "merge"
SPLIT: Final = "split"
MOVE: Final = "move"
NOISE: Final = "noise"
REFIT: Final = "refit"
UNDO: Final = "undo"
REDO: Final = "redo"
OPERATIONS: Final = (RENAME, MERGE, SPLIT, MOVE, NOISE, REFIT, UNDO, REDO)

SAMPLE: Final = 1000  # images by which a cluster is known again; of larger ones this many, evenly taken

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

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Refitted:
        return cls(
            to=str(values["to"]),
            names={int(cluster): str(name) for cluster, name in values["names"].items()},
            noise=None if values["noise"] is None else int(values["noise"]),
            pinned=ids_of(values["pinned"]),
            numbers={int(old): int(new) for old, new in values["numbers"].items()},
            conflicts={int(line): str(reason) for line, reason in values.get("conflicts", {}).items()},
        )


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
        undone: for undo and redo, the line that it is about.
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
        try:
            values = json.loads(line)
            if values["op"] not in OPERATIONS:
                raise RunError(
                    f"edits.jsonl, line {number}: op has value {values['op']!r}; this Shoal knows "
                    f"{', '.join(OPERATIONS)}: upgrade Shoal to open it"
                )
            return cls(
                n=number,
                op=values["op"],
                base=str(values["base"]),
                time=str(values["time"]),
                clusters=tuple(
                    Reference(int(item["cluster"]), int(item["size"]), ids_of(item["ids"]))
                    for item in values.get("clusters", ())
                ),
                ids=ids_of(values.get("ids", "")),
                parts=tuple(ids_of(part) for part in values.get("parts", ())),
                new=tuple(int(cluster) for cluster in values.get("new", ())),
                name=values.get("name"),
                of=values.get("of"),
                refitted=Refitted.from_json(values["refit"]) if "refit" in values else None,
            )
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise RunError(f"edits.jsonl, line {number} is not readable as an edit: {error}") from error


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
    """The inverse of `ranges_of`, rising. Raises ValueError if the text is no list of ranges."""
    if not _RANGES.fullmatch(ranges):
        raise ValueError(f"{ranges[:60]!r} is no list of ids like 3,5-9")
    if not ranges:
        return np.empty(0, np.int64)
    numbers = np.fromstring(ranges.replace("-", ","), np.int64, sep=",")
    marks = np.frombuffer(ranges.encode(), np.uint8)
    begins = marks[(marks == ord(",")) | (marks == ord("-"))] == ord(",")  # does the number after a mark begin a range?
    firsts, lasts = numbers[np.r_[True, begins]], numbers[np.r_[begins, True]]
    lengths = lasts - firsts + 1
    if (lengths < 1).any() or lengths.sum() > 1 << 31:
        raise ValueError(f"{ranges[:60]!r} has a range that runs backwards, or too many ids")
    starts = np.repeat(firsts - np.r_[0, np.cumsum(lengths)[:-1]], lengths)
    ids = starts + np.arange(int(lengths.sum()), dtype=np.int64)
    return ids if (np.diff(ids) > 0).all() else np.unique(ids)
