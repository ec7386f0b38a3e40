"""The stages' order, and which of them are stale.

A stage is run again when its key changes: what it was asked, and the digests of what the stages before it wrote.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import shoal.cluster.stage
import shoal.embed.stage
import shoal.images.index
import shoal.neighbours.stage
from shoal import atomic
from shoal.config import ClusterConfig
from shoal.corrections.corrected import corrected_digest
from shoal.errors import RunError
from shoal.images.sources import Source, open_source
from shoal.progress import Progress
from shoal.rundir import RunDir, StageResult, digest_of, versions

# Raised when a stage writes something else than before from the same inputs, so that old runs are brought up to date.
STAGE_VERSION = {"index": 1, "embed": 1, "neighbours": 1, "cluster": 4, "map": 1, "report": 1}


def _no_check(config: ClusterConfig, progress: Progress) -> None:
    """The check of a stage that can do whatever its key can be made of."""


@dataclass(frozen=True, slots=True)
class Stage:
    """A step of the pipeline. `key` gives what it was asked; `after` names the stages whose results it reads."""

    name: str
    run: Callable[[ClusterConfig, RunDir, Progress], StageResult]
    key: Callable[[ClusterConfig], Any]
    made: Callable[[RunDir], Path]  # what it leaves; if somebody deleted that, it is run again
    after: tuple[str, ...] = ()
    check: Callable[[ClusterConfig, Progress], None] = _no_check  # refuses what it cannot do, before any work
    reads_edits: bool = False  # people's corrections are part of what it shows
    always: bool = False  # the outside world may have changed: only the stage itself can tell


def _nothing(config: ClusterConfig) -> None:
    """The key of a stage that no option changes."""


def _seed(config: ClusterConfig) -> int:
    return config.seed


def clustering_stages() -> list[Stage]:
    """From a source to clusters."""
    return [
        Stage("index", shoal.images.index.run, _nothing, lambda run: run.images, always=True),
        Stage(
            "embed",
            shoal.embed.stage.run,
            shoal.embed.stage.key,
            lambda run: run.model / "config.json",
            ("index",),
            check=shoal.embed.stage.check,
        ),
        Stage(
            "neighbours",
            shoal.neighbours.stage.run,
            shoal.neighbours.stage.key,
            lambda run: run.neighbours / "ids.npy",
            ("embed",),
        ),
        Stage("cluster", shoal.cluster.stage.run, shoal.cluster.stage.key, lambda run: run.clusters, ("embed",)),
    ]


def report_stages(again: bool = False) -> list[Stage]:
    """From clusters to what people see; matplotlib loads only here. `again`: even if nothing changed."""
    import shoal.evaluate.stage  # noqa: PLC0415
    import shoal.report.build  # noqa: PLC0415
    import shoal.report.map  # noqa: PLC0415

    return [
        Stage("map", shoal.report.map.run, _seed, lambda run: run.map, ("neighbours", "cluster")),
        Stage("evaluate", shoal.evaluate.stage.run, _nothing, lambda run: run.clusters, ("cluster",), always=True),
        Stage(
            "report",
            shoal.report.build.run,
            _seed,
            lambda run: run.report / "index.html",
            ("index", "cluster", "map", "evaluate"),
            reads_edits=True,
            always=again,
        ),
    ]


def default_name(config: ClusterConfig) -> str:
    """The run directory's name when none is given: SOURCE-NAME.shoal, in the current folder."""
    return f"{open_source(config.source).name}.shoal"


def run(config: ClusterConfig, run_dir: RunDir, stages: Sequence[Stage], progress: Progress) -> dict[str, StageResult]:
    """Run the stages that are stale, in order, holding the run's lock.

    Raises:
        RunError: the run belongs to another source, or is of a newer format.
        RunLockedError: another process is writing it.
        ShoalError: whatever a stage raises.
    """
    source = open_source(config.source)
    _require_room_of_its_own(run_dir, source)
    for stage in stages:
        stage.key(config)  # a request that cannot be met is refused before any work
        stage.check(config, progress)
    with run_dir.writing():
        atomic.remove_leftovers(run_dir.root)
        state = run_dir.read_state()
        earlier = state.get("source", {}).get("identity", source.identity)
        if earlier != source.identity:
            raise RunError(
                f"{run_dir.root} is a run of {earlier}; expected the same source, not {source.identity} "
                "(give another --out for it)"
            )
        state.update(
            asked=config.to_json(),
            seed=config.seed,
            source={"identity": source.identity, "name": source.name},
            versions=versions(),
        )
        run_dir.write_state(state)
        return {stage.name: _run_stage(stage, config, run_dir, progress) for stage in stages}


def _require_room_of_its_own(run_dir: RunDir, source: Source) -> None:
    root = run_dir.root.resolve()
    if root.exists() and not root.is_dir():
        raise RunError(f"--out has value {str(run_dir.root)!r}, which is a file; expected a folder, new or of a run")
    if Path(source.identity).is_relative_to(root):  # what lies in a run is no image of its source
        raise RunError(f"--out has value {str(run_dir.root)!r}, which holds the source; expected a folder of its own")


def is_done(config: ClusterConfig, run_dir: RunDir, stage: Stage) -> bool:
    """Would running the stage do nothing?"""
    records = run_dir.read_state()["stages"]
    inputs_are_there = all(records.get(name, {}).get("state") == "done" for name in stage.after)
    return inputs_are_there and _is_current(stage, run_dir, records, _key(stage, config, run_dir, records))


def _key(stage: Stage, config: ClusterConfig, run_dir: RunDir, records: dict[str, Any]) -> str:
    inputs = [records[name]["digest"] for name in stage.after]
    if stage.reads_edits and run_dir.edits.is_file():
        inputs.append(corrected_digest(run_dir))
    return digest_of(stage.name, STAGE_VERSION.get(stage.name, 1), stage.key(config), inputs)


def _is_current(stage: Stage, run_dir: RunDir, records: dict[str, Any], key: str) -> bool:
    record = records.get(stage.name, {})
    is_same = record.get("state") == "done" and record["key"] == key
    return is_same and not stage.always and stage.made(run_dir).exists()


def _run_stage(stage: Stage, config: ClusterConfig, run_dir: RunDir, progress: Progress) -> StageResult:
    state = run_dir.read_state()
    records = state["stages"]
    record, key = records.get(stage.name), _key(stage, config, run_dir, records)
    if _is_current(stage, run_dir, records, key):
        return StageResult(record["digest"], record["facts"])
    if record and record["key"] != key:
        records[stage.name] = {"state": "stale", "key": key}
        run_dir.write_state(state)
    began = time.perf_counter()
    result = stage.run(config, run_dir, progress)
    records[stage.name] = {
        "state": "done",
        "key": key,
        "digest": result.digest,
        "facts": result.facts,
        "seconds": round(time.perf_counter() - began, 3),
    }
    run_dir.write_state(state)
    return result
