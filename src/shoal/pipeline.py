"""The stages' order, and which of them are stale.

A stage is run again when its key changes: what it was asked, and the digests of what the stages before it wrote. What
the stages of one command leave becomes current together (`shoal.draft`).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import shoal.cluster.stage
import shoal.embed.join
import shoal.embed.stage
import shoal.embed.take
import shoal.images.index
import shoal.names.classes
import shoal.names.naming
import shoal.neighbours.stage
from shoal import draft as drafts
from shoal import relink
from shoal.config import ClusterConfig
from shoal.corrections.corrected import corrected_digest
from shoal.draft import Draft, digest_in
from shoal.embed.given import Given
from shoal.embed.matching import require_rows
from shoal.errors import NoImagesError, RunError
from shoal.executor import HERE, Executor
from shoal.images.in_memory import InMemorySource
from shoal.images.sources import Source
from shoal.progress import Progress
from shoal.rundir import RunDir, StageResult, digest_of, versions
from shoal.runfiles import FORMAT_VERSION, write_run_json
from shoal.stub import removed_on_failure
from shoal.wording import command

# Raised when a stage writes something else than before from the same inputs, so that old runs are brought up to date.
STAGE_VERSION = {"index": 1, "embed": 3, "images": 1, "neighbours": 3, "cluster": 11, "map": 1, "report": 3}


def _no_check(config: ClusterConfig, progress: Progress) -> None:
    """The check of a stage that can do whatever its key can be made of."""


@dataclass(frozen=True, slots=True)
class Stage:
    """A step of the pipeline. `key` gives what it was asked.

    Attributes:
        after: the stages (or parts of what they made: `cluster.space`) whose results it reads. Where one of those is
            made anew, what this one made of it before is no longer current.
        shows: results that it shows too; it is run again for them, but stays true without.
    """

    name: str
    run: Callable[[ClusterConfig, RunDir, Progress], StageResult]
    key: Callable[[ClusterConfig], Any]
    after: tuple[str, ...] = ()
    shows: tuple[str, ...] = ()
    check: Callable[[ClusterConfig, Progress], None] = _no_check  # refuses what it cannot do, before any work
    reads_edits: bool = False  # people's corrections are part of what it shows
    always: bool = False  # the outside world may have changed: only the stage itself can tell
    source: Source | None = None  # that it lists; a run begins with it


def _nothing(config: ClusterConfig) -> None:
    """The key of a stage that no option changes."""


def _seed(config: ClusterConfig) -> int:
    return config.seed


def index_stage(source: Source, given: Given | None = None) -> Stage:
    """From a source to a listing of its images, which embeddings that are given have to fit."""
    require = None if given is None else partial(require_rows, given)
    return Stage(
        "index", partial(shoal.images.index.run, source, require=require), _nothing, always=True, source=source
    )


def clustering_stages(source: Source, given: Given | None = None, executor: Executor = HERE) -> list[Stage]:
    """From a source to clusters; with embeddings that are given, or a backbone's. `executor`: of work in pieces."""
    return [index_stage(source, given), *stages_of_images(given, executor)]


def stages_of_images(given: Given | None = None, executor: Executor = HERE) -> list[Stage]:
    """From a listing of images to clusters."""
    return [
        _embed_stage(executor) if given is None else _take_stage(given),
        Stage("classes", shoal.names.classes.run, _nothing, ("embed", "embed.head")),
        Stage("images", shoal.embed.join.run, _nothing, ("index", "embed"), always=True),
        Stage(
            "neighbours",
            partial(shoal.neighbours.stage.run, executor=executor),
            shoal.neighbours.stage.key,
            ("embed", "images"),
        ),
        Stage("cluster", shoal.cluster.stage.run, shoal.cluster.stage.key, ("embed", "images")),
        names_stage(),
    ]


def names_stage() -> Stage:
    """From clusters to guesses of what they show."""
    return Stage("names", shoal.names.naming.run, _nothing, ("classes", "cluster"))


def _embed_stage(executor: Executor) -> Stage:
    embed = shoal.embed.stage

    def run(config: ClusterConfig, run_dir: RunDir, progress: Progress) -> StageResult:
        shoal.cluster.stage.require_images(config.counts, run_dir.read_listing(["status", "reason"]))  # before hours
        return embed.run(config, run_dir, progress, executor)

    return Stage("embed", run, embed.key, ("index",), check=partial(embed.check, executor=executor))


def _take_stage(given: Given) -> Stage:
    take = shoal.embed.take
    return Stage("embed", partial(take.run, given), partial(take.key, given), ("index",))


def report_stages(again: bool = False) -> list[Stage]:
    """From clusters to what people see; matplotlib loads only here. `again`: even if nothing changed."""
    import shoal.evaluate.stage  # noqa: PLC0415
    import shoal.report.build  # noqa: PLC0415
    import shoal.report.map  # noqa: PLC0415

    return [
        Stage("map", shoal.report.map.run, _seed, ("images", "neighbours", "cluster.space")),
        Stage("evaluate", shoal.evaluate.stage.run, _nothing, ("cluster",), always=True),
        Stage(
            "report",
            shoal.report.build.run,
            _seed,
            ("images", "cluster"),
            shows=("index", "map", "evaluate", "names"),
            reads_edits=True,
            always=again,
        ),
    ]


