"""The evaluate stage: when a source brought labels, compare the clusters with them for the report."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from shoal import foreign
from shoal.config import ClusterConfig
from shoal.corrections.corrected import corrected_digest
from shoal.errors import RequestError, RunError
from shoal.evaluate.labels import SOURCE
from shoal.progress import Progress
from shoal.rundir import RunDir, StageResult, digest_file


def run(config: ClusterConfig, run_dir: RunDir, progress: Progress) -> StageResult:
    """Bring report/evaluation.json up to date.

    An evaluation against labels that a person gave by hand stays as long as the clusters do; without that and without
    labels in the source there is none.
    """
    earlier = run_dir.earlier.evaluation
    if _given_by_hand(run_dir, earlier):
        run_dir.keep("report/evaluation.json")
        return StageResult(digest_file(earlier))
    if not run_dir.labels.is_file():
        return StageResult("none")
    from shoal.evaluate.evaluate import evaluate, write  # noqa: PLC0415  (scikit-learn; only where there are labels)

    try:
        evaluation = evaluate(run_dir)
    except RequestError as error:  # nobody asked for it: a source may well have labels for other images only
        progress.say(f"not evaluated: {error}")
        return StageResult("none")
    write(run_dir, evaluation)
    progress.say(evaluation.summary_line())
    return StageResult(digest_file(run_dir.evaluation))  # no figures: run.json tells nothing of labels but a digest


def _given_by_hand(run_dir: RunDir, evaluation: Path) -> bool:
    """True if there is an evaluation of these very clusters against other labels than the source's."""
    try:
        found = foreign.read_json(evaluation, _Kept)
    except (FileNotFoundError, RunError):  # none, or none that can be read: made anew
        return False
    return found.labels != SOURCE and found.clusters_digest == corrected_digest(run_dir)


@dataclass(frozen=True, slots=True)
class _Kept:
    labels: str
    clusters_digest: str
