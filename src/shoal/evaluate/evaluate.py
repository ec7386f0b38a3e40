"""`evaluate`: a run's clusters beside labels."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow.compute as pc

from shoal import atomic
from shoal import draft as drafts
from shoal.corrections.corrected import Corrected, corrected_digest, corrected_table, read_corrected
from shoal.corrections.model import corrected_model
from shoal.corrections.shown import read_guesses
from shoal.embeddings import EmbeddingStore, Ids
from shoal.errors import RunError
from shoal.evaluate import metrics
from shoal.evaluate.agreement import TOP, Agreement, Clusters, Names, agreement
from shoal.evaluate.labels import Labels, names_in, read_labels
from shoal.evaluate.names import NamesAgreement, names_agreement
from shoal.evaluate.ranking import led_by, ranked_clusters
from shoal.names.classifier import words_of
from shoal.neighbours.mined import check_among, read_ids
from shoal.rundir import RunDir, StageResult, digest_file
from shoal.runfiles import HEAD
from shoal.wording import counted


@dataclass(frozen=True, kw_only=True)
class Evaluation(Agreement):
    """What labels say about a run: the figures of `Agreement`, over duplicates too, and what they are of.

    Attributes:
        unlabelled: images that have a cluster, but no label.
        unmatched: labels given for images that the run does not have.
        labels: where the labels come from.
        names: how the names that were guessed go with the labels; None without guesses, or if no label is a word.
        neighbour_purity: at k = 1, 5, 10, 20, 50, as far as the run's neighbours go; empty if it has none.
        clusters_digest: of the clusters that were compared, edits and all, to tell whether this is still true.
    """

    unlabelled: int
    unmatched: int
    labels: str
    clusters_digest: str
    neighbour_purity: dict[int, float]
    names: NamesAgreement | None

    def summary_line(self) -> str:
        return (
            f"ACC {self.acc:.3f}  NMI {self.nmi:.3f}  ARI {self.ari:.3f}  purity {self.purity:.3f}  "
            f"({counted(self.n, 'image')}, {counted(self.clusters, 'cluster')}, {counted(self.classes, 'label')} "
            f"from {self.labels})"
        )

    def text(self) -> str:
        """Lines for a terminal: the figures, and one line a cluster, largest first."""
        top = "" if self.acc_top5 is None else f"ACC top-5 {self.acc_top5:.3f}  "
        lines = [self.summary_line(), f"AMI {self.ami:.3f}  {top}{self._sure_words()}", self._calibration_words()]
        if self.neighbour_purity:
            shares = "  ".join(f"{value:.3f} at {k}" for k, value in self.neighbour_purity.items())
            lines.append(f"neighbours with the same label: {shares}")
        if self.names is not None:
            lines.append(self.names.text())
        if self.unlabelled or self.unmatched:
            verbs = ["has" if count == 1 else "have" for count in (self.unlabelled, self.unmatched)]
            lines.append(
                f"{counted(self.unlabelled, 'image')} {verbs[0]} no label; "
                f"{counted(self.unmatched, 'label')} {verbs[1]} no image"
            )
        lines += ["", "cluster     size  accuracy  majority label"]
        for row in sorted(self.table, key=lambda row: -row.size):
            lines.append(f"{row.cluster:7d} {row.size:8,d}  {row.accuracy:8.3f}  {row.majority}")
        return "\n".join(lines)

    def _sure_words(self) -> str:
        if self.sure is None or self.sure.acc is None:
            return "every image is unsure"
        return f"sure images: {self.sure.share:.1%}, ACC {self.sure.acc:.3f}"

    def _calibration_words(self) -> str:
        assert self.calibration is not None  # a run always has confidence
        found = self.calibration.matched
        return f"mean confidence {found.confidence:.3f}, calibration error {found.error:.3f}"

    def to_json(self) -> dict[str, Any]:
        own = ("unlabelled", "unmatched", "labels", "clusters_digest")
        return {
            **super().to_json(),
            **{name: getattr(self, name) for name in own},
            "labelled": self.n,
            "names": asdict(self.names) if self.names else None,
            "neighbour_purity": {str(k): value for k, value in self.neighbour_purity.items()},
        }


def evaluate(run_dir: RunDir, labels: str | None = None) -> Evaluation:
    """Compare a run's clusters with labels. Writes nothing.

    Args:
        labels: see `read_labels`.

    Raises:
        RunError: the run has no clusters yet.
        RequestError: there are no labels, or they are not as expected.
    """
    corrected = read_corrected(run_dir)
    rows = corrected_table(run_dir, corrected)
    found = read_labels(run_dir, labels)
    label = found.of(rows["id"].to_numpy())
    labelled, names = rows.filter(label.is_valid()), names_in(label.drop_null())
    clusters = labelled["cluster"].to_numpy()
    confidence = labelled["confidence"].to_numpy()
    if not ((confidence >= 0) & (confidence <= 1)).all():
        raise RunError(
            f"{run_dir.clusters}: column 'confidence' has rows without a number from 0 to 1; run the same shoal "
            "cluster again"
        )
    figures = agreement(
        names,
        clusters,
        confidence=confidence,
        unsure=labelled["unsure"].to_numpy(),
        ranked=_ranked(run_dir, corrected, labelled["id"].to_numpy()),
    )
    of_all = {field.name: getattr(figures, field.name) for field in fields(figures)}
    return Evaluation(
        **{**of_all, "clusters": len(pc.unique(rows["cluster"]))},
        unlabelled=len(rows) - len(names),
        unmatched=found.unmatched,
        labels=found.source,
        clusters_digest=corrected_digest(run_dir),
        neighbour_purity=neighbour_purity(run_dir, found),
        names=_names(run_dir, corrected, names, clusters),
    )


def keep(root: Path, evaluation: Evaluation) -> None:
    """Keep an evaluation that a person asked for in the run at `root`, for its report. Raises RunLockedError."""
    with drafts.writing(root) as draft:
        draft.begin_stage()
        write(draft.run_dir, evaluation)
        result = StageResult(digest_file(draft.run_dir.evaluation))
        draft.end_stage("evaluate", draft.record("by hand", ("cluster",), result, 0.0))
        draft.commit()


def write(run_dir: RunDir, evaluation: Evaluation) -> None:
    """Write report/evaluation.json, atomically; the report shows it."""
    atomic.write_json(run_dir.new("report/evaluation.json"), evaluation.to_json())


def _names(run_dir: RunDir, corrected: Corrected, labels: Names, clusters: Clusters) -> NamesAgreement | None:
    guesses, words = read_guesses(run_dir, corrected), words_of(run_dir.model / HEAD)
    return (
        None if guesses is None or words is None or words.is_own else names_agreement(labels, clusters, guesses, words)
    )


def _ranked(run_dir: RunDir, corrected: Corrected, ids: Ids) -> npt.NDArray[np.int32] | None:
    """The five likeliest clusters of images `ids` as people corrected them, an image's own first.

    None without a model and finished embeddings.
    """
    if not (corrected.source.model / "clusters.json").is_file() or not (run_dir.embeddings / "manifest.json").is_file():
        return None
    rows = corrected.rows(ids)
    with_features = corrected.ids[corrected.original[rows]]
    model, store = corrected_model(run_dir, corrected), EmbeddingStore.open(run_dir.embeddings)
    blocks = [ranked_clusters(model, features, TOP) for _, features in store.blocks(with_features)]
    return led_by(corrected.cluster[rows], np.concatenate(blocks), TOP)


def neighbour_purity(run_dir: RunDir, labels: Labels) -> dict[int, float]:
    """Purity of a run's mined neighbours at each k; empty if none were mined."""
    neighbours = read_ids(run_dir)
    if neighbours is None:
        return {}
    check_among(neighbours, len(neighbours), run_dir)
    names = labels.of(np.arange(len(neighbours))).dictionary_encode()
    return metrics.neighbour_purity(pc.fill_null(names.indices, -1).to_numpy(), neighbours)
