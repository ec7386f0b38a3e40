"""The report's page: one HTML file that needs nothing else, from the templates beside this file."""

from __future__ import annotations

import base64
import hashlib
import json
from dataclasses import dataclass
from importlib import resources
from pathlib import PurePosixPath
from typing import Any, Final

import jinja2
import pyarrow as pa
import pyarrow.compute as pc
from markupsafe import Markup

from shoal import records
from shoal.report import charts, training
from shoal.report.findings import Findings
from shoal.report.selection import Selection
from shoal.report.thumbnails import Taken

SCRIPTS: Final = ("page.js", "map.js", "explorer.js")
NO_REASON: Final = "no reason given"
MOST_PATHS: Final = 400  # file names listed for one reason; all are in images.parquet
MOST_CELLS: Final = 3600  # of a confusion matrix shown as a table
COMPACT_FROM: Final = 41  # clusters from which each takes half the width


@dataclass(frozen=True, slots=True)
class Reason:
    """Why some files are not in any cluster."""

    words: str
    count: int
    paths: list[str]


def render(
    findings: Findings,
    selection: Selection,
    taken: Taken,
    data: dict[str, Any],
    figures: dict[str, bytes],
) -> str:
    """The whole page.

    Args:
        data: what the scripts draw from, JSON values.
        figures: PNG by name; `map` and `silhouette` stand in where scripts do not run.
    """
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("shoal.report"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters.update(number=_number, percent=_percent, filename=_filename, fixed=_fixed)
    script = "\n".join(_template_text(name) for name in SCRIPTS)
    spread = _silhouette_range(findings)
    page: str = environment.get_template("page.html.j2").render(
        findings=findings,
        selection=selection,
        pictures=taken.pictures,
        missing=taken.missing,
        missing_sentence=taken.sentence,
        has_map_pictures=bool(data["map"]["pictured"]),
        cluster_of=findings.cluster_of,
        details=_Details(findings),
        is_compact=len(selection.clusters) >= COMPACT_FROM,
        evidence=charts.evidence(findings.evidence, findings.chosen_k),
        blade=lambda cluster: charts.blade(findings.silhouette[findings.members(cluster)], *spread),
        mean_silhouette=spread[2],
        compared_silhouette=findings.compared_silhouette,
        largest=max(shown.size for shown in selection.clusters),
        skipped=_reasons(findings, records.SKIPPED),
        vanished=_reasons(findings, records.VANISHED),
        evaluation=findings.evaluation,
        neighbour_purity=_neighbour_purity(findings.evaluation),
        majority=_majority(findings.evaluation),
        confusion=_confusion(findings.evaluation),
        has_large_confusion="confusion" in figures,
        training={name: title for name, title in training.TITLES.items() if name in figures},
        figures={name: "data:image/png;base64," + base64.b64encode(png).decode() for name, png in figures.items()},
        style=Markup(_template_text("page.css")),  # ours, not the person's: no escaping
        script=Markup(script),
        # The browser runs this script and no other, whatever a file is called, and fetches nothing.
        policy=f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{_sha256(script)}'",
        data=Markup(_json_for_html(data)),
    )
    return page


class _Details:
    """One line about an image, for those who point at it."""

    def __init__(self, findings: Findings) -> None:
        self._findings = findings

    def __call__(self, number: int) -> str:
        findings, position = self._findings, self._findings.position(number)
        words = [
            findings.path(number),
            f"confidence {findings.confidence[position]:.2f}",
            f"silhouette {findings.silhouette[position]:.2f}",
        ]
        if findings.runner_up[position] >= 0:
            words.append(f"runner-up: cluster {findings.runner_up[position]}")
        if findings.unsure[position]:
            words.append("unsure")
        return "\n".join(words)

    def runner_up(self, number: int) -> int | None:
        found = int(self._findings.runner_up[self._findings.position(number)])
        return found if found >= 0 else None

    def confidence(self, number: int) -> float:
        return float(self._findings.confidence[self._findings.position(number)])


def _reasons(findings: Findings, status: str) -> list[Reason]:
    """Files of one status by reason, the commonest first."""
    images = findings.images.filter(pc.equal(findings.images["status"], status))
    words = pc.fill_null(images["reason"], NO_REASON)
    words = pc.if_else(pc.equal(words, ""), NO_REASON, words)
    counts = {pair["values"]: pair["counts"] for pair in words.value_counts().to_pylist()}
    ordered = sorted(counts, key=lambda reason: (-counts[reason], reason))
    return [Reason(reason, counts[reason], _first_paths(images, words, reason)) for reason in ordered]


def _first_paths(images: pa.Table, words: pa.ChunkedArray, reason: str) -> list[str]:
    paths: list[str] = images["path"].filter(pc.equal(words, reason)).slice(0, MOST_PATHS).to_pylist()
    return paths


def _majority(evaluation: dict[str, Any] | None) -> dict[int, dict[str, Any]]:
    """Rows of the evaluation's table by cluster."""
    return {int(row["cluster"]): row for row in evaluation["table"]} if evaluation else {}


def _neighbour_purity(evaluation: dict[str, Any] | None) -> list[tuple[int, float]]:
    """Share of neighbours with the same label, by how many were looked at; JSON has the numbers as text."""
    return sorted((int(k), value) for k, value in evaluation["neighbour_purity"].items()) if evaluation else []


def _confusion(evaluation: dict[str, Any] | None) -> dict[str, Any] | None:
    """The confusion matrix with its shares, or None if there is none or it is too large for a table."""
    if evaluation is None:
        return None
    found = evaluation["confusion"]
    if len(found["clusters"]) * len(found["classes"]) > MOST_CELLS:
        return None
    rows = [
        (cluster, [(count, count / max(sum(counts), 1)) for count in counts])
        for cluster, counts in zip(found["clusters"], found["counts"], strict=True)
    ]
    return {"classes": found["classes"], "rows": rows}


def _silhouette_range(findings: Findings) -> tuple[float, float, float]:
    """Least and largest silhouette that the small knives show, and the mean of all."""
    values = findings.silhouette
    return min(float(values.min()), 0.0), max(float(values.max()), 0.05), float(values.mean(dtype="float64"))


def _template_text(name: str) -> str:
    return resources.files("shoal.report").joinpath("templates", name).read_text(encoding="utf-8")


def _json_for_html(data: dict[str, Any]) -> str:
    """JSON that cannot end the element it stands in."""
    return json.dumps(data, ensure_ascii=True, separators=(",", ":")).replace("<", "\\u003c").replace(">", "\\u003e")


def _sha256(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _number(value: float) -> str:
    return f"{value:,}"


def _percent(value: float) -> str:
    share = 100 * value
    return f"{share:.0f}\u00a0%" if share >= 10 or share == 0 else f"{share:.1f}\u00a0%"


def _fixed(value: float | None, digits: int = 2) -> str:
    return "–" if value is None else f"{value:.{digits}f}".replace("-", "−")


def _filename(path: str) -> str:
    return PurePosixPath(path).name or path


def shown_side(clusters: int) -> int:
    """Pixels of a picture in the rows: fewer the more clusters there are, so that the page stays small."""
    sides = ((24, 176), (48, 144), (120, 112))
    return next((side for most, side in sides if clusters <= most), 80)
