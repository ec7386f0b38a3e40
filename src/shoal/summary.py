"""What is said at the end of `shoal cluster`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from shoal.corrections.base import read_base
from shoal.corrections.corrected import Corrected, corrected_by
from shoal.corrections.edit import Edit
from shoal.corrections.log import in_force, read_log
from shoal.corrections.shown import read_shown
from shoal.corrections.why import why
from shoal.images import left_out
from shoal.rundir import RunDir
from shoal.wording import command, counted


def cluster_summary(run_dir: RunDir) -> str:
    """A few lines: how many clusters and why, what was skipped or left out and why, where everything lies."""
    stages = run_dir.read_state()["stages"]
    embed, mined = (stages.get(name, {}).get("facts", {}) for name in ("embed", "neighbours"))
    log = read_log(run_dir)
    corrected = corrected_by(run_dir, read_base(run_dir), log)
    unsure = corrected.unsure[np.unique(corrected.original)].sum()  # copies are not counted again
    lines = [
        f"{counted(embed.get('images', 0), 'image')} in {counted(corrected.k, 'cluster')}, "
        f"{counted(unsure, 'image')} unsure.",
        why(run_dir, corrected, log),
        *_recall(mined.get("recall", 1.0)),
        *_given(embed.get("given")),
        *_edits(run_dir, corrected, log),
        *_names(run_dir, corrected),
        *_skipped(run_dir.read_images(["status", "reason"])),
        *_left_out(stages),
        f"Run:    {run_dir.root}   ({command('shoal', 'browse', run_dir.root)})",
    ]
    if "report" in stages:
        how = command("shoal", "report", run_dir.root, "--open")
        lines.append(f"Report: {run_dir.shown('report/index.html')}   ({how})")
    return "\n".join(lines)


SPECIAL = {
    "skipped": ("skipped", "skipped"),
    "duplicate": (
        "exact duplicate, clustered with its original",
        "exact duplicates, clustered with their originals",
    ),
    "vanished": ("vanished", "vanished"),
}
REASONS_TOLD = 5
NAMES_TOLD = 12
NEEDS = "needs "  # how reasons begin that name what to install


def _recall(share: float) -> list[str]:
    """A line on neighbours that were not looked for everywhere."""
    if share == 1:
        return []
    return [f"neighbours found approximately: {100 * share:.1f} % of the true ones, measured on a sample"]


def _given(told: dict[str, Any] | None) -> list[str]:
    """A line on embeddings that were given: whose they were taken to be."""
    if told is None:
        return []
    rows = [f"row {row:,} for {told[end]}" for row, end in ((0, "first"), (told["rows"] - 1, "last")) if end in told]
    unused = f"; {told['unused']:,} of no image of the source" if told["unused"] else ""
    return [
        f"{counted(told['rows'], 'embedding')} given in {told['name']}{': ' if rows else ''}{', '.join(rows)}{unused}"
    ]


def _names(run_dir: RunDir, corrected: Corrected) -> list[str]:
    """A line with the names of the largest clusters that have one."""
    shown = read_shown(run_dir, corrected)
    sizes = np.bincount(corrected.cluster)
    named = sorted((number for number in corrected.numbers if number in shown), key=lambda number: -sizes[number])
    if not named:
        return []
    told = [f"{number} {shown[number].name} ({sizes[number]:,})" for number in named[:NAMES_TOLD]]
    if len(named) > NAMES_TOLD:
        told.append(counted(len(named) - NAMES_TOLD, "more name"))
    head = "Names, guessed" if any(shown[number].is_guess for number in named) else "Names"
    copies = int(np.count_nonzero(corrected.original != np.arange(len(corrected.original))))
    also = f"; sizes with {counted(copies, 'exact duplicate')}" if copies else ""
    return [f"{head}: {', '.join(told)}{also}"]


def _edits(run_dir: RunDir, corrected: Corrected, log: Sequence[Edit]) -> list[str]:
    """A line on people's edits if there are any, and one on each that could not be carried over."""
    kept, _ = in_force(log)
    if not kept:
        return []
    kept_count = counted(len(kept) - len(corrected.conflicts), "edit")
    line = f"{kept_count} kept: {counted(corrected.k, 'cluster')} with them"
    if corrected.conflicts:
        how = command("shoal", "browse", run_dir.root)
        line += f"; {len(corrected.conflicts):,} could not be carried over ({how} shows why)"
    return [line]


def _skipped(images: pa.Table) -> list[str]:
    """A line for each status but ok, with its most common reasons."""
    lines = []
    for status, words in SPECIAL.items():
        found = images["reason"].filter(pc.equal(images["status"], status)).value_counts().to_pylist()
        reasons: Counter[str | None] = Counter({pair["values"]: pair["counts"] for pair in found})
        if not reasons:
            continue
        # What can be helped comes first, however rare it is beside what cannot.
        ordered = sorted(reasons.most_common(), key=lambda pair: not (pair[0] or "").startswith(NEEDS))
        told = [f"{count:,} {reason}" for reason, count in ordered[:REASONS_TOLD] if reason]
        if len(reasons) > REASONS_TOLD:
            told.append(counted(len(reasons) - REASONS_TOLD, "more reason"))
        lines.append(counted(reasons.total(), *words) + (f": {'; '.join(told)}" if told else ""))
    return lines


def _left_out(stages: dict[str, Any]) -> list[str]:
    """A line on folders that were not looked into; runs of before do not tell."""
    words = left_out.told(stages["index"].get("facts", {}).get(left_out.FACT, {}))
    return [words] if words else []
