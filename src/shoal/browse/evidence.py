"""Why these clusters: the numbers looked at, quality, what was skipped, copies, and with labels the metrics."""

from __future__ import annotations

import math
import threading
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from shoal import parquet, records
from shoal.browse.site import OpenedRun
from shoal.browse.snapshot import Snapshot
from shoal.corrections.why import why
from shoal.errors import RequestError

MOST_SKIPPED: Final = 1000
MOST_REASONS: Final = 12
MOST_GROUPS: Final = 500
MEASURES: Final = ("n", "clusters", "classes", "acc", "nmi", "ami", "ari", "purity")

_one_evaluation = threading.Lock()


def evidence(opened: OpenedRun) -> dict[str, Any]:
    """What `/api/evidence` answers."""
    snapshot = opened.view.snapshot()
    stages = snapshot.run_dir.read_state()["stages"]
    skipped, total, reasons = _skipped(snapshot)
    copies, groups = _copies(snapshot)
    return {
        "choose_k": _choose_k(snapshot),
        "sentence": why(snapshot.run_dir, snapshot.corrected, snapshot.log),
        "quality": _quality(snapshot),
        "metrics": _metrics(opened, snapshot),
        "skipped": skipped,
        "skipped_total": total,
        "skipped_reasons": reasons,
        "duplicates": copies,
        "duplicates_total": groups,
        "stages": {
            name: {key: record.get(key) for key in ("state", "seconds", "facts")} for name, record in stages.items()
        },
    }


def _choose_k(snapshot: Snapshot) -> list[dict[str, Any]]:
    path = snapshot.run_dir.choose_k
    if not path.is_file():
        return []
    rows = parquet.in_order(records.read_table(path), "k").to_pylist()
    return [{name: _finite(value) for name, value in row.items()} for row in rows]


def _quality(snapshot: Snapshot) -> dict[str, Any]:
    """Figures of the clusters as they are now; the silhouette only while nothing has changed it."""
    corrected = snapshot.corrected
    known = corrected.silhouette[~np.isnan(corrected.silhouette)]
    return {
        "clusters": corrected.k,
        "images": len(corrected.ids),
        "unsure": int(corrected.unsure.sum()),
        "moved": int(corrected.pinned.sum()),
        "confidence": round(float(corrected.confidence.mean(dtype=np.float64)), 4),
        "confidence_histogram": np.histogram(corrected.confidence, 20, (0, 1))[0].tolist(),
        "silhouette": round(float(known.mean(dtype=np.float64)), 4) if len(known) else None,
        "silhouette_images": len(known),
    }


def _metrics(opened: OpenedRun, snapshot: Snapshot) -> dict[str, Any] | None:
    """The clusters now beside the labels of the source, or None without labels."""
    run_dir = snapshot.run_dir
    if not run_dir.labels.is_file():
        return None
    from shoal.evaluate.evaluate import evaluate  # noqa: PLC0415  (scikit-learn; only where there are labels)

    digest = snapshot.corrected.digest
    with _one_evaluation:
        if digest not in opened.evaluations:
            try:
                found = evaluate(run_dir).to_json()
            except RequestError:  # labels of other images only
                return None
            opened.evaluations.clear()
            opened.evaluations[digest] = {name: found[name] for name in MEASURES} | {"table": found["table"]}
        return opened.evaluations[digest]


def _skipped(snapshot: Snapshot) -> tuple[list[dict[str, Any]], int, list[dict[str, Any]]]:
    """Files that are in no cluster, those with the rarest reasons first; how many there are; the commonest reasons."""
    table = snapshot.images.table.select(["id", "path", "status", "reason"])
    lost = table.filter(pc.is_in(table["status"], value_set=pa.array([records.SKIPPED, records.VANISHED])))
    lost = lost.set_column(3, "reason", pc.coalesce(lost["reason"], lost["status"]))
    reasons = sorted(lost["reason"].value_counts().to_pylist(), key=lambda pair: (-pair["counts"], pair["values"]))
    commonness = pc.index_in(lost["reason"], value_set=pa.array([pair["values"] for pair in reasons], pa.string()))
    rarest = parquet.in_order(lost.append_column("commonness", commonness), "commonness", "id", last_first=True)
    told = [{"reason": pair["values"], "count": pair["counts"]} for pair in reasons[:MOST_REASONS]]
    return rarest.select(table.column_names).slice(0, MOST_SKIPPED).to_pylist(), lost.num_rows, told


def _copies(snapshot: Snapshot) -> tuple[list[list[int]], int]:
    """Groups of equal files, the original first, largest groups first; and how many groups there are."""
    corrected = snapshot.corrected
    copies = np.flatnonzero(corrected.original != np.arange(len(corrected.ids)))
    copies = copies[np.argsort(corrected.original[copies], kind="stable")]
    originals, starts, counts = np.unique(corrected.original[copies], return_index=True, return_counts=True)
    largest = np.lexsort((originals, -counts))[:MOST_GROUPS]
    groups = [
        corrected.ids[[original, *copies[start : start + count]]].tolist()
        for original, start, count in zip(originals[largest], starts[largest], counts[largest], strict=True)
    ]
    return groups, len(originals)


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value
