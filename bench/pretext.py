"""Settings of the pretext task at equal processor time: k-NN accuracy on CIFAR-10's training images, 40,000 to 10,000.

    python bench/pretext.py --train cifar10-train.parquet --seconds 500 --set pretext.optimiser.name=adamw …

The learning rate follows the processor time that is used up, not epochs, so that a setting that sees more images in the
same time gains by it. Labels are read only after training. Every result is added to bench/results/pretext.json.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import machine
from from_scratch import DEV_TEST, weighted_knn
from shoal.cluster import LearnedClustering
from shoal.encoder.architectures import whitening
from shoal.evaluate import metrics
from shoal.images.decode import decode
from shoal.images.reading import ImageReader
from shoal.images.sources import open_source
from shoal.train import draws, encoders, losses, pretext, recipe, schedule
from shoal.train.config import PLAIN, TrainConfig
from shoal.train.views import Views

WARM = 0.02  # of the time


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--train", type=Path, required=True, help="Parquet table with path, image, label")
    parser.add_argument("--seconds", type=float, default=500, help="0: the encoder as it starts")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--recipe", default="cpu-small")
    parser.add_argument("--clusters", type=int, help="learn this many too, and tell their ACC and NMI on the 10,000")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    asked = parser.parse_args()
    items = list(open_source((str(asked.train),)).listed().items())
    order, reader = np.random.default_rng(0).permutation(len(items)), ImageReader()
    pictures = np.stack([np.asarray(decode(reader.read(item.uri))) for item in items])
    images = torch.from_numpy(pictures).permute(0, 3, 1, 2)
    labels = np.array([item.label for item in items])
    queries, bank = order[:DEV_TEST], order[DEV_TEST:]
    config = recipe.load(asked.recipe, asked.set)
    encoder, facts = trained(config, images[bank], asked.seconds, asked.seed)
    plain = Views(PLAIN, config.data.size, *_colours(config, images[bank]))
    known, new = (encoded(encoder, images[chosen], plain) for chosen in (bank, queries))
    white, mean, turn = whitening(known)
    new_white = (new - mean) @ turn
    found = {
        **facts,
        "knn": weighted_knn(known.numpy(), labels[bank], new.numpy(), labels[queries]),
        "knn_whitened_by_half": weighted_knn(white.numpy(), labels[bank], new_white.numpy(), labels[queries]),
    }
    if asked.clusters:
        learned = LearnedClustering(asked.clusters, random_state=asked.seed).fit(white.numpy())
        clusters = learned.predict(new_white.numpy())
        found |= {
            "acc": metrics.clustering_accuracy(labels[queries], clusters),
            "nmi": metrics.nmi(labels[queries], clusters),
        }
    file = machine.RESULTS / "pretext.json"
    earlier = json.loads(file.read_text(encoding="utf-8"))["runs"] if file.is_file() else []
    told = {"recipe": asked.recipe, "set": asked.set, "seconds": asked.seconds, "seed": asked.seed, **found}
    machine.write_result("pretext", {"runs": [*earlier, told]})
    print(json.dumps(told))


def trained(config: TrainConfig, images: Tensor, seconds: float, seed: int) -> tuple[nn.Module, dict[str, Any]]:
    """An encoder trained by SimCLR for so many seconds of processor time, and how far it came."""
    task = config.pretext
    with draws.seeded(torch.device("cpu"), seed, "weights"):
        encoder = encoders.encoder(config.encoder)
        network = encoders.Projector(encoder, encoders.projection_head(encoder.dim, task.head))
    optimiser = schedule.optimiser([network], task.optimiser)
    views = Views(task.views, config.data.size, *_colours(config, images))
    random, began, steps = draws.generator("cpu", seed, "views"), time.process_time(), 0
    order = torch.empty(0, dtype=torch.long)
    while (spent := time.process_time() - began) < seconds:
        done = spent / seconds
        for group in optimiser.param_groups:
            falling = 0.5 * (1 + math.cos(math.pi * max(0.0, (done - WARM) / (1 - WARM))))
            group["lr"] = task.optimiser.rate * min(1.0, done / WARM) * falling
        views.size = pretext.size_at(int(done * task.epochs), task, config.data.size)
        if len(order) < task.loop.batch:
            order = torch.randperm(len(images), generator=random)
        pixels, order = images[order[: task.loop.batch]], order[task.loop.batch :]
        _, projections = network(torch.cat([views(pixels, random), views(pixels, random)]))
        first, second = projections.chunk(2)
        loss = losses.nt_xent(first, second, task.temperature, decoupled=task.loss == "decoupled")
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        steps += 1
    return encoder, {
        "steps": steps,
        "images": steps * task.loop.batch,
        "last_loss": round(loss.item(), 3) if steps else None,
    }


@torch.no_grad()
def encoded(encoder: nn.Module, images: Tensor, plain: Views) -> Tensor:
    encoder.eval()
    return torch.cat([encoder(plain(block, torch.Generator())) for block in images.split(500)])


def _colours(config: TrainConfig, images: Tensor) -> tuple[Sequence[float], Sequence[float]]:
    if config.data.mean is not None and config.data.std is not None:
        return config.data.mean, config.data.std
    values = images[:10_000].float() / 255
    return values.mean((0, 2, 3)).tolist(), values.std((0, 2, 3)).tolist()


if __name__ == "__main__":
    main()
