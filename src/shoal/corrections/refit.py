"""Apply a person's corrections to a run: clusters and model are fitted anew, under the run's lock."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from shoal import draft as drafts
from shoal import records
from shoal.cluster import kmeans, levels, threads
from shoal.cluster.arrays import Labels
from shoal.cluster.levels import Levels
from shoal.cluster.number import silhouette
from shoal.cluster.rows import ImageRows
from shoal.cluster.space import points_of
from shoal.cluster.write import Clusters, write
from shoal.corrections.base import clustering_digest, read_base
from shoal.corrections.changes import StaleError
from shoal.corrections.corrected import NONE, Corrected, corrected_by
from shoal.corrections.edit import REFIT, Edit, Refitted, now
from shoal.corrections.fit import refit as fit_anew
from shoal.corrections.log import Log, appending, read_log
from shoal.corrections.model import CorrectedModel, corrected_model
from shoal.corrections.why import corrected_sentence, corrections, sentence_made_as
from shoal.draft import Draft
from shoal.embeddings import EmbeddingStore, Float32
from shoal.errors import RequestError
from shoal.names import naming
from shoal.progress import Progress
from shoal.rundir import RunDir

STEPS = 4
NAMES = "names"  # the stage that guesses them
EVIDENCE = ("choose_k.parquet", "sweep.parquet")  # a refit leaves it as it is


@dataclass(frozen=True, slots=True, eq=False)
class _Found:
    """The new clusters of the distinct images: numbers from 0, the noise last."""

    distinct: npt.NDArray[np.int64]  # rows of the distinct images
    kept: npt.NDArray[np.intp]  # which of them are no noise
    points: Float32  # of those
    labels: Labels
    confidence: Float32
    unsure: npt.NDArray[np.bool_]
    silhouette: Float32
    runner_up: Labels
    model: CorrectedModel
    numbers: dict[int, int]  # new by old
    noise: int | None

    @property
    def k(self) -> int:
        """How many clusters there are; the noise is none."""
        return len(self.numbers) - (self.noise is not None)

    def names(self, corrected: Corrected) -> dict[int, str]:
        """Names under the new numbers, the noise's too."""
        return {self.numbers[old]: name for old, name in corrected.names.items() if old in self.numbers}


def refit(run_dir: RunDir, version: int, progress: Progress) -> str:
    """Fit the clusters of a run anew with the edits as constraints, and return a line for the person.

    Clusters, levels, the model and a line of edits.jsonl that says what was done, and can be undone, count together
    as a new generation. The report is gone with the clusters that it showed.

    Args:
        version: lines of the log that the person saw; if there are others meanwhile, nothing is done.

    Raises:
        RequestError: there is nothing to apply. StaleError: the log has grown.
        RunLockedError: another process is writing the run.
    """
    with drafts.writing(run_dir.root) as draft, progress.task("Applying corrections", STEPS, "steps") as task:
        run = draft.run_dir
        base, log = read_base(run), read_log(run)
        _require_seen(log, version)
        corrected = corrected_by(run, base, log)
        if np.array_equal(corrected.cluster, corrected.source.cluster):
            raise RequestError("there are no corrections to apply; every image is where the clustering put it")
        if (corrected.cluster == corrected.noise).all():
            raise RequestError("every image is marked as noise; expected some that are not")
        task.advance()
        found = next(threads.each(lambda clusters: _fit(run, clusters), [corrected]))
        task.advance()
        rows = np.searchsorted(found.distinct, corrected.original)
        cluster = found.labels[rows]
        _write(draft, corrected, found, rows, log)
        task.advance()
        edits = Log(run_dir.edits)
        with appending(run_dir, edits) as lines:
            _require_seen(lines, version)
            edit = _edit(corrected, found, clustering_digest(corrected.ids, cluster), lines)
            draft.log_lines, draft.refit_line = edit.n, edit.to_line().decode().rstrip("\n")
            draft.commit()
            edits.write(edit)
        moved = int((cluster != _renumbered(corrected, found.numbers)).sum())
        return f"{found.k:,} clusters; {moved:,} other images changed their cluster"


def _require_seen(log: Sequence[Edit], version: int) -> None:
    if len(log) != version:
        raise StaleError("somebody changed something since; look at it, then apply the corrections again")


