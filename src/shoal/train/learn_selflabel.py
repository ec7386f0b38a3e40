"""The last phase of a training: clusters sharpened by what is sure of them."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from shoal.train import draws, evidence, selflabel, views
from shoal.train.encoders import Clusterer, ClusterHeads, Head
from shoal.train.evidence import HeldOut
from shoal.train.features import encode, mine
from shoal.train.gather import rank
from shoal.train.loop import take_best, train
from shoal.train.outcome import Outcome
from shoal.train.precision import Precision
from shoal.train.teacher import Teacher
from shoal.train.training import PRETEXT, SCAN, SELFLABEL, Training


@dataclass(frozen=True, slots=True, eq=False)
class _Start:
    """Self-labelling about to begin.

    Attributes:
        judge: images with the neighbours that clusters are judged by, before and after.
        earlier: what stays if they are not better.
        before: the earlier clusters of the judge's images, int64 [m].
        inputs: a digest of what is learned from.
    """

    phase: selflabel.SelfLabel | selflabel.Taught
    judge: HeldOut
    earlier: Outcome
    before: Tensor
    inputs: str


def learn(training: Training) -> None:
    """The clusters sharpened; kept only if neighbours then agree better than before.

    After scan the network teaches itself; else the run's clusters, as the ordinary stages made them, teach it. The
    neighbours are those that the encoder saw before, under stronger views: of the very features that told the
    earlier clusters, they would flatter those.
    """
    config = training.config.selflabel
    precision = Precision.of(training.device, config.loop.precision)
    start = _taught(training, precision) if training.is_taught else _teaching_itself(training, precision)
    if start is None:
        return
    phase, judge = start.phase, start.judge
    settings = training.settings(config, SELFLABEL, start.inputs)
    position = train(phase, settings, training.folder, training.progress)
    take_best(phase, settings, training.folder, position)
    logits = phase.logits(judge.positions)
    then = evidence.agreement(start.before, judge.neighbours, logits.shape[1])
    now = judge.agreement(logits)
    kept = now > then
    facts = {**start.earlier.facts, "agreement_before": then, "agreement": now, "kept": kept}
    if not kept:
        training.progress.say(
            f"Self-labelling left neighbours agreeing less than before ({now:.4f}, before {then:.4f}): the earlier "
            "clusters stay"
        )
        training.write(SELFLABEL, dataclasses.replace(start.earlier, facts=facts))
        return
    head = selflabel.calibrated(phase.head(), logits, start.before)
    encoder: Any = phase.result.encoder
    training.write(SELFLABEL, Outcome.of(encoder, head, facts | {"best_epoch": position.best_epoch}))


def _taught(training: Training, precision: Precision) -> _Start | None:
    """Clusters of the ordinary stages teach. None if the encoder cannot have as many; they stay then."""
    teacher = Teacher.of(training.run_dir, training.pixels.ids)
    facts: dict[str, Any] = {"clusters": teacher.clusters, "why": teacher.why}
    earlier = dataclasses.replace(Outcome.load(training.outcome(PRETEXT)), facts=facts)
    encoder = training.encoder(PRETEXT)
    dim = int(encoder.dim)  # type: ignore[arg-type]
    if not 2 <= teacher.clusters <= dim:
        training.progress.say(
            f"Self-labelling was left out: {teacher.clusters} clusters, and it takes from 2 to {dim}, the "
            "dimensions of the encoder's features"
        )
        training.write(SELFLABEL, dataclasses.replace(earlier, facts=facts | {"kept": False}))
        return None
    encoder.to(training.device)
    fitted = evidence.some(len(teacher.labels), training.seed, selflabel.PROBE_IMAGES)
    features = encode(encoder, training.pixels, teacher.positions[fitted], training.plain, precision, training.progress)
    network = _clusterer(encoder, selflabel.probe(features, teacher.labels[fitted], teacher.clusters))
    judged = evidence.some(len(teacher.labels), training.seed)
    judge = _seen_strongly(training, encoder, teacher.positions[judged], precision)
    config = training.config.selflabel
    phase = selflabel.Taught(config, network, training.pixels, teacher, judge, training.colours, precision)
    return _Start(phase, judge, earlier, teacher.labels[judged], teacher.digest)


def _teaching_itself(training: Training, precision: Precision) -> _Start:
    """What scan left goes on."""
    earlier = Outcome.load(training.outcome(SCAN))
    assert earlier.head is not None
    network = _clusterer(training.encoder(SCAN), earlier.head)
    some = training.chosen[evidence.some(len(training.chosen), training.seed)]
    judge = _seen_strongly(training, network.encoder, some, precision)
    config = training.config.selflabel
    phase = selflabel.SelfLabel(config, network, training.pixels, training.chosen, judge, training.colours, precision)
    return _Start(phase, judge, earlier, phase.logits(some).argmax(dim=1), training.digest(SCAN))


def _seen_strongly(training: Training, encoder: nn.Module, positions: Tensor, precision: Precision) -> HeldOut:
    """Images with the neighbours that they have under one view each, stronger than those that are learned from."""
    strong = training.config.selflabel.strong
    operations, cutout = min(views.OPERATIONS, 2 * strong.operations), round(1.5 * strong.cutout)
    stronger = dataclasses.replace(strong, operations=operations, cutout=cutout)
    shown = views.Views(stronger, training.config.data.size, *training.colours)
    random = draws.generator(training.device, training.seed, SELFLABEL, "judge", rank())
    seen = encode(
        encoder.to(training.device), training.pixels, positions, lambda images: shown(images, random), precision
    )
    return HeldOut(positions, mine(seen, training.config.neighbours.k, training.device))


def _clusterer(encoder: nn.Module, head: Head) -> Clusterer:
    heads = ClusterHeads(head.weight.shape[0], head.weight.shape[1], 1)
    with torch.no_grad():
        heads.weight.copy_(head.weight[None])
        heads.bias.copy_(head.bias[None, None])
    return Clusterer(encoder, heads)
