"""`shoal train`: from a source and a recipe to a complete run, with an encoder of its own."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from shoal import atomic, pipeline
from shoal.config import DEFAULT_BACKBONE, ClusterConfig, ClusterCounts
from shoal.draft import Draft
from shoal.encoder.names import full_name
from shoal.images.sources import Source, open_source
from shoal.pipeline import Stage
from shoal.progress import Progress
from shoal.rundir import RunDir, StageResult, digest_file, digest_of
from shoal.runfiles import KNN, log_of
from shoal.train import (
    clusters,
    datasets,
    freed_memory,
    learn_pretext,
    learn_scan,
    learn_selflabel,
    log,
    processes,
    recipe,
)
from shoal.train import show_views as show
from shoal.train.config import TrainConfig
from shoal.train.decoding import open_pixels
from shoal.train.monitor import KnnMonitor
from shoal.train.outcome import Outcome
from shoal.train.training import PRETEXT, SCAN, SELFLABEL, Training, outcome_name
from shoal.unfinished import unfinished_run

ENCODER = "train/encoder.safetensors"
LEARN = {PRETEXT: learn_pretext.learn, SCAN: learn_scan.learn, SELFLABEL: learn_selflabel.learn}


@dataclass(frozen=True, slots=True)
class TrainRequest:
    """What `shoal train` was asked for. Fields mirror the command's options."""

    source: tuple[str, ...]
    recipe: str
    changes: tuple[str, ...] = ()
    clusters: str = "auto"
    data: Path | None = None
    out: Path | None = None
    seed: int = 0
    device: str = "auto"
    resume: bool = False
    report: bool = True


def train(request: TrainRequest, progress: Progress) -> tuple[RunDir, bool]:
    """Train, cluster and report; return the run, and whether there was anything to do.

    Under torchrun every process calls this; the first leads, and the others return when it is done.

    Raises:
        ConfigError, SourceError, WeightsError, RunError: the request was wrong.
        CollapseError, NoImagesError, TooFewImagesError, DiskSpaceError, RunLockedError: the work failed.
    """
    config = recipe.load(request.recipe, request.changes)
    asked, source, root = prepare(request, config, progress)
    _warn_of_faults(config, progress)
    with processes.together(request.device) as device:
        if not processes.is_leader():
            training = _training(request, config, asked, unfinished_run(root), device, progress)
            processes.follow([work for _, work in _work(training)], device)
            return unfinished_run(root), True
        index = [pipeline.index_stage(source)]
        with pipeline.writing(asked, root, index, progress) as draft:
            training = _training(request, config, asked, draft.run_dir, device, progress)
            has_worked = _learn(draft, asked, training, index, progress)
            processes.call(processes.END, device)
            asked, onward = _onward(draft, asked, training)
            has_worked |= pipeline.advance(draft, asked, onward, progress)
            run_dir = draft.commit()
            if request.report:
                has_worked |= pipeline.advance(draft, asked, [_views_stage(training, request.seed)], progress)
                has_worked |= pipeline.advance(draft, asked, pipeline.report_stages(), progress)
                run_dir = draft.commit()
    return run_dir, has_worked


def _training(
    request: TrainRequest,
    config: TrainConfig,
    asked: ClusterConfig,
    run_dir: RunDir,
    device: torch.device,
    progress: Progress,
) -> Training:
    monitor = KnnMonitor(run_dir, config)
    training = Training(config, run_dir, asked.seed, asked.counts, device, progress, open_pixels, monitor)
    monitor.training = training
    return training


def _learn(draft: Draft, asked: ClusterConfig, training: Training, index: Sequence[Stage], progress: Progress) -> bool:
    """Index, and every phase of the recipe; clusters first where those teach the last one. Was there anything to do?"""
    has_worked = pipeline.advance(draft, asked, [*index, _recipe_stage(training)], progress)
    *before, last = _phase_stages(training)
    has_worked |= pipeline.advance(draft, asked, before, progress)
    if training.is_taught and not pipeline.is_done(draft, asked, last):
        pipeline.advance(draft, _teaching(asked, training), pipeline.stages_of_images(), progress)
    has_worked |= pipeline.advance(draft, asked, [last, _encoder_stage(training, last.name)], progress)
    return has_worked


def show_views(request: TrainRequest, progress: Progress) -> Path:
    """Draw the recipe's views of a few images of the source into RUN/report/views.png, and return its path.

    The run stays as it is otherwise: what was listed for it is only gone on with by the training itself.
    """
    config = recipe.load(request.recipe, request.changes)
    asked, source, root = prepare(request, config, progress)
    index = [pipeline.index_stage(source)]
    with pipeline.writing(asked, root, index, progress) as draft:
        pipeline.advance(draft, asked, index, progress)
        picture = show.picture(config, open_pixels(draft.run_dir, config.data, progress), request.seed)
        target = draft.before.shown(f"report/{show.FILE}")
        atomic.write_bytes(target, picture)
    return target


