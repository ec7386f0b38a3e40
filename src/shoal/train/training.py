"""A recipe on the images of a run: what the phases of its training share, and where each leaves its outcome."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from shoal.config import ClusterCounts
from shoal.errors import ConfigError
from shoal.progress import Progress
from shoal.rundir import RunDir, digest_file, digest_of
from shoal.train import encoders, views
from shoal.train.config import PLAIN, DataConfig, LoopConfig, OptimiserConfig, ScheduleConfig, TrainConfig
from shoal.train.features import encode
from shoal.train.gather import rank
from shoal.train.loop import Settings
from shoal.train.outcome import Outcome, metadata
from shoal.train.pixels import Pixels
from shoal.train.precision import Precision
from shoal.train.pretext import Colours, Monitor

PRETEXT, SCAN, SELFLABEL = "pretext", "scan", "selflabel"
FEATURES = "train/features.safetensors"  # by which neighbours were mined
EMBEDDED_ARCHITECTURE = "tf_efficientnet_lite0"  # by timm's name


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
        """How the loop trains a phase, by its section of the recipe; `inputs` is a digest of what it learns from."""
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

    # -- which phases there are ----------------------------------------------------------------------------------------

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

    # -- what they leave -----------------------------------------------------------------------------------------------

    def encoder(self, phase: str) -> nn.Module:
        """The encoder that a phase left."""
        encoder = encoders.encoder(dataclasses.replace(self.config.encoder, weights=None))
        encoder.load_state_dict(Outcome.load(self.outcome(phase)).encoder)
        return encoder

    def write(self, phase: str, outcome: Outcome) -> None:
        """Leave what a phase learned; the first process does."""
        if rank() == 0:
            outcome.save(self.run_dir.new(outcome_name(phase)), metadata(self.config, self.colours))

    def inputs(self) -> str:
        """What the pretext task depends on besides the recipe: which images there are."""
        record = self.run_dir.stage("index")
        return str(record["digest"]) if record else ""

    def digest(self, phase: str) -> str:
        """Of what a phase left."""
        record = self.run_dir.stage(phase)
        return str(record["digest"]) if record else ""

    def features(self, network: nn.Module, precision: Precision) -> Tensor:
        """What a network makes of all images as they are, float32 [n, ...] on the CPU."""
        everything = torch.arange(len(self.pixels))
        return encode(network, self.pixels, everything, self.plain, precision, self.progress)
