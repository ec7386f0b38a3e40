"""The run at a glance: its facts, and its clusters as the page's cards show them."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import numpy as np

from shoal import records
from shoal.browse import answers
from shoal.browse.labels import Labels
from shoal.browse.site import OpenedRun, Site
from shoal.browse.snapshot import CHOSEN, COARSE, FINE, Rows, Snapshot
from shoal.cluster.model import ClusterFacts
from shoal.corrections.log import in_force
from shoal.corrections.shown import guesses_for, read_guesses
from shoal.encoder.spec import ModelConfig
from shoal.find import why_not
from shoal.names.guesses import ClusterGuess
from shoal.publication import read_whole
from shoal.runfiles import NO_BACKBONE, TEXT_TOWER, Folder

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
        "clusters": len(corrected.numbers),
        "unsure": int(corrected.unsure.sum()),
        "skipped": counts.get(records.SKIPPED, 0) + counts.get(records.VANISHED, 0),
        "duplicates": counts.get(records.DUPLICATE, 0),
        "has_labels": run_dir.labels.is_file(),
        "has_map": run_dir.map.is_file(),
        "sentence": stages["cluster"].get("facts", {}).get("sentence", ""),
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
    written = opened.cluster_lists.setdefault(snapshot, {})
    if (level, labels) not in written:
        corrected, cards = snapshot.corrected, _cards(opened, snapshot, level, labels)
        answer = answers.Clusters(version=corrected.version, base=corrected.base, clusters=cards)
        written[level, labels] = answer.model_dump_json().encode()
    return written[level, labels]


def _cards(opened: OpenedRun, snapshot: Snapshot, level: str, labels: Labels) -> list[answers.Cluster]:
    grouped = snapshot.level(level)
    numbers = grouped.numbers.tolist()
    members = [grouped.rows(number) for number in numbers]
    shown = opened.prototypes.of(snapshot, members)
    guesses = _guesses(snapshot, level)
    found = [
        _card(snapshot, level, number, rows, prototypes, labels, guesses.get(number))
        for number, rows, prototypes in zip(numbers, members, shown, strict=True)
    ]
    return sorted(found, key=lambda card: (card.noise, -card.size, card.id))


def _guesses(snapshot: Snapshot, level: str) -> dict[int, answers.Guess]:
    """What the clusters of a level may show, whoever named them; nothing of the noise."""
    corrected = snapshot.corrected
    if level == CHOSEN:
        read = read_guesses(snapshot.run_dir, corrected)
        found = () if read is None else read.medium
    else:
        found = guesses_for(snapshot.run_dir, corrected, snapshot.level(level).cluster)
    told = {one.cluster: one for one in found if level != CHOSEN or one.cluster != corrected.noise}
    return {number: guess for number, one in told.items() if (guess := guess_of(one)) is not None}


def guess_of(found: ClusterGuess) -> answers.Guess | None:
    """A guess as the page takes it; None where nothing can be said."""
    if found.name is None:
        return None
    others = [answers.OtherGuess(name=other.word, strength=other.strength) for other in found.others]
    return answers.Guess(name=found.name, strength=found.strength, others=others)


def _card(
    snapshot: Snapshot,
    level: str,
    number: int,
    rows: Rows,
    prototypes: list[int],
    labels: Labels,
    guess: answers.Guess | None,
) -> answers.Cluster:
    corrected = snapshot.corrected
    silhouettes = corrected.silhouette[rows]
    parents = np.unique(corrected.cluster[rows]).tolist()
    return answers.Cluster(
        id=number,
        name=corrected.names.get(number) if level == CHOSEN else None,
        guess=guess,
        size=len(rows),
        unsure=int(corrected.unsure[rows].sum()),
        confidence=round(float(corrected.confidence[rows].mean(dtype=np.float64)), 4),
        silhouette=None if np.isnan(silhouettes).any() else round(float(silhouettes.mean(dtype=np.float64)), 4),
        prototypes=prototypes,
        majority=labels.majority(rows),
        noise=level == CHOSEN and corrected.noise == number,
        edited=level == CHOSEN and (number in corrected.changed or number in corrected.names),
        parent=parents[0] if level == FINE else None,
        children=parents if level == COARSE else [],
    )


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
