"""The phases of a training one after another: pretext task, SCAN, self-labelling. Each leaves an outcome in train/."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from shoal.cluster.number.choose_k import choose
from shoal.config import ClusterCounts
from shoal.encoder.architectures import Whitened
from shoal.errors import ConfigError, TooFewImagesError
from shoal.progress import Progress
from shoal.rundir import RunDir, digest_file, digest_of
from shoal.train import checkpoint, draws, encoders, evidence, pretext, scan, selflabel, views
from shoal.train.checkpoint import Position
from shoal.train.config import PLAIN, DataConfig, LoopConfig, OptimiserConfig, ScheduleConfig, TrainConfig
from shoal.train.encoders import Clusterer, ClusterHeads, Head
from shoal.train.evidence import HeldOut
from shoal.train.features import encode, mine, standardised
from shoal.train.gather import rank
from shoal.train.loop import Phase, Settings, train
from shoal.train.outcome import Outcome, metadata
from shoal.train.pixels import Pixels
from shoal.train.precision import Precision
from shoal.train.pretext import Colours, Monitor
from shoal.train.teacher import Teacher

PRETEXT, SCAN, SELFLABEL = "pretext", "scan", "selflabel"
LEAST_IMAGES = 4  # for scan: two to learn from, two to judge by
EMBEDDED_ARCHITECTURE = "tf_efficientnet_lite0"  # by timm's name
SOME_CLUSTERS = 20  # by which encoders are compared where nobody said how many


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


FEATURES = "train/features.safetensors"  # by which neighbours were mined


def outcome_name(phase: str) -> str:
    """Of the file that a phase leaves."""
    return f"train/{phase}/outcome.safetensors"


@dataclass(frozen=True)
class Training:
    """A recipe on the images of a run. Every process of a training has one of these."""

    config: TrainConfig
    run_dir: RunDir
    seed: int
    clusters: ClusterCounts  # as --clusters says; the recipe's own number comes first only where that is auto
    device: torch.device
    progress: Progress
    open_pixels: Callable[[RunDir, DataConfig, Progress], Pixels]
    monitor: Monitor | None = None

    # -- what the phases share ---------------------------------------------------------------------------------------

    @property
    def folder(self) -> Path:
        return self.run_dir.train

    def outcome(self, phase: str) -> Path:
        return self.run_dir.path(outcome_name(phase))

    @cached_property
    def pixels(self) -> Pixels:
        return self.open_pixels(self.run_dir, self.config.data, self.progress)

    @cached_property
    def colours(self) -> Colours:
        return self.pixels.colours()

    @cached_property
    def chosen(self) -> Tensor:
        """Positions of the images that clusters are learned from, int64 [n].

        Raises:
            ConfigError: the recipe names some, and there are none such.
        """
        begin = self.config.scan.images
        if begin is None:
            return torch.arange(len(self.pixels))
        images = self.run_dir.read_images(["id", "path"])
        paths = dict(zip(images["id"].to_pylist(), images["path"].to_pylist(), strict=True))
        found = [place for place, image in enumerate(self.pixels.ids.tolist()) if paths[image].startswith(begin)]
        if not found:
            raise ConfigError(
                f"scan.images has value {begin!r}, but no usable image's path begins so; expected the beginning of "
                "some paths, or null for all images"
            )
        return torch.tensor(found)

    def plain(self, images: Tensor) -> Tensor:
        """Images as they are, normalised."""
        return views.Views(PLAIN, self.config.data.size, *self.colours)(images, torch.Generator(self.device))

    def settings(self, section: Any, phase: str, inputs: str) -> Settings:
        loop: LoopConfig = section.loop
        optimiser: OptimiserConfig = section.optimiser
        schedule: ScheduleConfig = section.schedule
        asked = digest_of(phase, self.asked(phase), self.seed, inputs)
        return Settings(
            section.epochs, loop, optimiser, schedule, self.seed, Precision.of(self.device, loop.precision), asked
        )

    def asked(self, phase: str) -> dict[str, Any]:
        """What makes a phase's outcome stale: its own section of the recipe, and those it builds on."""
        recipe = self.config.to_json()
        found = {name: recipe[name] for name in ("encoder", "data", "neighbours", PRETEXT)}
        if phase in (SCAN, SELFLABEL):
            found |= {SCAN: recipe[SCAN], "clusters": self.clusters.values}
        if phase == SELFLABEL:
            found |= {SELFLABEL: recipe[SELFLABEL], "version": 3}  # raised when the same settings leave something else
        if not self.leaves_features:
            found["features"] = False
        weights = self.config.encoder.weights
        return {**found, "weights": digest_file(encoders.weights_file(weights)) if weights else None}

    # -- phases ------------------------------------------------------------------------------------------------------

    def learn_pretext(self) -> None:
        """The encoder, by the pretext task; with no epochs, as it starts (from its weights), but for a whitening.

        Where it starts from weights, what it learned is kept only if it tells the images apart better than before.

        Raises:
            ConfigError, TooFewImagesError: scan could not be done after it; told before hours are spent.
        """
        if self.config.pretext.epochs == 0 and self.config.encoder.weights is None:
            raise ConfigError("pretext.epochs is 0 and encoder.weights is not set; expected one of the two")
        if self.config.encoder.frozen and self.config.encoder.weights is None:
            raise ConfigError("encoder.frozen is set, but encoder.weights is not: those parts would stay as drawn")
        with draws.seeded(self.device, self.seed, PRETEXT, "weights"):
            encoder = encoders.encoder(self.config.encoder)
            self._require_room(int(encoder.dim))  # type: ignore[arg-type]
            settings = self.settings(self.config.pretext, PRETEXT, self._inputs())
            phase = pretext.build(
                self.config.pretext, encoder, self.pixels, self.colours, settings.precision, self.monitor
            )
        position = train(phase, settings, self.folder, self.progress)
        facts: dict[str, Any] = {"epochs": position.epoch, "images": len(self.pixels)}
        result = phase.encoder
        if not self.leaves_features:
            self._write(PRETEXT, Outcome.of(result, None, facts))
            return
        both = self._features(_SideBySide(phase.network), settings.precision)
        seen, projections = both.tensor_split([int(result.dim)], dim=1)  # type: ignore[arg-type]
        features = _settled(result, seen)
        near = projections if self.config.neighbours.features == "projection" else features
        if self.config.encoder.weights is not None and self.config.pretext.epochs > 0:
            before = encoders.encoder(self.config.encoder).to(self.device)
            earlier = _settled(before, self._features(before, settings.precision))
            facts |= self._compared(earlier, features)
            if not facts["kept"]:
                result, near = before, earlier
        if rank() == 0:
            checkpoint.write_tensors(self.run_dir.new(FEATURES), {"features": near.contiguous()})
        self._write(PRETEXT, Outcome.of(result, None, facts))

    def learn_scan(self) -> None:
        """Clusters, by neighbours of the features that the pretext task left.

        Raises:
            CollapseError: all images went into one cluster.
            TooFewImagesError: fewer images than clusters.
        """
        config = self.config.scan
        features = checkpoint.read_tensors(self.run_dir.path(FEATURES))["features"]
        clusters, words = self._number_of_clusters(features[self.chosen])
        anchors, neighbours, held_out = self._split(features)
        encoder = self._encoder(PRETEXT)
        settings = self.settings(config, SCAN, digest_of(self._digest(PRETEXT), self._inputs()))
        precision = settings.precision
        with draws.seeded(self.device, self.seed, SCAN, "weights"):
            phase: scan.TunedScan | scan.FrozenScan
            if config.tune_encoder:
                phase = scan.TunedScan(
                    config, clusters, anchors, neighbours, held_out, encoder, self.pixels, self.colours, precision
                )
            else:
                encoder.to(self.device)
                views = scan.view_features(
                    encoder, config, self.pixels, self.colours, precision, self.seed, self.progress
                )
                plain = encode(encoder, self.pixels, held_out.positions, self.plain, precision)
                phase = scan.FrozenScan(config, clusters, anchors, neighbours, held_out, views, plain, self.device)
        position = train(phase, settings, self.folder, self.progress)
        self._take_best(phase, settings, position)
        chosen = phase.head(phase.best_head())
        if isinstance(phase, scan.TunedScan):
            encoder = phase.encoder
        facts = {"clusters": clusters, "why": words, "best_epoch": position.best_epoch, "loss": position.best}
        self._write(SCAN, Outcome.of(encoder, chosen, facts))

    def learn_selflabel(self) -> None:
        """The clusters sharpened; kept only if neighbours then agree better than before.

        After scan the network teaches itself; else the run's clusters, as the ordinary stages made them, teach it. The
        neighbours are those that the encoder saw before, under stronger views: of the very features that told the
        earlier clusters, they would flatter those.
        """
        config = self.config.selflabel
        precision = Precision.of(self.device, config.loop.precision)
        start = self._taught(precision) if self.is_taught else self._teaching_itself(precision)
        if start is None:
            return
        phase, judge = start.phase, start.judge
        settings = self.settings(config, SELFLABEL, start.inputs)
        position = train(phase, settings, self.folder, self.progress)
        self._take_best(phase, settings, position)
        logits = phase.logits(judge.positions)
        then = evidence.agreement(start.before, judge.neighbours, logits.shape[1])
        now = judge.agreement(logits)
        kept = now > then
        facts = {**start.earlier.facts, "agreement_before": then, "agreement": now, "kept": kept}
        if not kept:
            self.progress.say(
                f"Self-labelling left neighbours agreeing less than before ({now:.4f}, before {then:.4f}): the earlier "
                "clusters stay"
            )
            self._write(SELFLABEL, dataclasses.replace(start.earlier, facts=facts))
            return
        head = selflabel.calibrated(phase.head(), logits, start.before)
        encoder: Any = phase.result.encoder
        self._write(SELFLABEL, Outcome.of(encoder, head, facts | {"best_epoch": position.best_epoch}))

    def phases(self) -> list[str]:
        """Those the recipe has, in order."""
        found = [PRETEXT]
        if self.config.scan.epochs > 0:
            found.append(SCAN)
        if self.config.selflabel.epochs > 0:
            found.append(SELFLABEL)
        return found

    @property
    def is_taught(self) -> bool:
        """Do clusters that the ordinary stages make teach the encoder?"""
        return self.config.scan.epochs == 0 and self.config.selflabel.epochs > 0

    @property
    def starts_embedded(self) -> bool:
        """Is the encoder, until self-labelling, the embedded backbone as it comes?"""
        encoder = self.config.encoder
        is_embedded = encoder.weights == encoders.EMBEDDED and encoder.name == EMBEDDED_ARCHITECTURE
        return is_embedded and self.config.pretext.epochs == 0

    @property
    def leaves_features(self) -> bool:
        """Does the pretext task leave features of all images at the size of the views, for what comes after?"""
        return not (self.is_taught and self.starts_embedded)

    # -- pieces ------------------------------------------------------------------------------------------------------

    def _features(self, network: nn.Module, precision: Precision) -> Tensor:
        everything = torch.arange(len(self.pixels))
        return encode(network, self.pixels, everything, self.plain, precision, self.progress)

    def _taught(self, precision: Precision) -> _Start | None:
        """Clusters of the ordinary stages teach. None if the encoder cannot have as many; they stay then."""
        teacher = Teacher.of(self.run_dir, self.pixels.ids)
        facts: dict[str, Any] = {"clusters": teacher.clusters, "why": teacher.why}
        earlier = dataclasses.replace(Outcome.load(self.outcome(PRETEXT)), facts=facts)
        encoder = self._encoder(PRETEXT)
        dim = int(encoder.dim)  # type: ignore[arg-type]
        if not 2 <= teacher.clusters <= dim:
            self.progress.say(
                f"Self-labelling was left out: {teacher.clusters} clusters, and it takes from 2 to {dim}, the "
                "dimensions of the encoder's features"
            )
            self._write(SELFLABEL, dataclasses.replace(earlier, facts=facts | {"kept": False}))
            return None
        encoder.to(self.device)
        fitted = evidence.some(len(teacher.labels), self.seed, selflabel.PROBE_IMAGES)
        features = encode(encoder, self.pixels, teacher.positions[fitted], self.plain, precision, self.progress)
        network = _clusterer(encoder, selflabel.probe(features, teacher.labels[fitted], teacher.clusters))
        judged = evidence.some(len(teacher.labels), self.seed)
        judge = self._seen_strongly(encoder, teacher.positions[judged], precision)
        config = self.config.selflabel
        phase = selflabel.Taught(config, network, self.pixels, teacher, judge, self.colours, precision)
        return _Start(phase, judge, earlier, teacher.labels[judged], teacher.digest)

    def _teaching_itself(self, precision: Precision) -> _Start:
        """What scan left goes on."""
        earlier = Outcome.load(self.outcome(SCAN))
        assert earlier.head is not None
        network = _clusterer(self._encoder(SCAN), earlier.head)
        some = self.chosen[evidence.some(len(self.chosen), self.seed)]
        judge = self._seen_strongly(network.encoder, some, precision)
        config = self.config.selflabel
        phase = selflabel.SelfLabel(config, network, self.pixels, self.chosen, judge, self.colours, precision)
        return _Start(phase, judge, earlier, phase.logits(some).argmax(dim=1), self._digest(SCAN))

    def _seen_strongly(self, encoder: nn.Module, positions: Tensor, precision: Precision) -> HeldOut:
        """Images with the neighbours that they have under one view each, stronger than those that are learned from."""
        strong = self.config.selflabel.strong
        operations, cutout = min(views.OPERATIONS, 2 * strong.operations), round(1.5 * strong.cutout)
        stronger = dataclasses.replace(strong, operations=operations, cutout=cutout)
        shown = views.Views(stronger, self.config.data.size, *self.colours)
        random = draws.generator(self.device, self.seed, SELFLABEL, "judge", rank())
        seen = encode(encoder.to(self.device), self.pixels, positions, lambda images: shown(images, random), precision)
        return HeldOut(positions, mine(seen, self.config.neighbours.k, self.device))

    def _compared(self, earlier: Tensor, now: Tensor) -> dict[str, Any]:
        """What tells whether an encoder's features became better by the pretext task than its weights gave."""
        clusters, k = self._clusters_asked_for() or SOME_CLUSTERS, self.config.neighbours.k
        before, after = evidence.crosswise(earlier, now, clusters, k, self.seed, self.device)
        if after <= before:
            self.progress.say(
                f"The pretext task made the encoder worse ({after:.4f} of an image's neighbours told by its cluster, "
                f"before {before:.4f}): the weights it started from stay"
            )
        return {"agreement_before": before, "agreement": after, "kept": after > before}

    def _number_of_clusters(self, features: Tensor) -> tuple[int, str]:
        """--clusters, or the recipe's, or the number that k-means on the features finds best; and why."""
        asked = self._clusters_asked_for()
        if asked is None:
            found = choose(standardised(features), self.clusters, self.seed)
            return found.chosen.k, found.sentence
        return (
            asked,
            f"{asked} clusters were asked for" if self.clusters.is_fixed else f"the recipe has {asked} clusters",
        )

    def _clusters_asked_for(self) -> int | None:
        """By --clusters, or else by the recipe; None if the number is to be found."""
        if self.clusters.is_fixed:
            return self.clusters.values[0]
        return self.config.scan.clusters if self.clusters.is_auto else None

    def _require_room(self, dim: int) -> None:
        """Are there images, and dimensions of the features, for as many clusters as will be made?"""
        asked = self._clusters_asked_for() or min(self.clusters.values, default=2)
        by_scan = self.config.scan.epochs > 0
        images, least = len(self.chosen if by_scan else self.pixels), max(asked, LEAST_IMAGES if by_scan else 2)
        if images < least:
            raise TooFewImagesError(
                f"{images} usable images are fewer than {least}, which {'scan' if by_scan else 'clustering'} needs"
            )
        if self.is_taught and self._clusters_asked_for() and asked > dim:
            raise ConfigError(
                f"--clusters has value {asked}; expected at most {dim}, the dimensions of the encoder's features, for "
                "self-labelling"
            )
        if by_scan and asked > dim:
            raise ConfigError(
                f"scan.clusters has value {asked}; expected at most {dim}, the dimensions of the encoder's features"
            )

    def _split(self, features: Tensor) -> tuple[Tensor, Tensor, HeldOut]:
        config = self.config
        return evidence.split(features, self.chosen, config.scan.held_out, config.neighbours.k, self.seed, self.device)

    def _encoder(self, phase: str) -> nn.Module:
        """The encoder that a phase left."""
        encoder = encoders.encoder(dataclasses.replace(self.config.encoder, weights=None))
        encoder.load_state_dict(Outcome.load(self.outcome(phase)).encoder)
        return encoder

    def _take_best(self, phase: Phase, settings: Settings, position: Position) -> None:
        """Put the best epoch's weights in place of the last's, if the phase chooses one."""
        if position.best_epoch is not None:
            checkpoint.restore(self.folder / phase.name, checkpoint.BEST, settings.key, phase.kept, None)

    def _write(self, phase: str, outcome: Outcome) -> None:
        if rank() == 0:
            outcome.save(self.run_dir.new(outcome_name(phase)), metadata(self.config, self.colours))

    def _inputs(self) -> str:
        """What the pretext task depends on besides the recipe: which images there are."""
        record = self.run_dir.stage("index")
        return str(record["digest"]) if record else ""

    def _digest(self, phase: str) -> str:
        """Of what a phase left."""
        record = self.run_dir.stage(phase)
        return str(record["digest"]) if record else ""


class _SideBySide(nn.Module):
    """A Projector whose features and projections are the columns of one matrix: one pass gives both."""

    def __init__(self, projector: nn.Module) -> None:
        super().__init__()
        self.projector = projector
        self.training = projector.training

    def forward(self, images: Tensor) -> Tensor:
        return torch.cat(self.projector(images), dim=1)


def _settled(encoder: nn.Module, features: Tensor) -> Tensor:
    """An encoder's features of all images; one that whitens them is fitted to them."""
    return encoder.whitening.fit(features) if isinstance(encoder, Whitened) else features


def _clusterer(encoder: nn.Module, head: Head) -> Clusterer:
    heads = ClusterHeads(head.weight.shape[0], head.weight.shape[1], 1)
    with torch.no_grad():
        heads.weight.copy_(head.weight[None])
        heads.bias.copy_(head.bias[None, None])
    return Clusterer(encoder, heads)
