"""Runs one stage as the pipeline does: into a draft that becomes current when the stage is done."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from shoal import draft as drafts
from shoal.config import ClusterConfig
from shoal.images import index
from shoal.images.sources import open_source
from shoal.progress import Progress
from shoal.rundir import RunDir, StageResult


def run_stage(
    root: Path,
    name: str,
    run: Callable[[ClusterConfig, RunDir, Progress], StageResult],
    config: ClusterConfig,
    progress: Progress | None = None,
) -> StageResult:
    """What the stage returns; whatever it raises leaves the run as it was."""
    with drafts.writing(root) as draft:
        draft.begin_stage()
        result = run(config, draft.run_dir, progress or Progress())
        draft.end_stage(name, draft.record(name, (), result, 0.0))
        draft.commit()
    return result


def run_index(root: Path, source: Path | str, progress: Progress | None = None, **options: Any) -> StageResult:
    """The index stage on a source."""
    config = ClusterConfig(source=(str(source),), **options)
    return run_stage(root, "index", partial(index.run, open_source(config.source)), config, progress)
