"""What a GPU makes of embedding and training: are its numbers the CPU's, how fast is it, what does a short recipe give?

    python bench/gpu.py --data DIR --out FILE.json [--seconds 3] [--limit 540] [--device cuda] [--only PART …]

DIR holds cifar10-train.parquet and cifar10-test.parquet (path, image, label) and, where the package that has it is
missing, the weights' file efficientnet-lite0-57934424.pth. Nothing is fetched, and Shoal itself need not be installed.
It takes torch, torchvision, timm, numpy, safetensors, pyarrow, pillow; psutil, threadpoolctl, platformdirs, which are
small; and for ACC, NMI and ARI scipy and scikit-learn: without them the table of counts is kept, which tells them.

Parts in order: equality, views, gradients, card, embedding, pretext, waits, recipe. Each writes its result into FILE as
it ends, and one is passed over if too little of --limit is left; one that fails says how, and the next begins. On a
machine that is lent for minutes and has no network, with all that it lacks in bench/work/gpu, which git ignores:

    export PYTHONPATH=/tmp/site:$PWD/src PYTHONUNBUFFERED=1
    python3 -m pip install -q --no-index --no-deps --target /tmp/site bench/work/gpu/*.whl
    python3 bench/gpu.py --data bench/work/gpu --out $OUT/gpu.json --limit 270 \\
        --only equality views gradients card embedding pretext waits
    python3 bench/gpu.py --data bench/work/gpu --out $OUT/recipe.json --limit 480 --only recipe

On a CPU (--device cpu --seconds 5) it goes through the same with few images, a small encoder for the recipe, and no
compiler: to see that the script works.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

import gpu_equality
import gpu_short
import gpu_speed
from gpu_bench import Bench, machine_facts

# By name: the seconds that have to be left for it on a GPU, and what it does.
PARTS = {
    "equality": (30, gpu_equality.features),
    "views": (10, gpu_equality.views_alike),
    "gradients": (30, gpu_equality.gradients),
    "card": (5, gpu_speed.card),
    "embedding": (60, gpu_speed.embedding),
    "pretext": (60, gpu_speed.pretext_step),
    "waits": (20, gpu_speed.waits),
    "recipe": (150, gpu_short.short_recipe),
}


def main() -> None:
    asked = _arguments()
    device = torch.device("cuda", 0) if asked.device == "cuda" else torch.device(asked.device)
    bench = Bench(asked.data, asked.out, device, asked.seconds, asked.limit)
    bench.found["machine"] = machine_facts(bench)
    for name in asked.only or PARTS:
        bench.part(name, *PARTS[name])


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with CIFAR-10 as Parquet")
    parser.add_argument("--out", type=Path, required=True, help="JSON, written as each part ends")
    parser.add_argument("--seconds", type=float, default=3.0, help="of each measurement")
    parser.add_argument("--limit", type=float, default=540.0, help="seconds of everything")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu", choices=("cuda", "cpu"))
    parser.add_argument("--only", nargs="*", choices=list(PARTS), metavar="PART", help=", ".join(PARTS))
    return parser.parse_args()


if __name__ == "__main__":
    main()
