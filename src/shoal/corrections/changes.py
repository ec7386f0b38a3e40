"""What a person asks for, checked against the clusters as they are, and made into an edit."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from shoal.corrections.base import Int64
from shoal.corrections.corrected import Corrected
from shoal.corrections.edit import (
    LONGEST_NAME,
    MERGE,
    MOVE,
    NOISE,
    REDO,
    REFIT,
    RENAME,
    SPLIT,
    UNDO,
    Edit,
    Reference,
    now,
)
from shoal.corrections.log import in_force
from shoal.errors import RequestError


class StaleError(RequestError):
    """Somebody else changed the same thing since; nothing was written."""


def rename(corrected: Corrected, cluster: int, name: str | None) -> Edit:
    """Give a cluster a name; None or blanks take it away. Raises RequestError if it is too long."""
    wanted = _checked_name(name)
    return _edit(corrected, RENAME, clusters=(_reference(corrected, cluster),), name=wanted)


def merge(corrected: Corrected, clusters: Sequence[int]) -> Edit:
    """Put several clusters into the first of them."""
    distinct = list(dict.fromkeys(clusters))
    if len(distinct) < 2:
        raise RequestError(f"clusters has value {list(clusters)}; expected at least two different ones to merge")
    return _edit(corrected, MERGE, clusters=tuple(_reference(corrected, cluster) for cluster in distinct))


def split(corrected: Corrected, cluster: int, parts: Sequence[Int64]) -> Edit:
    """Part a cluster; `parts` are the ids of each part, together all of the cluster's."""
    reference = _reference(corrected, cluster)
    filled = [np.unique(part) for part in parts if len(part)]
    together = np.sort(np.concatenate([np.empty(0, np.int64), *filled]))
    if len(filled) < 2 or not np.array_equal(together, corrected.members(cluster)):
        raise StaleError(f"cluster {cluster} has other images now than when the split was previewed; preview it again")
    new = tuple(range(corrected.next_number, corrected.next_number + len(filled) - 1))
    return _edit(corrected, SPLIT, clusters=(reference,), parts=tuple(filled), new=new)


def move(corrected: Corrected, ids: Sequence[int], cluster: int | None, name: str | None = None) -> Edit:
    """Put images into a cluster; None makes a new one, with a name if given."""
    wanted = _checked_ids(corrected, ids)
    if cluster is None:
        new = (corrected.next_number,)
        return _edit(corrected, MOVE, ids=wanted, new=new, name=_checked_name(name))
    return _edit(corrected, MOVE, ids=wanted, clusters=(_reference(corrected, cluster),))


def mark_noise(corrected: Corrected, ids: Sequence[int]) -> Edit:
    """Put images among the noise: a cluster of its own, for what belongs nowhere."""
    new = (corrected.next_number,) if corrected.noise is None else ()
    return _edit(corrected, NOISE, ids=_checked_ids(corrected, ids), new=new)


def undo(corrected: Corrected, log: Sequence[Edit]) -> Edit:
    """Take back the last edit in force."""
    done, _ = in_force(log)
    if not done:
        raise RequestError("there is nothing to undo")
    return _edit(corrected, UNDO, of=done[-1].n)


def redo(corrected: Corrected, log: Sequence[Edit]) -> Edit:
    """Take back the last undo."""
    _, undone = in_force(log)
    if not undone:
        raise RequestError("there is nothing to redo")
    return _edit(corrected, REDO, of=undone[-1].n)


def check_still_true(edit: Edit, seen: Corrected, current: Corrected, since: Sequence[Edit]) -> None:
    """Raise StaleError if what `edit` is about changed between what its window saw and now.

    Edits of other things go together; the same thing changed twice does not, and neither do undo and redo, which mean
    the last edit that the window saw.
    """
    if not since:
        return
    if edit.op in (UNDO, REDO, REFIT) or any(line.op == REFIT for line in since):
        raise StaleError("another window changed something since; look at it, then try again")
    for reference in edit.clusters:
        number = reference.cluster
        if number not in current.numbers:
            raise StaleError(f"another window did away with cluster {number}")
        if edit.op == RENAME and seen.names.get(number) != current.names.get(number):
            raise StaleError(f"another window renamed cluster {number} to {current.names.get(number)!r}")
        if edit.op in (MERGE, SPLIT) and not np.array_equal(seen.members(number), current.members(number)):
            raise StaleError(f"another window changed the images of cluster {number}")
    rows = current.rows(edit.ids)
    if (seen.cluster[rows] != current.cluster[rows]).any():
        raise StaleError("another window moved some of these images")


def _edit(corrected: Corrected, op: str, **values: object) -> Edit:
    return Edit(n=corrected.version + 1, op=op, base=corrected.base, time=now(), **values)  # type: ignore[arg-type]


def _reference(corrected: Corrected, cluster: int) -> Reference:
    members = corrected.members(cluster)
    if not len(members):
        raise RequestError(f"cluster has value {cluster}; there is no such cluster")
    return Reference.of(cluster, members)


def _checked_ids(corrected: Corrected, ids: Sequence[int]) -> Int64:
    if not len(ids):
        raise RequestError("ids is empty; expected at least one image")
    wanted = np.unique(np.asarray(ids, np.int64))
    try:
        corrected.rows(wanted)
    except KeyError as error:
        raise RequestError(f"ids has value {error.args[0]}; there is no such image among the clusters") from error
    return wanted


def _checked_name(name: str | None) -> str | None:
    text = " ".join((name or "").split())
    if len(text) > LONGEST_NAME:
        raise RequestError(f"name has {len(text)} characters; expected at most {LONGEST_NAME}")
    if any(not character.isprintable() for character in text):
        raise RequestError("name has characters that cannot be shown; expected plain text")
    return text or None
