"""What it costs to find clusters on a sample and to place all other images by them, against labels.

    shoal bench cifar10 --data DATASETS --out bench.out       # embeds it
    python bench/sampled.py bench.out/cifar10/efficientnet_lite0-default/train.shoal --seeds 3

Clusters are found on all images of the run, and on a sample of them, and judged on all. Only a run of CIFAR-10's
training images may be given: nothing else is there to choose by.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any, Final

import numpy as np

from machine import write_result
from shoal.cluster import graph, kmeans
from shoal.cluster.arrays import Labels
from shoal.cluster.kmeans import COSINE
from shoal.cluster.learned import learning
from shoal.cluster.sample import extended, sample_of
from shoal.cluster.space import Rows, cluster_points, fit_space
from shoal.embeddings import EmbeddingStore, Ids
from shoal.evaluate import metrics
from subsets import LabelledRun

Method = Callable[[Rows, Ids, int, int, int], Labels]  # store, ids, k, images looked at, seed


def by_k_means(store: Rows, ids: Ids, k: int, most: int, seed: int) -> Labels:
    sample = sample_of(ids, most, seed)
    space = fit_space(store, ids[sample], COSINE, np.random.default_rng([seed, 3]))
    points = cluster_points(space, store, ids)[0]
    found = kmeans.fit(points[sample], k, np.random.default_rng([seed, k]))
    return extended(found, points, sample, COSINE).labels


def by_heads(store: Rows, ids: Ids, k: int, most: int, seed: int) -> Labels:
    return learning.learn(store, ids, k, seed, most=most).placed.found.labels


def by_communities(store: Rows, ids: Ids, k: int, most: int, seed: int) -> Labels:
    return graph.find(store, ids, k, seed, most=most).placed.found.labels


METHODS: Final[dict[str, Method]] = {"kmeans": by_k_means, "graph": by_communities, "learned": by_heads}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--sample", type=int, default=10_000)
    parser.add_argument("--methods", nargs="+", choices=list(METHODS), default=list(METHODS))
    asked = parser.parse_args()
    run = LabelledRun(asked.run)
    store, images = EmbeddingStore.open(run.run.embeddings), len(run.ids)
    found: dict[str, Any] = {}
    for method in asked.methods:
        for most in (images, asked.sample):
            rows = [measured(METHODS[method], store, run, most, seed) for seed in range(asked.seeds)]
            found.setdefault(method, {})[str(most)] = rows
            told = ", ".join(f"{name} {shown([row[name] for row in rows])}" for name in rows[0])
            print(f"{method}, found on {most:,} of {images:,}: {told}", flush=True)
    write_result("sampled", {"images": images, "sample": asked.sample, "seeds": asked.seeds, **found})


def measured(method: Method, store: Rows, run: LabelledRun, most: int, seed: int) -> dict[str, float]:
    """ACC, NMI and ARI over all images, and processor seconds."""
    began = time.process_time()
    labels = method(store, run.ids, run.kinds, most, seed)
    seconds = time.process_time() - began
    scores = {"acc": metrics.clustering_accuracy, "nmi": metrics.nmi, "ari": metrics.ari}
    return {**{name: float(of(run.truth, labels)) for name, of in scores.items()}, "cpu_seconds": seconds}


def shown(values: list[float]) -> str:
    return f"{np.mean(values):.3f} ± {np.std(values, ddof=1) if len(values) > 1 else 0:.3f}"


if __name__ == "__main__":
    main()
