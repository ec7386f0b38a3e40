"""The evaluation that a run keeps beside its report: JSON, checked, for the page and the model card."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from shoal import foreign
from shoal.config import MOST_NUMBERS
from shoal.errors import RunError
from shoal.typed import Between, Most

Count = Annotated[int, Between(0)]
Share = Annotated[float, Between(0, 1)]
Signed = Annotated[float, Between(-1, 1)]
Cluster = Annotated[int, Between(0, MOST_NUMBERS - 1)]
Label = Annotated[str, Most(1 << 16)]


@dataclass(frozen=True, slots=True)
class _Sure:
    n: Count
    share: Share
    acc: Share | None


@dataclass(frozen=True, slots=True)
class _Row:
    cluster: Cluster
    size: Count
    majority: Label
    accuracy: Share


@dataclass(frozen=True, slots=True)
class _Confusion:
    clusters: tuple[Cluster, ...]
    classes: tuple[Label, ...]
    counts: tuple[tuple[Count, ...], ...]


@dataclass(frozen=True, slots=True)
class _Evaluation:
    n: Count
    clusters: Count
    classes: Count
    acc: Share
    nmi: Share
    ami: Signed
    ari: Signed
    purity: Share
    table: tuple[_Row, ...]
    confusion: _Confusion
    labels: Label
    clusters_digest: Label
    sure: _Sure | None = None
    neighbour_purity: dict[Annotated[int, Between(1)], Share] | None = None


def read_evaluation(path: Path) -> dict[str, Any] | None:
    """What `shoal evaluate` wrote at `path`; None if there is nothing. Raises RunError if it is not readable."""
    try:
        found: dict[str, Any] = foreign.parse_json(foreign.read_bytes(path), path)
    except FileNotFoundError:
        return None
    with foreign.telling_of(path):
        read = foreign.READER.read(_Evaluation, found)
    rows = read.confusion.counts
    if len(rows) != len(read.confusion.clusters) or any(len(row) != len(read.confusion.classes) for row in rows):
        raise RunError(f"{path}: confusion.counts is no table of its clusters by its classes")
    return found
