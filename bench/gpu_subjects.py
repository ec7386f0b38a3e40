"""What `gpu.py` measures: encoders, phases of training with each loss, and images, the same on every device."""

from __future__ import annotations

import dataclasses
import itertools
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import gpu_recipe
from gpu_bench import Bench
from shoal.encoder import embedded, rebuilt
from shoal.encoder.networks import Encoder
from shoal.encoder.spec import EncoderSpec
from shoal.encoder.weights import EMBEDDED
from shoal.train import draws, encoders, evidence, pretext, recipe, scan, schedule, selflabel, teacher
from shoal.train.config import TrainConfig
from shoal.train.encoders import Clusterer, ClusterHeads
from shoal.train.pixels import Pixels
from shoal.train.precision import Precision


def networks(bench: Bench) -> dict[str, tuple[Any, EncoderSpec]]:
    """The embedded backbone in torch with its weights, and resnet18-cifar with weights drawn."""
    weights = bench.data / EMBEDDED.file
    made = embedded.find("default", "crop", weights if weights.is_file() else None)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "encoder.safetensors"
        made.save(file)
        encoder, spec = rebuilt.rebuild(made.spec, file)
    with draws.seeded(torch.device("cpu"), 0, "weights"):
        small = encoders.architectures.build("resnet18-cifar")
    small_spec = dataclasses.replace(
        spec, backbone="resnet18-cifar", architecture="shoal:resnet18-cifar", dim=512, size=32
    )
    images = normalised(torch.from_numpy(pictures(bench, 64 if bench.on_gpu else 16, 32)), small_spec)
    with torch.no_grad():  # statistics of real images: with those it starts with, features say little
        for _ in range(20 if bench.on_gpu else 3):
            small.train()(images)
    small.eval()
    return {"embedded": (encoder, spec), "resnet18-cifar": (Encoder(small, "default"), small_spec)}


def normalised(pixels: Tensor, spec: EncoderSpec) -> Tensor:
    """uint8 [n, s, s, 3] as the encoder takes it, float32 [n, 3, s, s]."""
    mean, std = (torch.tensor(numbers).view(1, 3, 1, 1) for numbers in (spec.mean, spec.std))
    return (pixels.permute(0, 3, 1, 2).float() / 255 - mean) / std


def pictures(bench: Bench, count: int, size: int) -> np.ndarray:
    """Test images, enlarged if need be, uint8 [count, size, size, 3]."""
    _, _, test, _ = gpu_recipe.pictures(bench.data, count)
    images = torch.from_numpy(test).permute(0, 3, 1, 2).float()
    if size != images.shape[2]:
        images = nn.functional.interpolate(images, (size, size), mode="bicubic").clamp(0, 255)
    return np.ascontiguousarray(images.round().to(torch.uint8).permute(0, 2, 3, 1).numpy())


def config_of(kind: str, batch: int) -> TrainConfig:
    """The recipe with the loss that `kind` names."""
    name, _, variant = kind.partition(" ")
    changes = [f"pretext.loop.batch={batch}", f"scan.loop.batch={batch}", f"selflabel.loop.batch={batch}"]
    if name in ("moco", "rotnet"):
        changes += [f"pretext.task={name}", "pretext.queue=4096"]
    if variant in ("decoupled", "keras"):
        changes.append(f"{'pretext' if name == 'simclr' else 'scan'}.loss={variant}")
    if name == "scan":
        changes.append("scan.heads=2")
    # As drawn, a network is sure of nothing: all images are to be learned from.
    changes.append("selflabel.quota=0.5" if variant == "quota" or name == "taught" else "selflabel.threshold=0")
    return recipe.load("scan-cifar10", changes)


def phase_of(kind: str, count: int, precision: Precision, batch: int) -> Any:
    """A phase on `count` made images with the same weights, neighbours and labels on every device."""
    config = config_of(kind, batch)
    name = kind.partition(" ")[0]
    random = np.random.default_rng(0)
    kept = random.integers(0, 256, (count, 32, 32, 3), dtype=np.uint8)
    images = Pixels(np.arange(count), config.data, kept)
    assert config.data.mean is not None
    assert config.data.std is not None
    colours = config.data.mean, config.data.std
    everything, clusters = torch.arange(count), gpu_recipe.CLUSTERS
    neighbours = torch.from_numpy(random.integers(0, count, (count, 20)))
    held_out = evidence.HeldOut(torch.arange(16), torch.from_numpy(random.integers(0, 16, (16, 5))))
    with draws.seeded(torch.device("cpu"), 0, "weights"):
        if kind == "scan frozen":
            features = torch.randn(2, count, 512)
            return scan.FrozenScan(
                config.scan, clusters, everything, neighbours, held_out, features, features[0, :16], precision.device
            )
        encoder = encoders.encoder(config.encoder)
        if name == "scan":
            return scan.TunedScan(
                config.scan, clusters, everything, neighbours, held_out, encoder, images, colours, precision
            )
        if name in ("selflabel", "taught"):
            network = Clusterer(encoder, ClusterHeads(512, clusters, 1))
            if name == "selflabel":
                return selflabel.SelfLabel(config.selflabel, network, images, everything, held_out, colours, precision)
            labels, sure = torch.from_numpy(random.integers(0, clusters, count)), torch.rand(count)
            taught = teacher.Teacher(everything, labels, sure, clusters, "", "")
            return selflabel.Taught(config.selflabel, network, images, taught, held_out, colours, precision)
        return pretext.build(config.pretext, encoder, images, colours, precision)


def step_of(bench: Bench, phase: Any, section: Any, batch: int, network: Any = None) -> Callable[[], object]:
    """A whole step as the loop takes it: views, both passes, optimiser. Examples are loaded before."""
    optimiser = schedule.optimiser([phase.network], section.optimiser)
    network = phase.network if network is None else network
    phase.begin_epoch(0)
    phase.network.train()
    examples, number = phase.examples(torch.arange(batch), draws.generator("cpu", 0, "examples")), itertools.count()

    def step() -> None:
        random = draws.generator(bench.device, 0, "views", next(number))
        phase.losses(network, examples, random)["loss"].backward()
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
        phase.after_step()

    return step
