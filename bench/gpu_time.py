"""How long the published recipes would take on one modern GPU: counted operations and a stated utilisation, not a run.

    python bench/gpu_time.py [--teraflops 312] [--utilisation 0.2]

Multiplications and additions of one forward pass are counted on torch's meta device; a backward pass counts twice as
much. 312 TFLOP/s is the peak that NVIDIA states for an A100 in bf16; a fifth of it is about what ResNet-50 gets there
in mixed precision. Views and data loading are taken to keep up.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass

import torch
from torch.utils.flop_counter import FlopCounterMode

import machine
from shoal.encoder import architectures
from shoal.train import recipe
from shoal.train.config import TrainConfig

IMAGENET = 1_281_167
LEARN = 3  # a forward and a backward pass, in forward passes


@dataclass(frozen=True, slots=True)
class Images:
    """How many the pretext task has, and how many clusters are learned from."""

    pretext: int
    scan: int


DATA = {
    "scan-cifar10": Images(50_000, 50_000),
    "scan-cifar20": Images(50_000, 50_000),
    "scan-stl10": Images(105_000, 5_000),
    "scan-imagenet50": Images(IMAGENET * 50 // 1000, IMAGENET * 50 // 1000),
    "scan-imagenet100": Images(IMAGENET * 100 // 1000, IMAGENET * 100 // 1000),
    "scan-imagenet200": Images(IMAGENET * 200 // 1000, IMAGENET * 200 // 1000),
    "scan-imagenet": Images(IMAGENET, IMAGENET),
    "moco-imagenet": Images(IMAGENET, IMAGENET),
    "keras-example": Images(60_000, 60_000),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--teraflops", type=float, default=312.0, help="peak of the GPU")
    parser.add_argument("--utilisation", type=float, default=0.2)
    asked = parser.parse_args()
    print("| recipe | GFLOP an image, forward | pretext | scan | selflabel | PFLOP in all | hours |")
    print("|---|---:|---:|---:|---:|---:|---:|")
    found = {}
    for name, images in DATA.items():
        config = recipe.load(name)
        forward = forward_flops(config)
        phases = {phase: passes * forward for phase, passes in forward_passes(config, images).items()}
        hours = {phase: flops / (asked.teraflops * 1e12 * asked.utilisation) / 3600 for phase, flops in phases.items()}
        total = sum(hours.values())
        found[name] = {"forward_flops": forward, "flops": phases, "hours": hours, "total_hours": total}
        cells = " | ".join(f"{value:.2g} h" if value else "–" for value in hours.values())
        print(f"| `{name}` | {forward / 1e9:.3g} | {cells} | {sum(phases.values()) / 1e15:,.0f} | {total:.2g} |")
    assumed = {"teraflops": asked.teraflops, "utilisation": asked.utilisation}
    machine.write_result("gpu_time", {"assumed": assumed, "recipes": found})


def forward_flops(config: TrainConfig) -> int:
    """Of one image through the encoder."""
    with torch.device("meta"):
        encoder = architectures.build(config.encoder.name).eval()
        image = torch.empty(1, 3, config.data.size, config.data.size)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        encoder(image)
    return int(counter.get_total_flops())


def forward_passes(config: TrainConfig, images: Images) -> dict[str, int]:
    """Of the encoder in each phase, with what a backward pass costs counted as forward passes; heads are as nothing."""
    first, scan, last = config.pretext, config.scan, config.selflabel
    views = LEARN + 1 if first.task == "moco" else 2 * LEARN  # MoCo's keys have no backward pass
    learned = first.epochs * views * images.pretext + images.pretext  # and the features that neighbours are mined by
    if scan.tune_encoder:
        clusters = scan.epochs * (1 + scan.neighbours_each) * LEARN * images.scan
    else:
        clusters = scan.cached_views * images.pretext if scan.epochs else 0
    return {"pretext": learned, "scan": clusters, "selflabel": last.epochs * (1 + LEARN) * images.scan}


if __name__ == "__main__":
    main()