def prepare(request: TrainRequest, config: TrainConfig, progress: Progress) -> tuple[ClusterConfig, Source, Path]:
    """What the ordinary stages are asked for, the source (a table, for a data set's name), and where the run lies."""
    source = request.source
    if len(source) == 1 and datasets.is_name(source[0]):
        folder = request.data or Path("data")
        source = (str(datasets.table(source[0], folder, progress)),)
    elif request.data is not None:
        source = tuple(str(request.data / one) if not Path(one).exists() else one for one in source)
    wanted = request.clusters
    if ClusterCounts.parse(wanted).is_auto and config.scan.clusters is not None:
        wanted = str(config.scan.clusters)
    asked = ClusterConfig(source, clusters=wanted, seed=request.seed, device=request.device, resize=config.data.resize)
    opened = open_source(source)
    root = request.out or Path(pipeline.default_name(opened))
    weights = root / ENCODER
    return dataclasses.replace(asked, backbone=full_name(config.encoder.name), weights=str(weights)), opened, root


def _warn_of_faults(config: TrainConfig, progress: Progress) -> None:
    """Some losses are there for comparison with a published run only."""
    for section, asked in ((PRETEXT, config.pretext), (SCAN, config.scan)):
        if asked.loss == "keras" and asked.epochs > 0:
            progress.say(
                f"Warning: {section}.loss is 'keras', the Keras example's loss with the faults it was printed with; it "
                f"may put all images into one cluster. {section}.loss=standard is what was meant"
            )


def _teaching(asked: ClusterConfig, training: Training) -> ClusterConfig:
    """What the ordinary stages are asked for, to make the clusters that self-labelling starts from."""
    if training.starts_embedded:  # at its own size, as `shoal cluster` has it: that run may be there already
        return dataclasses.replace(asked, backbone=DEFAULT_BACKBONE, weights=None)
    return dataclasses.replace(asked, weights=str(training.outcome(PRETEXT)))


def _work(training: Training) -> list[tuple[str, Callable[[], None]]]:
    """Every phase the recipe has, in order, and what does it; what it frees it keeps, but not beyond its end."""

    def keeping(learn: Callable[[Training], None]) -> Callable[[], None]:
        def learn_and_keep() -> None:
            with freed_memory.kept():
                learn(training)

        return learn_and_keep

    return [(phase, keeping(LEARN[phase])) for phase in training.phases()]


def _phase_stages(training: Training) -> list[Stage]:
    """The phases as stages of the pipeline; the other processes are called to each."""
    return [
        _phase_stage(training, phase, work, number, training.phases()[:number][-1:])
        for number, (phase, work) in enumerate(_work(training))
    ]


def _phase_stage(training: Training, phase: str, work: Callable[[], None], number: int, before: list[str]) -> Stage:
    def run(config: ClusterConfig, run_dir: RunDir, progress: Progress) -> StageResult:
        processes.call(number, training.device)
        work()
        log.snapshot(run_dir.train, phase, run_dir.new(log_of(phase)))
        if phase == PRETEXT and run_dir.unfinished(KNN).is_file():
            run_dir.new(KNN)  # the monitor's curve, perhaps of a process that was killed
        path = run_dir.new(outcome_name(phase))
        return StageResult(digest_file(path), Outcome.load(path).facts)

    def key(config: ClusterConfig) -> dict[str, Any]:
        return {**training.asked(phase), "seed": training.seed}

    # Of the index too: a pretext task of no epochs leaves the same whatever the images are.
    return Stage(phase, run, key, ("index", *before))


def _recipe_stage(training: Training) -> Stage:
    """Keeps the recipe with all its values."""
    values = training.config.to_json()

    def run(config: ClusterConfig, run_dir: RunDir, progress: Progress) -> StageResult:
        atomic.write_json(run_dir.new("train/recipe.json"), values)
        return StageResult(digest_of(values))

    return Stage("recipe", run, lambda config: values)


def _encoder_stage(training: Training, last: str) -> Stage:
    """Puts the last phase's encoder where `--weights` finds it."""

    def run(config: ClusterConfig, run_dir: RunDir, progress: Progress) -> StageResult:
        with atomic.replacing(run_dir.new(ENCODER)) as temporary:
            shutil.copyfile(training.outcome(last), temporary)
        return StageResult(digest_file(run_dir.path(ENCODER)))

    return Stage("encoder", run, lambda config: None, (last,))


def _views_stage(training: Training, seed: int) -> Stage:
    """Draws the recipe's views for the report."""

    def run(config: ClusterConfig, run_dir: RunDir, progress: Progress) -> StageResult:
        path = run_dir.new(f"report/{show.FILE}")
        atomic.write_bytes(path, show.picture(training.config, training.pixels, seed))
        return StageResult(digest_file(path))

    return Stage("views", run, lambda config: seed, ("index", "recipe"))


def _onward(draft: Draft, asked: ClusterConfig, training: Training) -> tuple[ClusterConfig, list[Stage]]:
    """From the learned encoder to clusters: the ordinary stages, but for clusters that a trained head tells."""
    *to_neighbours, cluster, names = pipeline.stages_of_images()
    last = training.phases()[-1]
    outcome = Outcome.load(training.outcome(last))
    head = outcome.head
    if head is None:
        if training.is_taught:
            return _teaching(asked, training), [*to_neighbours, cluster, names]
        return dataclasses.replace(asked, weights=str(draft.path(ENCODER))), [*to_neighbours, cluster, names]

    def run(config: ClusterConfig, run_dir: RunDir, progress: Progress) -> StageResult:
        return clusters.write(run_dir, head, config.seed, last, str(outcome.facts["why"]))

    told = Stage("cluster", run, lambda config: {"told by": last}, ("embed", "images", last))
    return dataclasses.replace(asked, weights=str(draft.path(ENCODER))), [*to_neighbours, told, names]
