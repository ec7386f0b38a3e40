"""Why a run has so many clusters, in a sentence that belongs to the clusters that people see."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from shoal.corrections.corrected import Corrected
from shoal.corrections.edit import REFIT, Edit
from shoal.corrections.log import in_force, read_log
from shoal.rundir import RunDir


def why(run_dir: RunDir, corrected: Corrected, log: Sequence[Edit] | None = None) -> str:
    """What the clustering said of itself and, if people corrected it, how many clusters there are now.

    Args:
        log: the run's, where the caller has it.
    """
    count = corrections(read_log(run_dir) if log is None else log, corrected.conflicts)
    made = sentence_made_as(run_dir.read_state()["stages"]["cluster"].get("facts", {}))
    return corrected_sentence(corrected.k, count, made) if count else made


def corrected_sentence(k: int, count: int, made: str) -> str:
    """Of `k` clusters after `count` corrections of clusters that were made as the sentence `made` says."""
    return f"{k:,} cluster{'s' * (k != 1)} after {count:,} correction{'s' * (count != 1)} by hand; made as {made}"


def corrections(log: Sequence[Edit], conflicts: Mapping[int, str]) -> int:
    """How many edits of people are in force, also those that the clusters were since fitted to."""
    return sum(edit.op != REFIT and edit.n not in conflicts for edit in in_force(log)[0])


def is_refitted(log: Sequence[Edit]) -> bool:
    """Do people see clusters that were fitted to their corrections?"""
    return any(edit.op == REFIT for edit in in_force(log)[0])


def sentence_made_as(facts: dict[str, Any]) -> str:
    """Of the facts of the cluster stage: its own sentence, also after refits, one of which may be undone by now."""
    made: str = (facts.get("made_as") or facts).get("sentence", "")
    return made
