"""Learned clusters and k-means on random parts of a few thousand images: who is better, and what does the judge say?

    python bench/judge.py cifar10=bench.out/cifar10/efficientnet_lite0-default/train.shoal --images 2500 --draws 6

Only runs of CIFAR-10's training images and of tinyimagenet-20 may be given, as for learned_parts.py.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np

from machine import write_result
from shoal.bench.embedded import label_places, usable_ids
from shoal.cluster import kmeans
from shoal.cluster.learned import judging, learning
from shoal.cluster.space import cluster_points, fit_space
from shoal.embeddings import EmbeddingStore, Ids
from shoal.evaluate import metrics
from shoal.rundir import RunDir


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", metavar="NAME=RUN")
    parser.add_argument("--images", type=int, default=2500)
    parser.add_argument("--draws", type=int, default=6)
    asked = parser.parse_args()
    found: dict[str, Any] = {}
    for name, folder in (text.split("=", 1) for text in asked.runs):
        run = RunDir(Path(folder))
        names, places = label_places(run, None, {})
        found[name] = []
        for draw in range(asked.draws):
            chosen = np.sort(np.random.default_rng([99, draw]).choice(len(places), asked.images, replace=False))
            found[name].append(judged(run, usable_ids(run)[places[chosen]], names[chosen], draw))
            print(name, draw, found[name][-1], flush=True)
    write_result("judge", {"images": asked.images, "draws": found})


def judged(run: RunDir, ids: Ids, truth: Any, seed: int) -> dict[str, Any]:
    """ACC of both, and the sentence about them, which no label went into."""
    store, k = EmbeddingStore.open(run.embeddings), len(np.unique(truth))
    space = fit_space(store, ids, "cosine", np.random.default_rng([seed, 3]))
    plain = kmeans.fit(cluster_points(space, store, ids)[0], k, np.random.default_rng([seed, k]), starts=4).labels
    found = learning.learn(store, ids, k, seed)
    verdict = judging.judge(found, plain, k)
    acc = {
        name: round(100 * metrics.clustering_accuracy(truth, labels), 1)
        for name, labels in (("learned", found.placed.found.labels), ("k-means", plain))
    }
    return {**acc, "taken": verdict.taken, "sentence": verdict.sentence}


if __name__ == "__main__":
    main()
