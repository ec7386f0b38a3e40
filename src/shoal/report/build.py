"""The report stage: report/index.html, its figures as PNG, and report/summary.json."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from shoal import atomic
from shoal.config import ClusterConfig
from shoal.pictures.pictures import Pictures
from shoal.progress import Progress
from shoal.report import figures, page, payload, sheets, thumbnails, training
from shoal.report.explorer import Explorer, Look
from shoal.report.findings import Findings
from shoal.report.palette import COLOURS, colours_by_number
from shoal.report.selection import Selection, select
from shoal.report.thumbnails import Taken
from shoal.rundir import RunDir, StageResult, digest_file, digest_of


def run(config: ClusterConfig, run_dir: RunDir, progress: Progress) -> StageResult:
    """Write the report of a finished run. The source is read only for pictures that the run does not keep."""
    findings = Findings.read(run_dir)
    selection = select(findings)
    side = page.shown_side(len(selection.pictured))
    with ThreadPoolExecutor(1) as background:  # pictures are decoded, and laid out on sheets, beside the drawing
        waiting = background.submit(
            thumbnails.take,
            Pictures(run_dir),
            findings.image,
            selection.large(),
            selection.on_map.tolist(),
            side,
            progress,
        )
        explorer = Explorer.of(findings)
        looked = payload.ExplorerData(explorer)
        chosen = _collect(explorer, looked)
        drawn = _figures(findings, chosen, explorer)
        taken = waiting.result()
        on_sheets = background.submit(_sheets, findings, selection, taken)
        data = {
            "colours": findings.colours,
            "palette": COLOURS,
            "map": payload.map_data(findings, selection, taken),
            "explorer": looked.to_json(),
        }
        html = page.render(findings, selection, taken, data, drawn)
        drawn |= on_sheets.result()
    _write(run_dir, html, drawn, summary(findings, selection))
    facts = {"bytes": len(html), "pictures": len(taken.pictures), "missing_pictures": len(taken.missing)}
    return StageResult(digest_file(run_dir.report / "index.html"), facts)


def figures_for_k(run_dir: RunDir, ks: Iterable[int] | None = None) -> list[Path]:
    """Write report/silhouette-k<K>.png for each K in `ks` that was looked at (None: for all) and return their paths."""
    findings = Findings.read(run_dir)
    explorer = Explorer.of(findings)
    written = []
    with figures.style():
        for look in explorer.looks(None if ks is None else list(ks)):
            name = f"report/silhouette-k{look.k:05d}.png"
            path = run_dir.new(name)
            atomic.write_bytes(path, figures.knife(look, explorer.features, _colours(findings, look), _note(explorer)))
            written.append(run_dir.shown(name))
    return written


def run_figures(config: ClusterConfig, run_dir: RunDir, progress: Progress) -> StageResult:
    """The figures stage: report/silhouette-k<K>.png for every K that was looked at."""
    written = figures_for_k(run_dir)
    return StageResult(digest_of([path.name for path in written]), {"pictures": len(written)})


def summary(findings: Findings, selection: Selection) -> dict[str, Any]:
    """What report/summary.json holds: JSON values, clusters largest first."""
    evaluation = findings.evaluation
    measures = ("n", "acc", "nmi", "ami", "ari", "purity")
    return {
        "k": findings.count,
        "sentence": findings.sentence,
        "images": len(findings.ids),
        "unsure": int(findings.unsure.sum()),
        "by_status": dict(sorted(findings.counts.items())),
        "left_out": findings.left_out,
        "neighbour_recall": findings.recall,
        "mean_silhouette": round(float(findings.silhouette.mean(dtype=np.float64)), 6),
        "evaluation": {name: evaluation[name] for name in measures} if evaluation else None,
        "clusters": [
            {
                "cluster": shown.cluster,
                **_called(findings, shown.cluster),
                "size": shown.size,
                "copies": shown.copies,
                "confidence": round(shown.confidence, 6),
                "silhouette": round(shown.silhouette, 6),
                "unsure": shown.unsure,
                "prototypes": [findings.path(number) for number in shown.prototypes],
                "least_sure": [findings.path(number) for number in shown.doubtful],
            }
            for shown in selection.clusters
        ],
    }


def _called(findings: Findings, cluster: int) -> dict[str, Any]:
    """A cluster's name and, where it is a guess, how strong it is."""
    shown = findings.shown.get(cluster)
    return {"name": shown and shown.name, "name_strength": shown and shown.strength}


def _collect(explorer: Explorer, looked: payload.ExplorerData) -> Look:
    """Pass every look to the page's data; return the one at the chosen K."""
    chosen = None
    for look in explorer.looks():
        looked.add(look)
        if look.k == explorer.findings.k:
            chosen = look
    assert chosen is not None  # Explorer.of puts it among the labellings
    return chosen


def _figures(findings: Findings, chosen: Look, explorer: Explorer) -> dict[str, bytes]:
    with figures.style():
        drawn = {
            "silhouette": figures.knife(chosen, explorer.features, findings.colours, _note(explorer)),
            "map": figures.map_of(findings.places, findings.cluster, findings.colours, findings.unsure),
            "sizes": figures.sizes(findings.sizes, findings.by_size, findings.colours),
        }
        if len(findings.evidence) > 1:
            drawn["choose-k"] = figures.evidence(findings.evidence, findings.chosen_k)
        if findings.evaluation:
            found = findings.evaluation["confusion"]
            drawn["confusion"] = figures.confusion(np.array(found["counts"]), found["clusters"], found["classes"])
        drawn |= training.draw(findings.run_dir)
    return drawn


def _sheets(findings: Findings, selection: Selection, taken: Taken) -> dict[str, bytes]:
    drawn = {"prototypes": sheets.prototypes_sheet(selection.clusters, taken.pictures, findings.title)}
    if selection.anchors:
        drawn["neighbours"] = sheets.anchors_sheet(selection.anchors, taken.pictures, findings.cluster_of)
    return drawn


def _colours(findings: Findings, look: Look) -> list[str]:
    return findings.colours if look.k == findings.k else colours_by_number(look.k)


def _note(explorer: Explorer) -> str:
    return "" if explorer.is_exact else f"silhouettes among {len(explorer.positions):,} images drawn at random"


def _write(run_dir: RunDir, html: str, drawn: dict[str, bytes], summed: dict[str, Any]) -> None:
    """The page comes last: where there is one, everything beside it is of the same run."""
    write: Callable[[Path, bytes], None] = atomic.write_bytes
    for name, png in drawn.items():
        write(run_dir.new(f"report/{name}.png"), png)
    atomic.write_json(run_dir.new("report/summary.json"), summed)
    write(run_dir.new("report/index.html"), html.encode())