def _fit(run_dir: RunDir, corrected: Corrected) -> _Found:
    distinct = np.unique(corrected.original)
    ids, labels, pinned = corrected.ids[distinct], corrected.cluster[distinct], corrected.pinned[distinct]
    kept = np.flatnonzero(labels != (NONE if corrected.noise is None else corrected.noise))
    model = corrected_model(run_dir, corrected)
    space = model.model.space
    store = EmbeddingStore.open(run_dir.embeddings)
    points, lengths = points_of(space, store, ids[kept])
    fitted = fit_anew(model, points, lengths, labels[kept], pinned[kept])
    k = len(fitted.numbers)
    assigned = fitted.model.assign_points(points, lengths)
    other = np.where(assigned.runner_up == fitted.labels, assigned.cluster, assigned.runner_up)
    confidence = np.where(pinned[kept], np.float32(1), assigned.confidence).astype(np.float32)
    learned = space.consensus is not None
    plain = points_of(space.plain, store, ids[kept])[0] if learned else points
    silhouettes = silhouette.of(plain, fitted.labels, space.metric).astype(np.float32)
    # The silhouette doubts what a person put together or apart; there the person is right.
    by_hand = np.array([fitted.numbers[number] for number in corrected.changed if number in fitted.numbers], np.int32)
    nearer_to_others = (silhouettes < 0) & ~np.isin(fitted.labels, by_hand) & (not learned)
    unsure = (assigned.unsure | nearer_to_others) & ~pinned[kept]
    numbers, noise = dict(fitted.numbers), None
    if len(kept) < len(labels):
        assert corrected.noise is not None
        numbers[corrected.noise] = noise = k
    return _Found(
        distinct=distinct,
        kept=kept,
        points=plain,
        labels=_filled(len(ids), kept, fitted.labels, np.int32(k)),
        confidence=_filled(len(ids), kept, confidence, np.float32(1)),
        unsure=_filled(len(ids), kept, unsure, False),
        silhouette=_filled(len(ids), kept, silhouettes, np.float32(0)),
        runner_up=_filled(len(ids), kept, other.astype(np.int32), np.int32(0)),
        model=fitted.model,
        numbers=numbers,
        noise=noise,
    )


def _filled(count: int, where: npt.NDArray[np.intp], values: npt.NDArray[Any], rest: Any) -> npt.NDArray[Any]:
    """[count] with `values` at `where` and `rest` elsewhere, which is the noise."""
    out = np.full(count, rest, values.dtype)
    out[where] = values
    return out


def _renumbered(corrected: Corrected, numbers: dict[int, int]) -> Labels:
    """The corrected clusters under their new numbers."""
    old = np.array(sorted(numbers), np.int32)
    new = np.array([numbers[int(number)] for number in old], np.int32)
    return new[np.searchsorted(old, corrected.cluster)]


def _edit(corrected: Corrected, found: _Found, digest: str, log: Sequence[Edit]) -> Edit:
    """The line that says what this refit did."""
    refitted = Refitted(
        to=digest,
        names=found.names(corrected),
        noise=found.noise,
        pinned=corrected.ids[corrected.pinned],
        numbers=found.numbers,
        # A refit that did not come to its end is made good by this one.
        conflicts={line: why for line, why in corrected.conflicts.items() if log[line - 1].op != REFIT},
    )
    return Edit(n=len(log) + 1, op=REFIT, base=corrected.base, time=now(), refitted=refitted)


def _write(draft: Draft, corrected: Corrected, found: _Found, rows: npt.NDArray[np.intp], log: Sequence[Edit]) -> None:
    """Write the new clusters into the draft, and have it keep those that the refit starts from."""
    run = draft.run_dir
    if draft.before.kept(corrected.base) is None:
        places = draft.files["cluster"]
        guesses = draft.files.get(NAMES, {})
        draft.before_refits[corrected.base] = {
            name: number for name, number in (places | guesses).items() if name not in EVIDENCE
        }
    paths = records.by_id(run.read_clusters(["id", "path"]))["path"]
    record = draft.records["cluster"]
    draft.begin_stage()
    result = write(
        run,
        Clusters(
            rows=ImageRows(corrected.ids, paths, rows),
            cluster=found.labels,
            confidence=found.confidence,
            unsure=found.unsure,
            silhouette=found.silhouette,
            runner_up=found.runner_up,
            levels=_levels(run, found),
            model=found.model.model,
            evidence=None,
            facts=_facts(record["facts"], corrected, found, log),
            numbers=found.model.numbers,
            names=found.model.names,
        ),
    )
    draft.end_stage("cluster", {**record, "digest": result.digest, "parts": result.parts, "facts": result.facts})
    if "classes" in draft.records:
        draft.begin_stage()
        draft.end_stage(NAMES, draft.record("by a refit", ("classes", "cluster"), naming.write(run), 0.0))


def _levels(run: RunDir, found: _Found) -> Levels:
    """Levels around the new clusters; the noise is a group of its own at each."""
    metric = found.model.model.space.metric
    labels = found.labels[found.kept]
    seed = int(run.read_state().get("seed", 0))
    nested = levels.nested(found.points, labels, kmeans.means_of(found.points, labels, metric), seed, metric)
    coarse, medium, fine = (
        _filled(len(found.labels), found.kept, values, np.int32(values.max() + 1))
        for values in (nested.coarse, nested.medium, nested.fine)
    )
    return Levels(coarse, medium, fine)


def _facts(facts: dict[str, Any], corrected: Corrected, found: _Found, log: Sequence[Edit]) -> dict[str, Any]:
    made, labels = sentence_made_as(facts), len(found.numbers)
    return {
        **facts,
        "k": labels,
        "sentence": corrected_sentence(found.k, corrections(log, corrected.conflicts), made),
        "sizes": np.bincount(found.labels, minlength=labels).tolist(),
        "made_as": facts.get("made_as") or {"k": facts.get("k"), "sentence": made},
    }
