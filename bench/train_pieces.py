"""How fast the pieces of training are on this machine: views, the pretext step, SCAN on cached features.

    python bench/train_pieces.py [--encoders cpu-small resnet50v2] [--repeats 5]

Images are random; speed does not depend on what they show. Rates are images a second by the wall clock, and by
processor time (of all threads, divided by their number), which another process on the machine disturbs less.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import numpy as np
import torch

import machine
from shoal.cores import core_count
from shoal.train import dead_taps, draws, encoders, evidence, features, freed_memory, pretext, recipe, scan, schedule
from shoal.train.config import DataConfig, EncoderConfig, ViewConfig
from shoal.train.pixels import Pixels
from shoal.train.precision import Precision
from shoal.train.views import Views

SIZE = 32
COLOURS = ((0.5, 0.5, 0.5), (0.25, 0.25, 0.25))
RECIPES = {"cpu-small": "cpu-small", "resnet50v2": "keras-example", "resnet18-cifar": "scan-cifar10"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--encoders", nargs="*", default=["cpu-small"], choices=sorted(RECIPES))
    parser.add_argument("--repeats", type=int, default=5)
    asked = parser.parse_args()
    found = {f"views {kind}": rate(view_work(kind), 512, asked.repeats) for kind in ("simclr", "keras", "strong")}
    for name in asked.encoders:
        config = recipe.load(RECIPES[name])
        for size in (24, SIZE) if name == "cpu-small" else (SIZE,):
            batch = config.pretext.loop.batch
            found[f"pretext step, {name} at {size}"] = rate(pretext_work(name, size, batch), batch, asked.repeats)
    found["frozen scan, 60,000 images, 1 head, an epoch"] = rate(scan_work(), 60_000, 2)
    for what, numbers in found.items():
        print(f"{what:45s} {numbers['wall']:10,.0f} images/s   {numbers['processor']:10,.0f} by processor time")
    machine.write_result("train_pieces", {"images_per_second": found})


@freed_memory.kept()
def rate(work: Callable[[], object], images: int, repeats: int) -> dict[str, float]:
    """The best of several repeats after one that is not counted."""
    walls, processors = [], []
    for _ in range(repeats + 1):
        wall, processor = time.perf_counter(), time.process_time()
        work()
        walls.append(time.perf_counter() - wall)
        processors.append((time.process_time() - processor) / min(core_count(), torch.get_num_threads()))
    return {"wall": round(images / min(walls[1:]), 1), "processor": round(images / min(processors[1:]), 1)}


@freed_memory.kept()
def seconds(work: Callable[[], object], repeats: int) -> dict[str, list[float]]:
    """Of each of several repeats, after one that is not counted: by the clock, and of processor time (all threads')."""
    work()
    found: dict[str, list[float]] = {"wall": [], "processor": []}
    for _ in range(repeats):
        wall, processor = time.perf_counter(), time.process_time()
        work()
        found["wall"].append(round(time.perf_counter() - wall, 4))
        found["processor"].append(round(time.process_time() - processor, 4))
    return found


def view_work(kind: str) -> Callable[[], object]:
    pixels = images(512).take(torch.arange(512))
    views = Views(ViewConfig(kind=kind), SIZE, *COLOURS)
    return lambda: views(pixels, draws.generator("cpu", 0, "bench"))


def pretext_work(name: str, size: int, batch: int) -> Callable[[], object]:
    """A whole step: two views of each image, forward, loss, backward, optimiser."""
    config = recipe.load(RECIPES[name], [f"data.size={size}", "pretext.start_side=1", "pretext.end_side=1"])
    pixels = images(batch, size)
    phase = pretext.build(
        config.pretext,
        encoders.encoder(EncoderConfig(name)),
        pixels,
        COLOURS,
        Precision.of(torch.device("cpu"), "auto"),
    )
    dead_taps.guard(phase.network)
    optimiser = schedule.optimiser([phase.network], config.pretext.optimiser)
    everything = pixels.take(torch.arange(batch))

    def step() -> None:
        phase.losses(phase.network, everything, draws.generator("cpu", 0, "bench"))["loss"].backward()
        optimiser.step()
        optimiser.zero_grad()

    return step


def encoding_work(name: str, count: int) -> Callable[[], object]:
    """Features of `count` images under views, as frozen SCAN keeps them."""
    config = recipe.load(RECIPES[name])
    pixels, precision = images(count), Precision.of(torch.device("cpu"), "auto")
    encoder = encoders.encoder(EncoderConfig(name))
    views = Views(config.scan.views, SIZE, *COLOURS)
    everything, random = torch.arange(count), draws.generator("cpu", 0, "bench")
    return lambda: features.encode(encoder, pixels, everything, lambda batch: views(batch, random), precision)


def scan_work() -> Callable[[], object]:
    """An epoch of the Keras example's clustering phase with the encoder frozen: 512-d features, 5 neighbours, K 20."""
    config = recipe.load("keras-example").scan
    count, draw = 60_000, torch.Generator().manual_seed(0)
    cached = torch.randn(2, count, 512, generator=draw).half()
    neighbours = torch.randint(count, (count, 5), generator=draw)
    held_out = evidence.HeldOut(torch.arange(100), torch.randint(100, (100, 5), generator=draw))
    everything = torch.arange(count)
    phase = scan.FrozenScan(
        config, 20, everything, neighbours, held_out, cached, cached[0, :100].float(), torch.device("cpu")
    )
    optimiser = schedule.optimiser([phase.network], config.optimiser)

    def epoch() -> None:
        for number, positions in enumerate(everything.split(config.loop.batch)):
            examples = phase.examples(positions, draws.generator("cpu", 0, number))
            phase.losses(phase.network, examples, draws.generator("cpu", 0, number))["loss"].backward()
            optimiser.step()
            optimiser.zero_grad()

    return epoch


def images(count: int, size: int = SIZE) -> Pixels:
    kept = np.random.default_rng(0).integers(0, 256, (count, size, size, 3), dtype=np.uint8)
    return Pixels(np.arange(count), DataConfig(size=size), kept)


if __name__ == "__main__":
    main()
