"""What is said at the end of `shoal cluster`."""

from __future__ import annotations

from collections import Counter

from shoal.rundir import RunDir


def cluster_summary(run_dir: RunDir) -> str:
    """A few lines: how many clusters and why, what was skipped and why, where everything lies."""
    stages = run_dir.read_state()["stages"]
    embed, found = (stages[name]["facts"] for name in ("embed", "cluster"))
    statuses = run_dir.read_images(["status", "reason"]).to_pylist()
    lines = [
        f"{embed['images']:,} images in {found['k']:,} clusters, {found['n_unsure']:,} images unsure.",
        found["sentence"],
        *_skipped(statuses),
        f"Run:    {run_dir.root}",
    ]
    if (run_dir.report / "index.html").is_file() and stages.get("report", {}).get("state") == "done":
        lines.append(f"Report: {run_dir.report / 'index.html'}   (shoal report {run_dir.root} --open)")
    return "\n".join(lines)


SPECIAL = {
    "skipped": "skipped",
    "duplicate": "exact duplicates, clustered with their originals",
    "vanished": "vanished",
}
REASONS_TOLD = 5


def _skipped(rows: list[dict[str, str | None]]) -> list[str]:
    """A line for each status but ok, with its most common reasons."""
    lines = []
    for status, words in SPECIAL.items():
        reasons = Counter(row["reason"] for row in rows if row["status"] == status)
        if not reasons:
            continue
        told = [f"{count:,} {reason}" for reason, count in reasons.most_common(REASONS_TOLD) if reason]
        if len(reasons) > REASONS_TOLD:
            told.append(f"{len(reasons) - REASONS_TOLD} more reasons")
        lines.append(f"{reasons.total():,} {words}" + (f": {'; '.join(told)}" if told else ""))
    return lines
