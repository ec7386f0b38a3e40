"""How many candidates by products in few dimensions hold the true neighbours?

    python bench/knn_candidates.py EMBEDDINGS [--dims 128 160 192 256] [--asked 64]

EMBEDDINGS is the folder of a run, or of bench/knn.py. Of some sampled images every other one is looked at, in all
dimensions and in the leading ones as half floats; what counts is how many others few dimensions put before a true
neighbour. The search itself finds out on 256 images, at each size and for each collection.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from machine import describe, machine_line, write_result
from shoal.embeddings import EmbeddingStore, Ids, normalise_rows
from shoal.halves import widened
from shoal.neighbours.placing import best_of
from shoal.neighbours.plan import main_directions

K = 50
SAMPLE = 50_000
BEST = (96, 128, 192, 256, 384, 512)


def true_neighbours(store: EmbeddingStore, asked: Ids) -> Ids:
    """The k nearest others of each of `asked`, compared with all."""
    rows = normalise_rows(store.read(asked))
    best, at = np.empty((len(asked), 0), np.float32), np.empty((len(asked), 0), np.int64)
    for where, others in store.blocks(np.arange(store.rows)):
        ids = np.arange(where.start, where.stop)
        similarity = rows @ normalise_rows(others).T
        similarity[asked[:, None] == ids] = -np.inf
        everywhere = np.broadcast_to(ids, similarity.shape)
        best, at = best_of(np.concatenate([best, similarity], 1), np.concatenate([at, everywhere], 1), K)
    return at


def ranks(store: EmbeddingStore, asked: Ids, true: Ids, directions: npt.NDArray[np.float32]) -> npt.NDArray[np.int64]:
    """How many others are before each of `true` [q, k] by products in the dimensions of `directions` [d, r]."""
    estimates = np.empty((len(asked), store.rows), np.float32)
    own = widened((normalise_rows(store.read(asked)) @ directions).astype(np.float16))
    for where, others in store.blocks(np.arange(store.rows)):
        estimates[:, where] = own @ widened((normalise_rows(others) @ directions).astype(np.float16)).T
    estimates[np.arange(len(asked)), asked] = -np.inf
    falling = -np.sort(-estimates, axis=1)
    of_true = np.take_along_axis(estimates, true, 1)
    return np.stack([np.searchsorted(-row, -few) for row, few in zip(falling, of_true, strict=True)])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("embeddings", type=Path)
    parser.add_argument("--dims", type=int, nargs="+", default=[128, 160, 192, 256])
    parser.add_argument("--asked", type=int, default=64)
    parser.add_argument("--name", required=True, help="of these features, for the results")
    given = parser.parse_args()
    store = EmbeddingStore.open(given.embeddings)
    random = np.random.default_rng(0)
    asked = np.sort(random.choice(store.rows, min(given.asked, store.rows), replace=False))
    sample = np.sort(random.choice(store.rows, min(SAMPLE, store.rows), replace=False))
    true = true_neighbours(store, asked)
    found: dict[str, Any] = {}
    for dims in given.dims:
        of_true = ranks(store, asked, true, main_directions(store, sample, dims))
        shares = {str(best): round(float((of_true < best).mean()), 4) for best in BEST}
        found[str(dims)] = {"held": shares, "for_98": int(np.quantile(of_true, 0.98, method="higher")) + 1}
        print(f"{dims} dimensions: {shares}; 98 % among the best {found[str(dims)]['for_98']}", flush=True)
    print(write_result(f"knn-candidates-{given.name}", {"rows": store.rows, "dims": found}))
    print(machine_line(describe()))


if __name__ == "__main__":
    main()
