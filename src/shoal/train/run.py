"""`shoal train`: from a source and a recipe to a complete run, with an encoder of its own."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from shoal import atomic, pipeline
from shoal.config import DEFAULT_BACKBONE, ClusterConfig, ClusterCounts
from shoal.embed.architectures import full_name
from shoal.pipeline import Stage
from shoal.progress import Progress
from shoal.rundir import RunDir, StageResult, digest_file
from shoal.train import clusters, datasets, freed_memory, processes, recipe
from shoal.train import show_views as show
from shoal.train.config import TrainConfig
from shoal.train.monitor import KnnMonitor
from shoal.train.outcome import Outcome
from shoal.train.phases import PRETEXT, SCAN, SELFLABEL, Training
from shoal.train.pixels import open_pixels

ENCODER = "encoder.safetensors"


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
    asked, run_dir = prepare(request, config, progress)
    if request.resume and _is_finished(request, config, asked, run_dir, progress):
        return run_dir, False
    _warn_of_faults(config, progress)
    with processes.together(request.device) as device:
        monitor = KnnMonitor(run_dir, config)
        training = Training(config, run_dir, asked.seed, asked.counts, device, progress, monitor)
        monitor.training = training
        if not processes.is_leader():
            processes.follow([work for _, work in _work(training)], device)
            return run_dir, True
        index, *ordinary = pipeline.clustering_stages()
        stages = _phase_stages(training)
        taught = stages[-1:] if training.is_taught else []
        pipeline.run(asked, run_dir, [index, *stages[: len(stages) - len(taught)]], progress)
        for stage in taught:
            if not pipeline.is_done(asked, run_dir, stage):
                pipeline.run(_teaching(asked, training), run_dir, ordinary, progress)
            pipeline.run(asked, run_dir, [stage], progress)
        processes.call(processes.END, device)
    _keep_encoder(run_dir, training, training.phases()[-1])
    asked, onward = _onward(asked, training)
    pipeline.run(asked, run_dir, onward, progress)
    if request.report:
        show.write(run_dir, config, training.pixels, request.seed)
        pipeline.run(asked, run_dir, pipeline.report_stages(), progress)
    return run_dir, True


def show_views(request: TrainRequest, progress: Progress) -> Path:
    """Draw the recipe's views of a few images of the source into RUN/report/views.png, and return its path."""
    config = recipe.load(request.recipe, request.changes)
    asked, run_dir = prepare(request, config, progress)
    pipeline.run(asked, run_dir, pipeline.clustering_stages()[:1], progress)
    return show.write(run_dir, config, open_pixels(run_dir, config.data, progress), request.seed)


def prepare(request: TrainRequest, config: TrainConfig, progress: Progress) -> tuple[ClusterConfig, RunDir]:
    """What the ordinary stages are asked for, and where the run lies. A data set's name becomes a table of images."""
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
    run_dir = RunDir(request.out or Path(pipeline.default_name(asked)))
    weights = run_dir.train / ENCODER
    return dataclasses.replace(asked, backbone=full_name(config.encoder.name), weights=str(weights)), run_dir


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
    work = {PRETEXT: training.learn_pretext, SCAN: training.learn_scan, SELFLABEL: training.learn_selflabel}

    def keeping(learn: Callable[[], None]) -> Callable[[], None]:
        def learn_and_keep() -> None:
            with freed_memory.kept():
                learn()

        return learn_and_keep

    return [(phase, keeping(work[phase])) for phase in training.phases()]


def _phase_stages(training: Training) -> list[Stage]:
    """The phases as stages of the pipeline; the other processes are called to each."""
    return [
        _phase_stage(training, phase, work, number, training.phases()[:number][-1:])
        for number, (phase, work) in enumerate(_work(training))
    ]


def _phase_stage(training: Training, phase: str, work: Callable[[], None], number: int, before: list[str]) -> Stage:
    def run(config: ClusterConfig, run_dir: RunDir, progress: Progress) -> StageResult:
        atomic.write_json(run_dir.train / "recipe.json", training.config.to_json())
        processes.call(number, training.device)
        work()
        path = training.outcome(phase)
        return StageResult(digest_file(path), Outcome.load(path).facts)

    def key(config: ClusterConfig) -> dict[str, Any]:
        return {**training.asked(phase), "seed": training.seed}

    # Of the index too: a pretext task of no epochs leaves the same whatever the images are.
    return Stage(phase, run, key, lambda run_dir: training.outcome(phase), ("index", *before))


def _onward(asked: ClusterConfig, training: Training) -> tuple[ClusterConfig, list[Stage]]:
    """From the learned encoder to clusters: the ordinary stages, but for clusters that a trained head tells."""
    _, embed, neighbours, cluster = pipeline.clustering_stages()
    last = training.phases()[-1]
    outcome = Outcome.load(training.outcome(last))
    head = outcome.head
    if head is None:
        return _teaching(asked, training) if training.is_taught else asked, [embed, neighbours, cluster]

    def run(config: ClusterConfig, run_dir: RunDir, progress: Progress) -> StageResult:
        return clusters.write(run_dir, head, config.seed, last, str(outcome.facts["why"]))

    told = Stage("cluster", run, lambda config: {"told by": last}, cluster.made, ("embed", last))
    return asked, [embed, neighbours, told]


def _keep_encoder(run_dir: RunDir, training: Training, last: str) -> None:
    """The last phase's encoder, where `--weights` finds it."""
    target = run_dir.train / ENCODER
    made = training.outcome(last)
    if not target.is_file() or digest_file(target) != digest_file(made):
        with atomic.replacing(target) as temporary:
            shutil.copyfile(made, temporary)


def _is_finished(
    request: TrainRequest, config: TrainConfig, asked: ClusterConfig, run_dir: RunDir, progress: Progress
) -> bool:
    """Would the same request find nothing to do, as long as the images are the same?"""
    training = Training(config, run_dir, asked.seed, asked.counts, torch.device("cpu"), progress)
    if not all(pipeline.is_done(asked, run_dir, stage) for stage in _phase_stages(training)):
        return False
    if not (run_dir.train / ENCODER).is_file():
        return False
    asked, onward = _onward(asked, training)
    done = all(pipeline.is_done(asked, run_dir, stage) for stage in onward)
    return done and (not request.report or pipeline.is_done(asked, run_dir, pipeline.report_stages()[-1]))
