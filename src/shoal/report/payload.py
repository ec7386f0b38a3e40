"""What the page's scripts draw from: compact arrays as base64 in one JSON object."""

from __future__ import annotations

import base64
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from shoal.report.explorer import Explorer, Look, drawn
from shoal.report.findings import Findings
from shoal.report.selection import Selection
from shoal.report.thumbnails import TILE, Taken, sheet

MOST_DOTS: Final = 60_000
MISSING: Final = 65535  # of a 16-bit coordinate


def map_data(findings: Findings, selection: Selection, taken: Taken) -> dict[str, Any]:
    """Dots of the map, and one sheet with the tiles of those that have a picture."""
    pictured = [number for number in selection.on_map.tolist() if number in taken.pictures]
    named = pictured + [number for number in selection.on_map.tolist() if number in taken.missing]
    dots = _dots(findings, np.searchsorted(findings.ids, named))
    tiles = [tile for number in pictured if (tile := taken.pictures[number].tile) is not None]
    jpeg, columns = sheet(tiles)
    centres = np.full((findings.k, 2), np.nan, np.float32)
    for cluster in findings.by_size:
        centres[cluster] = np.median(findings.places[findings.members(cluster)], axis=0)
    low, spans = findings.places.min(axis=0), np.maximum(np.ptp(findings.places, axis=0), 1e-6)
    return {
        "n": len(dots),
        "aspect": round(float(spans[0] / spans[1]), 4),
        "x": _base64(_quantised(findings.places[dots, 0], low[0], spans[0])),
        "y": _base64(_quantised(findings.places[dots, 1], low[1], spans[1])),
        "cluster": _base64(findings.cluster[dots].astype("<u2")),
        "unsure": _base64(findings.unsure[dots].astype("u1")),
        "centres": _base64(_quantised(centres, low, spans)),
        "pictured": len(pictured),  # the first of the dots
        "named": len(named),  # the first of the dots too: after those with a picture, those whose picture is missing
        "names": [findings.path(number) for number in named],
        "confidence": _base64(np.rint(findings.confidence[dots[: len(named)]] * 100).astype("u1")),
        "tile": TILE,
        "columns": columns,
        "sheet": "data:image/jpeg;base64," + base64.b64encode(jpeg).decode(),
    }


class ExplorerData:
    """Collects the looks one by one, since a look over all images is too large to keep."""

    def __init__(self, explorer: Explorer) -> None:
        self._drawn = drawn(explorer)
        features = explorer.features
        self._low, self._spans = features.min(axis=0), np.maximum(np.ptp(features, axis=0), 1e-12)
        self._stability = {row["k"]: row.get("stability") for row in explorer.findings.evidence}
        self._looks: list[dict[str, Any]] = []
        shown = features[self._drawn]
        self._head = {
            "n": len(self._drawn),
            "of": len(explorer.positions),
            "exact": explorer.is_exact,
            "chosen": explorer.findings.k,
            "x": _base64(_quantised(shown[:, 0], self._low[0], self._spans[0])),
            "y": _base64(_quantised(shown[:, 1], self._low[1], self._spans[1])),
        }

    def add(self, look: Look) -> None:
        narrow = "u1" if look.k <= 256 else "<u2"
        self._looks.append(
            {
                "k": look.k,
                "mean": round(look.mean, 4),
                "stability": self._stability.get(look.k),
                "labels": _base64(look.labels[self._drawn].astype(narrow)),
                "silhouettes": _base64(np.rint(look.silhouettes[self._drawn] * 127).astype("i1")),
                "centres": _base64(_quantised(look.centres, self._low, self._spans)),
                "smallest": int(np.bincount(look.labels, minlength=look.k).min()),
            }
        )

    def to_json(self) -> dict[str, Any]:
        return {**self._head, "looks": self._looks}


def _dots(findings: Findings, named: npt.NDArray[np.intp]) -> npt.NDArray[np.intp]:
    """Positions of the dots drawn: those with a name first, then the others, evenly thinned if they are too many."""
    others = np.setdiff1d(np.arange(len(findings.ids)), named)
    most = MOST_DOTS - len(named)
    if len(others) > most:
        others = others[np.linspace(0, len(others) - 1, most).astype(np.intp)]
    return np.concatenate([named, others]).astype(np.intp)


def _quantised(values: npt.NDArray[Any], low: Any, span: Any) -> npt.NDArray[np.uint16]:
    scaled = np.clip((values - low) / span, 0, 1) * (MISSING - 1)
    return np.where(np.isnan(scaled), MISSING, np.nan_to_num(scaled)).round().astype("<u2")


def _base64(values: npt.NDArray[Any]) -> str:
    return base64.b64encode(np.ascontiguousarray(values).tobytes()).decode()
