"""The clusters that a log of edits makes of a clustering.

Edits made on the clustering at hand apply as they stand. Edits made on another one (the run was clustered again) are
carried over: moved images by their ids, clusters by their overlap with what they were; an edit whose cluster is no
longer there is kept in the log and told as a conflict.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

import numpy as np

from shoal.corrections.base import Base, Bools, Int32, Int64
from shoal.corrections.edit import Edit, Reference
from shoal.corrections.log import in_force

LEAST_OVERLAP: Final = 0.5  # Dice: twice the common images over the sum of both sizes
NOISE_NAME: Final = "noise"
DENSITIES: Final = (8, 4, 2, 1)  # of states that are kept; the first one whose states fit
MOST_BYTES: Final = 96 << 20

Kept = Callable[[str], Base | None]


class _ConflictError(Exception):
    """An edit that cannot be carried over; its text says why."""


@dataclass(slots=True)
class Replay:
    """The state after some edits.

    Attributes:
        base: the clustering that edits are applied to.
        cluster: [n] int32, corrected; pinned: [n] rows that people put where they are.
        names: of clusters that have one; noise: number of the cluster that holds the noise, or None.
        follow: [K of the base] the cluster that each one of the base went into.
        made: clusters that are no union of the base's: parts of splits, and new ones.
        conflicts: why an edit is not in force, by its line.
    """

    base: Base
    cluster: Int32
    pinned: Bools
    follow: Int32
    next_number: int
    names: dict[int, str] = field(default_factory=dict)
    noise: int | None = None
    made: set[int] = field(default_factory=set)
    conflicts: dict[int, str] = field(default_factory=dict)
    created: dict[tuple[str, int], int] = field(default_factory=dict)

    def copy(self) -> Replay:
        """Another one, which may be changed."""
        return replace(
            self,
            cluster=self.cluster.copy(),
            pinned=self.pinned.copy(),
            follow=self.follow.copy(),
            names=dict(self.names),
            made=set(self.made),
            conflicts=dict(self.conflicts),
            created=dict(self.created),
        )

    @property
    def nbytes(self) -> int:
        """Of its arrays; the rest is small."""
        return self.cluster.nbytes + self.pinned.nbytes + self.follow.nbytes

    # -- one edit -----------------------------------------------------------------------------------------------

    def apply(self, edit: Edit) -> None:
        """Apply an edit, or note why it cannot be."""
        try:
            match edit.op:
                case "rename":
                    self._rename(edit)
                case "merge":
                    self._merge(edit)
                case "split":
                    self._split(edit)
                case "move":
                    self._move(edit)
                case "noise":
                    self._mark_noise(edit)
                case "refit":
                    raise _ConflictError("the clusters were made anew since; apply the corrections again")
        except _ConflictError as conflict:
            self.conflicts[edit.n] = str(conflict)

    def _rename(self, edit: Edit) -> None:
        cluster = self._resolve(edit, edit.clusters[0])
        if edit.name is None:
            self.names.pop(cluster, None)
        else:
            self.names[cluster] = edit.name

    def _merge(self, edit: Edit) -> None:
        found = list(dict.fromkeys(self._resolve(edit, reference) for reference in edit.clusters))
        into = found[0]
        for cluster in found[1:]:
            self.cluster[self.cluster == cluster] = into
            self.follow[self.follow == cluster] = into
            name = self.names.pop(cluster, None)
            if name is not None:
                self.names.setdefault(into, name)
            if cluster in self.made:
                self.made.add(into)
            if self.noise == cluster:
                self.noise = into
        self.made -= set(found[1:])
        for reference in edit.clusters[1:]:
            self.created[edit.base, reference.cluster] = into

    def _split(self, edit: Edit) -> None:
        try:
            cluster = self._resolve(edit, edit.clusters[0])
        except _ConflictError:
            if all(self._known_again(Reference.of(-1, part)) is not None for part in edit.parts):
                return  # the clustering has come to the same parts by itself
            raise
        self.made.add(cluster)
        for number, part in zip(edit.new, edit.parts[1:], strict=True):
            rows = self._rows(part)
            rows = rows[self.cluster[rows] == cluster]
            self._put(rows, self._number(edit, number))

    def _move(self, edit: Edit) -> None:
        target = self._resolve(edit, edit.clusters[0]) if edit.clusters else self._number(edit, edit.new[0])
        rows = self._present(edit)
        self._put(rows, target)
        self.pinned[rows] = True
        if not edit.clusters and edit.name is not None:
            self.names[target] = edit.name

    def _mark_noise(self, edit: Edit) -> None:
        rows = self._present(edit)
        if self.noise is None:
            self.noise = self._number(edit, edit.new[0] if edit.new else self.next_number)
            self.names[self.noise] = NOISE_NAME
        self._put(rows, self.noise)
        self.pinned[rows] = True

    # -- what an edit is about --------------------------------------------------------------------------------------

    def _resolve(self, edit: Edit, reference: Reference) -> int:
        """The cluster that is meant."""
        if edit.base == self.base.digest:
            return reference.cluster
        made = self.created.get((edit.base, reference.cluster))
        found = made if made is not None else self._known_again(reference)
        if found is None:
            lie_in = len(np.unique(self.cluster[self._rows(reference.ids)]))
            where = {0: "are gone", 1: "are part of a larger one"}.get(lie_in, f"lie in {lie_in:,} others")
            raise _ConflictError(
                f"cluster {reference.cluster} of {reference.size:,} images is no longer there: its images {where}"
            )
        return found

    def _known_again(self, reference: Reference) -> int | None:
        """The cluster with the largest overlap, if it is large enough."""
        rows = self._rows(reference.ids)
        if not len(rows):
            return None
        numbers, common = np.unique(self.cluster[rows], return_counts=True)
        scale = reference.size / len(reference.ids)  # where only a sample of the images was written down
        sizes = np.bincount(self.cluster, minlength=int(numbers[-1]) + 1)[numbers]
        dice = 2 * common * scale / (len(rows) * scale + sizes)
        best = int(dice.argmax())
        return int(numbers[best]) if dice[best] >= LEAST_OVERLAP else None

    def _number(self, edit: Edit, wanted: int) -> int:
        """The number of a cluster that an edit makes."""
        number = wanted if edit.base == self.base.digest else self.next_number
        self.created[edit.base, wanted] = number
        self.made.add(number)
        self.next_number = max(self.next_number, number + 1)
        return number

    def _present(self, edit: Edit) -> Int64:
        rows = self._rows(edit.ids)
        if not len(rows):
            raise _ConflictError(f"none of its {len(edit.ids):,} images is there any more")
        return rows

    def _rows(self, ids: Int64) -> Int64:
        """Rows of those `ids` that are there."""
        rows = np.searchsorted(self.base.ids, ids).clip(max=max(len(self.base.ids) - 1, 0))
        return rows[self.base.ids[rows] == ids] if len(self.base.ids) else np.empty(0, np.int64)

    def _put(self, rows: Int64, cluster: int) -> None:
        """Put images into a cluster, with their exact copies."""
        self.cluster[self.base.together(rows)] = cluster


def replay(base: Base, log: Sequence[Edit], kept: Kept) -> Replay:
    """Apply the edits in force to a clustering; `kept` gives the ones that undone refits were made of."""
    base, refit, edits = _to_apply(base, log, kept)
    state = _first(base, refit)
    for edit in edits:
        state.apply(edit)
    return _with_next_number(state, log)


class Replayer:
    """Replays a log that grows, as `replay` would: of what it replayed before, it applies only what is new since.

    States on the way are kept, the closer to the last one asked for the denser, so that an undo, and a look at how it
    was some edits ago, start from one nearby. Not for several threads at once.

    Args:
        kept: gives the clusterings that undone refits were made of.
    """

    def __init__(self, kept: Kept) -> None:
        self._kept = kept
        self._earlier: dict[str, Base | None] = {}  # what `kept` gave, by digest
        self._read: Base | None = None
        self._begun: tuple[Base, Edit | None] | None = None
        self._edits: list[Edit] = []
        self._states: dict[int, Replay] = {}  # by how many of those edits they are after

    def after(self, base: Base, log: Sequence[Edit]) -> Replay:
        """A clustering after the edits in force. The answer is not to be changed.

        Edits that are the same objects as in an earlier call count as known.
        """
        base, refit, edits = _to_apply(base, log, self._known_earlier(base))
        if self._begun is None or self._begun[0] is not base or self._begun[1] is not refit:
            self._begun, self._edits, self._states = (base, refit), [], {0: _first(base, refit)}
        if edits != self._edits[: len(edits)]:
            common = _common(edits, self._edits)
            self._edits = edits
            self._states = {count: state for count, state in self._states.items() if count <= common}
        return _with_next_number(self._after(len(edits)), log)

    def _known_earlier(self, base: Base) -> Kept:
        """`kept`, asked once for each clustering while `base` stays, of which those last asked for are remembered."""
        known = self._earlier if base is self._read else {}
        self._read, self._earlier = base, {}

        def kept(digest: str) -> Base | None:
            self._earlier[digest] = known[digest] if digest in known else self._kept(digest)
            return self._earlier[digest]

        return kept

    def _after(self, count: int) -> Replay:
        """The state after so many of the edits."""
        nearest = max(known for known in self._states if known <= count)
        wanted = _worth_keeping(count, len(self._edits), self._states[0].nbytes)
        state = self._states[nearest]
        for number in range(nearest, count):
            state = state.copy() if number in self._states else state
            state.apply(self._edits[number])
            if number + 1 in wanted:
                self._states[number + 1] = state
        self._states = {known: state for known, state in self._states.items() if known in wanted}
        return self._states[count]


def _common(one: Sequence[Edit], other: Sequence[Edit]) -> int:
    """How many edits at the beginning are the same."""
    pairs = zip(one, other, strict=False)
    return next((place for place, (a, b) in enumerate(pairs) if a is not b), min(len(one), len(other)))


def _worth_keeping(count: int, total: int, state_bytes: int) -> set[int]:
    """After how many of `total` edits the states are kept while the one after `count` is asked for.

    Up to `density` away all of them, up to twice that every second one, and so on: the way to a place from the nearest
    one before it is, at the first density, at most a quarter of the way from that place to `count`.
    """
    for density in DENSITIES:
        kept, step = {0, count}, 1
        while step == 1 or density * step // 2 < max(count, total - count):
            low, high = max(0, count - density * step), min(total, count + density * step)
            kept.update(range(low // step * step, high + 1, step))
            step *= 2
        if len(kept) * state_bytes <= MOST_BYTES:
            break
    return kept


def _to_apply(base: Base, log: Sequence[Edit], kept: Kept) -> tuple[Base, Edit | None, list[Edit]]:
    """The clustering to begin from, the refit that made it, if one did, and the edits in force that are not in it."""
    done, _ = in_force(log)
    base = _before_undone_refits(base, log, done, kept)
    place = _baked(base, done)
    return (base, None, done) if place is None else (base, done[place], done[place + 1 :])


def _with_next_number(state: Replay, log: Sequence[Edit]) -> Replay:
    """No number that was ever given on this clustering is given twice, even if that was undone."""
    made = (number + 1 for edit in log if edit.base == state.base.digest for number in edit.new)
    return replace(state, next_number=max([state.next_number, *made]))


def _first(base: Base, refit: Edit | None) -> Replay:
    return _fresh(base) if refit is None else _after_refit(base, refit)


def _fresh(base: Base) -> Replay:
    return Replay(
        base,
        base.cluster.copy(),
        np.zeros(len(base.ids), bool),
        np.arange(base.count, dtype=np.int32),
        base.count,
    )


def _baked(base: Base, done: Sequence[Edit]) -> int | None:
    """Place of the last edit in force whose result this clustering is; what came before it is in there already."""
    for place in range(len(done) - 1, -1, -1):
        refitted = done[place].refitted
        if refitted is not None and refitted.to == base.digest:
            return place
    return None


def _after_refit(base: Base, edit: Edit) -> Replay:
    refitted = edit.refitted
    assert refitted is not None
    state = _fresh(base)
    state.names = dict(refitted.names)
    state.noise = refitted.noise
    state.pinned = np.isin(base.ids, refitted.pinned)
    state.conflicts = dict(refitted.conflicts)
    state.created = {(edit.base, old): new for old, new in refitted.numbers.items()}
    return state


def _before_undone_refits(base: Base, log: Sequence[Edit], done: Sequence[Edit], kept: Kept) -> Base:
    """The clustering that undone refits were made of, where the result of one is what lies in the run."""
    standing = {edit.n for edit in done}
    for edit in reversed(log):
        if edit.refitted is None or edit.refitted.to != base.digest:
            continue
        earlier = None if edit.n in standing else kept(edit.base)
        if earlier is None:
            break
        base = earlier
    return base
