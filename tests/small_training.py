"""Tiny real trainings for tests: a few coloured images, an encoder of a few thousand weights."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from shoal.train import draws, evidence, pretext, recipe, scan, selflabel, teacher
from shoal.train.config import DataConfig, TrainConfig
from shoal.train.encoders import Clusterer, ClusterHeads
from shoal.train.loop import Phase, Settings
from shoal.train.pixels import Pixels
from shoal.train.precision import Precision

SIZE = 12
COLOURS = ((0.5, 0.5, 0.5), (0.25, 0.25, 0.25))
PRECISION = Precision(torch.device("cpu"), torch.float32)
CHANGES = [
    f"data.size={SIZE}",
    "pretext.epochs=3",
    "pretext.loop.batch=16",
    "pretext.start_side=1",
    "pretext.end_side=1",
    "pretext.queue=32",
    "pretext.head.hidden=null",
    "pretext.head.dim=8",
    "scan.epochs=3",
    "scan.loop.batch=16",
    "scan.heads=3",
    "scan.cached_views=2",
    "scan.standardise=false",
    "selflabel.epochs=2",
    "selflabel.loop.batch=16",
]


class TinyEncoder(nn.Module):
    """BatchNorm and a convolution: enough to have state that resuming must keep."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1, bias=False), nn.BatchNorm2d(8), nn.ReLU())
        self.dim = 8

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.layers(images).mean((2, 3))


def config(*changes: str) -> TrainConfig:
    return recipe.load("cpu-small", [*CHANGES, *changes])


def pixels(count: int = 60, seed: int = 0) -> Pixels:
    """Three kinds of images by colour, with noise."""
    rng = np.random.default_rng(seed)
    kinds = np.arange(count) % 3
    colours = np.array([[220, 60, 40], [50, 200, 60], [40, 70, 210]])[kinds]
    values = colours[:, None, None, :] + rng.normal(0, 30, (count, SIZE, SIZE, 3))
    kept = np.clip(values, 0, 255).astype(np.uint8)
    return Pixels(np.arange(count), DataConfig(size=SIZE), kept)


def settings(recipe_: TrainConfig, phase: str, minutes: float = 0.0) -> Settings:
    """Of a phase of a recipe; by default with a checkpoint after every step."""
    import dataclasses

    section = getattr(recipe_, phase)
    loop = dataclasses.replace(section.loop, checkpoint_minutes=minutes)
    return Settings(section.epochs, loop, section.optimiser, section.schedule, 0, PRECISION, "a key")


def build(kind: str, recipe_: TrainConfig, images: Pixels) -> Phase:
    """A phase with fresh weights: simclr, moco, rotnet, scan-frozen, scan-tuned, selflabel or taught."""
    with draws.seeded(PRECISION.device, 0, "weights"):
        encoder = TinyEncoder()
        if kind in ("simclr", "moco", "rotnet"):
            return pretext.build(recipe_.pretext, encoder, images, COLOURS, PRECISION)
        features = torch.from_numpy(images.kept.astype(np.float32).mean((1, 2)) / 255)
        anchors, neighbours, held_out = evidence.split(
            features, torch.arange(len(features)), 0.2, 5, 0, PRECISION.device
        )
        if kind == "selflabel":
            network = Clusterer(encoder, ClusterHeads(8, 3, 1))
            return selflabel.SelfLabel(
                recipe_.selflabel, network, images, torch.arange(len(images)), held_out, COLOURS, PRECISION
            )
        if kind == "taught":
            labels, sure = torch.arange(len(images)) % 3, torch.rand(len(images))
            labels[:6] = 0  # some of them wrong
            return selflabel.Taught(
                recipe_.selflabel,
                Clusterer(encoder, ClusterHeads(8, 3, 1)),
                images,
                teacher.Teacher(torch.arange(len(images)), labels, sure, 3, "", ""),
                held_out,
                COLOURS,
                PRECISION,
            )
        if kind == "scan-tuned":
            return scan.TunedScan(recipe_.scan, 3, anchors, neighbours, held_out, encoder, images, COLOURS, PRECISION)
        views = torch.stack([features, features + 0.01])
        return scan.FrozenScan(
            recipe_.scan, 3, anchors, neighbours, held_out, views, features[held_out.positions], PRECISION.device
        )
