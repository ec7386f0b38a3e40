"""What is said at the end of `shoal cluster`."""

from __future__ import annotations

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


def _skipped(rows: list[dict[str, str | None]]) -> list[str]:
    lines = []
    for status, words in (("skipped", "skipped"), ("duplicate", "exact duplicate(s), clustered with their originals"), ("vanished", "vanished")):
        reasons = [row["reason"] or "" for row in rows if row["status"] == status]
        if not reasons:
            continue
        counts: dict[str, int] = {}
        for reason in filter(None, reasons):
            counts[reason] = counts.get(reason, 0) + 1
        common = sorted(counts.items(), key=lambda pair: -pair[1])
        told = "; ".join(f"{count:,} {reason}" for reason, count in common[:5])
        more = f"; {len(common) - 5} more reasons" if len(common) > 5 else ""
        lines.append(f"{len(reasons):,} {words}{': ' + told + more if told and status != 'duplicate' else ''}")
    return lines