def figures_stage() -> Stage:
    """A silhouette picture for every number of clusters looked at."""
    import shoal.report.build  # noqa: PLC0415  (matplotlib)

    return Stage("figures", shoal.report.build.run_figures, _nothing, ("images", "cluster"), always=True)


def default_name(source: Source) -> str:
    """The run directory's name when none is given: SOURCE-NAME.shoal, in the current folder."""
    return f"{source.name}.shoal"


def run(
    config: ClusterConfig,
    run_dir: RunDir,
    stages: Sequence[Stage],
    progress: Progress,
    then: Callable[[], Sequence[Stage]] | None = None,
) -> RunDir:
    """Run the stages that are stale, in order, holding the run's lock, and return the run as it is then.

    Whatever was there before stays current until all of them are done.

    Args:
        then: gives stages that come when what the others made is current already; asked then, for they load libraries.

    Raises:
        RunError: the run belongs to another source, or is of a newer format; the folder is somebody else's.
        RunLockedError: another process is writing it.
        ShoalError: whatever a stage raises.
    """
    with writing(config, run_dir.root, stages, progress) as draft:
        advance(draft, config, stages, progress)
        made = draft.commit()
        if then is not None:
            advance(draft, config, then(), progress)
            made = draft.commit()
        return made


@contextmanager
def writing(config: ClusterConfig, root: Path, stages: Sequence[Stage], progress: Progress) -> Iterator[Draft]:
    """The draft of the run at `root`, for `stages`; see `run`."""
    for stage in stages:
        stage.key(config)  # a request that cannot be met is refused before any work
        stage.check(config, progress)
    source = stages[0].source
    if source is not None:
        _require_room_of_its_own(root, source)
    spool = None if source is None else source.spool
    with removed_on_failure(root), drafts.writing(root, from_start=source is not None, spool=spool) as draft:
        if source is not None:
            _require_same_source(draft, config, source)
            draft.state.update(
                asked={**config.to_json(), "source": relink.absolute(config.source)},
                seed=config.seed,
                source=relink.place_of(root, source),
                versions=versions(),
            )
            if not draft.before.read_state()["stages"]:  # a first run that is killed can say how to finish it
                write_run_json(root, {"format_version": FORMAT_VERSION, "asked": draft.state["asked"], "stages": {}})
        yield draft


def advance(draft: Draft, config: ClusterConfig, stages: Sequence[Stage], progress: Progress) -> bool:
    """Run the stages that are stale, in order, without making them current yet. Was there more to do than to look?"""
    has_worked = False
    for stage in stages:
        try:
            has_worked |= _run_stage(stage, config, draft, progress) and not stage.always
        except NoImagesError:
            _keep_reasons(draft, stage, config, progress)
            raise
    return has_worked


def is_done(draft: Draft, config: ClusterConfig, stage: Stage) -> bool:
    """Would running the stage do nothing? If so it is taken over."""
    inputs_are_there = all(digest_in(draft.records, name) is not None for name in stage.after)
    return inputs_are_there and not stage.always and draft.take_over(stage.name, _key(stage, config, draft)) is not None


def _run_stage(stage: Stage, config: ClusterConfig, draft: Draft, progress: Progress) -> bool:
    """Run a stage unless it is done. Was it run?"""
    if is_done(draft, config, stage):
        return False
    key = _key(stage, config, draft)
    began = time.perf_counter()
    draft.begin_stage()
    result = stage.run(config, draft.run_dir, progress)
    draft.end_stage(stage.name, draft.record(key, stage.after, result, time.perf_counter() - began))
    return True


def _key(stage: Stage, config: ClusterConfig, draft: Draft) -> str:
    inputs = [digest_in(draft.records, name) for name in (*stage.after, *stage.shows)]
    if stage.reads_edits and draft.run_dir.edits.is_file():
        inputs.append(corrected_digest(draft.run_dir))
    return digest_of(stage.name, STAGE_VERSION.get(stage.name, 1), stage.key(config), inputs)


def _keep_reasons(draft: Draft, failed: Stage, config: ClusterConfig, progress: Progress) -> None:
    """Of a first run in which no image is usable, images.parquet says why. A run that has clusters stays as it was."""
    if draft.before.stage("cluster") is None and draft.run_dir.listing.is_file():
        record = draft.record("", failed.after, StageResult(""), 0.0)
        draft.end_stage(failed.name, {**record, "state": "failed"})
        join = Stage("images", shoal.embed.join.run, _nothing, ("index",), always=True)
        _run_stage(join, config, draft, progress)
        draft.commit()


def _require_room_of_its_own(root: Path, source: Source) -> None:
    if Path(source.identity).is_relative_to(root.resolve()):  # what lies in a run is no image of its source
        raise RunError(f"--out has value {str(root)!r}, which holds the source; expected a folder of its own")


def _require_same_source(draft: Draft, config: ClusterConfig, source: Source) -> None:
    known = draft.before.read_state().get("source", {})
    if known.get("identity", source.identity) == source.identity or relink.is_moved_together(draft.before, source):
        return
    how = "give another --out for it"
    if source.identity != InMemorySource.identity and not relink.holds_its_source(draft.before):
        again = command("shoal", "relink", draft.root, *config.source)
        how += f"; or, if that is where the images are now: {again}"
    raise RunError(
        f"{draft.root} is a run of {known['identity']}; expected the same source, not {source.identity} ({how})"
    )
