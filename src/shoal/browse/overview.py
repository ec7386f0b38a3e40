"""The run at a glance: its facts, and its clusters as the page's cards show them."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Final

import numpy as np

from shoal import records
from shoal.browse import answers
from shoal.browse.guesses import Guessed
from shoal.browse.labels import Labels
from shoal.browse.site import OpenedRun, Site
from shoal.browse.snapshot import CHOSEN, COARSE, FINE, Snapshot
from shoal.cluster.model_file import ClusterFacts
from shoal.corrections.log import in_force
from shoal.corrections.why import why
from shoal.encoder.spec import ModelConfig
from shoal.find import why_not
from shoal.publication import read_whole
from shoal.runfiles import NO_BACKBONE, TEXT_TOWER, Folder

PICTURED: Final = 48  # clusters whose prototypes come with the list: as many cards as the page makes at first
SETTINGS = ("clusters", "backbone", "features", "method", "metric", "seed", "resize", "limit")


def run_facts(site: Site) -> dict[str, Any]:
    """What `/api/run` answers."""
    if site.run is None:
        return _model_facts(site)
    view = site.run.view
    snapshot = view.snapshot()
    run_dir, counts = snapshot.run_dir, snapshot.images.counts
    state = run_dir.read_state()
    stages = state["stages"]
    asked = state.get("asked", {})
    corrected = snapshot.corrected
    done, undone = in_force(snapshot.log)
    return {
        "name": state.get("source", {}).get("name") or run_dir.root.absolute().name,
        "kind": "run",
        "images": len(corrected.ids),
        "clusters": corrected.k,
        "unsure": int(corrected.unsure.sum()),
        "skipped": counts.get(records.SKIPPED, 0) + counts.get(records.VANISHED, 0),
        "duplicates": counts.get(records.DUPLICATE, 0),
        "has_labels": run_dir.labels.is_file(),
        "map": site.run.maps.digest(snapshot),
        "sentence": why(run_dir, corrected, snapshot.log),
        "created": _when(run_dir.clusters.stat().st_mtime),
        "backbone": stages["embed"].get("facts", {}).get("backbone", ""),
        "method": stages["cluster"].get("facts", {}).get("method", ""),
        "levels": snapshot.levels,
        "version": corrected.version,
        "base": corrected.base,
        "edited": corrected.is_changed,
        "can_undo": bool(done),
        "can_redo": bool(undone),
        "conflicts": len(corrected.conflicts),
        "settings": {name: asked.get(name) for name in SETTINGS},
        "why_no_words": why_not(run_dir),
        "is_free_text": (run_dir.model / TEXT_TOWER).is_file(),
    }


def cluster_list(opened: OpenedRun, snapshot: Snapshot, level: str) -> bytes:
    """What `/api/clusters` answers: the clusters of a level, largest first; written once for as long as they stay."""
    labels = opened.labels.read(snapshot)
    guesses, is_all = opened.guesses.known(snapshot, level)
    key = level, labels, is_all
    with opened.listing:
        written = opened.cluster_lists.setdefault(snapshot, {})
        if key not in written:
            answer = answers.Clusters(
                version=snapshot.corrected.version,
                base=snapshot.corrected.base,
                guesses_follow=not is_all,
                clusters=_cards(opened, snapshot, level, labels, guesses),
            )
            written[key] = answer.model_dump_json().encode()
        return written[key]


def warm_up(opened: OpenedRun) -> None:
    """Read what the first page will ask for, while its browser starts."""
    cluster_list(opened, opened.view.snapshot(), CHOSEN)


def guess_list(opened: OpenedRun, snapshot: Snapshot, level: str) -> dict[str, Any]:
    """What `/api/guesses` answers."""
    corrected = snapshot.corrected
    found = opened.guesses.found(snapshot, level)
    told = [{"id": number, "guess": guess} for number, guess in found.items()]
    return {"version": corrected.version, "base": corrected.base, "guesses": told}


def prototype_list(opened: OpenedRun, snapshot: Snapshot, level: str, numbers: list[int]) -> dict[str, Any]:
    """What `/api/prototypes` answers; clusters that are not there any more are left out."""
    grouped = snapshot.level(level)
    rows = {number: found for number in numbers if len(found := grouped.rows(number))}
    shown = opened.prototypes.of(snapshot, list(rows.values()))
    told = [{"id": number, "prototypes": few} for number, few in zip(rows, shown, strict=True)]
    return {"version": snapshot.corrected.version, "base": snapshot.corrected.base, "clusters": told}


def _cards(
    opened: OpenedRun, snapshot: Snapshot, level: str, labels: Labels, guesses: Guessed
) -> list[answers.Cluster]:
    corrected, grouped = snapshot.corrected, snapshot.level(level)
    if not len(grouped.numbers):
        return []
    starts, order = grouped.starts[:-1], grouped.order
    sizes = np.diff(grouped.starts)
    unsure = np.add.reduceat(corrected.unsure[order], starts, dtype=np.int64)
    confidence = np.round(np.add.reduceat(corrected.confidence[order], starts, dtype=np.float64) / sizes, 4)
    silhouette = np.round(np.add.reduceat(corrected.silhouette[order], starts, dtype=np.float64) / sizes, 4)
    is_noise = grouped.numbers == corrected.noise if level == CHOSEN else np.zeros(len(sizes), bool)
    of = corrected.cluster[order[starts]]  # of its first image: at level fine, of all
    children = _children(snapshot) if level == COARSE else {}
    rank = np.lexsort((grouped.numbers, -sizes, is_noise)).tolist()
    rows = [order[grouped.starts[place] : grouped.starts[place + 1]] for place in rank[:PICTURED]]
    shown = opened.prototypes.of(snapshot, rows)
    found = []
    for seen, place in enumerate(rank):
        number = int(grouped.numbers[place])
        found.append(
            answers.Cluster(
                id=number,
                name=corrected.names.get(number) if level == CHOSEN else None,
                guess=guesses.get(number),
                size=int(sizes[place]),
                unsure=int(unsure[place]),
                confidence=float(confidence[place]),
                silhouette=None if np.isnan(silhouette[place]) else float(silhouette[place]),
                prototypes=shown[seen] if seen < len(shown) else None,
                majority=labels.majority(order[grouped.starts[place] : grouped.starts[place + 1]]),
                noise=bool(is_noise[place]),
                edited=level == CHOSEN and (number in corrected.changed or number in corrected.names),
                parent=int(of[place]) if level == FINE else None,
                children=children.get(number, []),
            )
        )
    return found


def _children(snapshot: Snapshot) -> dict[int, list[int]]:
    """The chosen clusters in each group of the coarse level; each is in one."""
    chosen, groups = snapshot.chosen, snapshot.level(COARSE).cluster
    found: dict[int, list[int]] = {}
    for number, group in zip(chosen.numbers.tolist(), groups[chosen.order[chosen.starts[:-1]]].tolist(), strict=True):
        found.setdefault(group, []).append(number)
    return found


def _model_facts(site: Site) -> dict[str, Any]:
    def read(files: Folder) -> tuple[ModelConfig, ClusterFacts, float]:
        clusters = files / "clusters.json"
        return ModelConfig.read(files / "config.json"), ClusterFacts.read(clusters), clusters.stat().st_mtime

    config, clusters, created = read_whole(site.folder, read)
    return {
        "name": config.name or site.folder.absolute().name,
        "kind": "model",
        "clusters": clusters.clusters,
        "backbone": NO_BACKBONE if config.encoder is None else config.encoder.backbone,
        "created": _when(created),
    }


def _when(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")
