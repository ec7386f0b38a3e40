"""Choosing the number of clusters, K = 2…40, on a real embeddings folder: reading, the space, every K, the choice.

python bench/sweep.py [--images 60000] [--dims 1280] [--numbers 2-40] [--repeats 2]
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np

from machine import Timing, describe, machine_line, peak_memory_bytes, write_result
from shoal import atomic
from shoal.cluster.number.choose_k import choose
from shoal.cluster.space import fit_space, points_of
from shoal.config import ClusterCounts
from shoal.embeddings import EmbeddingStore, part_count, part_range

KINDS = 25


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    for name, default in (("--images", 60_000), ("--dims", 1280), ("--repeats", 2)):
        parser.add_argument(name, type=int, default=default)
    parser.add_argument("--numbers", default="2-40")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        store = _write_embeddings(Path(folder), asked.images, asked.dims)
        seconds, chosen = [], 0
        for _ in range(asked.repeats):
            began = time.perf_counter()
            chosen = _sweep(store, asked.images, asked.numbers)
            seconds.append(time.perf_counter() - began)
    timing, peak = Timing(tuple(seconds)), peak_memory_bytes()
    print("| images | dims | K | median s | least to most s | peak memory |\n|---:|---:|---|---:|---:|---:|")
    print(
        f"| {asked.images:,} | {asked.dims} | {asked.numbers} | {timing.median:.1f} | {timing.spread} | "
        f"{peak / 2**20:,.0f} MiB |"
    )
    print(f"chosen: {chosen} for {KINDS} kinds\n{machine_line(describe())}")
    write_result("sweep", {"asked": vars(asked), **timing.to_json(), "peak_bytes": peak, "chosen": chosen})


def _sweep(store: EmbeddingStore, images: int, numbers: str) -> int:
    ids = np.arange(images)
    space = fit_space(store, ids, "cosine", np.random.default_rng(0))
    points, _ = points_of(space, store, ids)
    return choose(points, ClusterCounts.parse(numbers), seed=0).chosen.k


def _write_embeddings(folder: Path, images: int, dims: int) -> EmbeddingStore:
    """Features like a network's after its last ReLU: not negative, few loud channels, kinds that overlap."""
    generator = np.random.default_rng(0)
    loudness = generator.gamma(0.5, 1.0, dims)
    centres = generator.gamma(0.6, 1.0, (KINDS, dims)) * loudness
    parts = []
    for number in range(part_count(images)):
        held = part_range(number, images)
        start, stop = held.start, held.stop
        kind = generator.integers(0, KINDS, stop - start)
        values = centres[kind] * 0.5 + generator.gamma(0.6, 1.0, (stop - start, dims)) * loudness
        np.save(folder / f"part-{number:05d}.npy", values.astype(np.float16))
        parts.append({"file": f"part-{number:05d}.npy", "start": start, "stop": stop})
    manifest = {
        "format_version": 1,
        "rows": images,
        "dim": dims,
        "dtype": "float16",
        "normalised": False,
        "parts": parts,
    }
    atomic.write_json(folder / "manifest.json", manifest)
    return EmbeddingStore.open(folder)


if __name__ == "__main__":
    main()
