"""What each part of learned clusters adds, and each objective, against labels, on the sets for comparing defaults.

    shoal bench cifar10 tinyimagenet-20 --data DATASETS --out bench.out       # embeds them
    python bench/learned_parts.py cifar10=bench.out/cifar10/efficientnet_lite0-default/train.shoal --seeds 3
    python bench/learned_parts.py cifar10=… tinyimagenet-20=… --tails 3   # thinned

Only runs of CIFAR-10's training images and of tinyimagenet-20 may be given: nothing else is there to choose by.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from machine import write_result
from shoal.bench.embedded import unit_features, usable_ids
from shoal.cluster import kmeans
from shoal.cluster.ground.ground import Ground, prepare
from shoal.cluster.heads.adam import Adam
from shoal.cluster.heads.distilled import distil
from shoal.cluster.heads.objectives import OBJECTIVES, LinearHeads
from shoal.cluster.heads.training import Heads
from shoal.cluster.learned import learning
from shoal.cluster.learned.agreed import agreed
from shoal.cluster.learned.starts import by_communities, by_k_means
from shoal.cluster.space import cluster_points, fit_space
from shoal.embeddings import EmbeddingStore, Float32, Ids
from shoal.evaluate import metrics
from shoal.rundir import RunDir
from subsets import LabelledRun, Truth, even, long_tail

HEADS = 16
THINNED, LEAST = 100, 10  # a tail's last kind has so small a part of its first one's images, but so many
PROBE_STEPS, PROBE_BATCH, PROBE_RATE = 300, 512, 1e-2
Labels = npt.NDArray[np.integer]
Result = TypeVar("Result")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", metavar="NAME=RUN")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--images", type=int, default=20_000, help="of each run at most, the first of a random order")
    parser.add_argument("--tails", type=int, default=0, help="thin the classes instead, by so many of their orders")
    asked = parser.parse_args()
    found: dict[str, Any] = {}
    for name, folder in (text.split("=", 1) for text in asked.runs):
        run = LabelledRun(folder)
        sizes = even(run.kinds, min(asked.images, len(run.ids)))
        if asked.tails:
            largest = int(np.bincount(run.truth).min())
            sizes = long_tail(run.kinds, largest, max(LEAST, largest // THINNED))
        for draw in range(max(1, asked.tails)):
            part = f"{name}, tail {draw}" if asked.tails else name
            found[part] = measured(run.run, *run.part(sizes, draw), asked.seeds)
            print(f"{part}\n{table(found[part])}", flush=True)
    kept = "learned_parts_tails" if asked.tails else "learned_parts"
    write_result(kept, {"images_at_most": asked.images, "seeds": asked.seeds, "heads": HEADS, **found})


def measured(run: RunDir, ids: Ids, truth: Truth, seeds: int) -> dict[str, list[dict[str, float]]]:
    """ACC, NMI, ARI and seconds of each part, a value a seed."""
    rows: dict[str, list[dict[str, float]]] = {}
    for seed in range(seeds):
        for part, labels, seconds in parts(run, ids, int(truth.max()) + 1, seed):
            scores = {"acc": metrics.clustering_accuracy, "nmi": metrics.nmi, "ari": metrics.ari}
            values = {score: float(np.mean([of(truth, one) for one in labels])) for score, of in scores.items()}
            values["probe"] = probe_accuracy(unit_features(run)[np.searchsorted(usable_ids(run), ids)], labels[0], seed)
            rows.setdefault(part, []).append({**values, "seconds": seconds})
    return rows


def parts(run: RunDir, ids: Ids, k: int, seed: int) -> Iterator[tuple[str, list[Labels], float]]:
    """Name of each part, its clusterings (figures are their mean), and how long it took."""
    store = EmbeddingStore.open(run.embeddings)
    positions = np.searchsorted(usable_ids(run), ids)
    random = np.random.default_rng([seed, k])
    raw, took = timed(lambda: kmeans.fit(unit_features(run)[positions], k, random, starts=10))
    yield "k-means on features of unit length", [raw.labels], took
    space = fit_space(store, ids, "cosine", np.random.default_rng([seed, 3]))
    points, _ = cluster_points(space, store, ids)
    plain, took = timed(lambda: kmeans.fit(points, k, random, starts=4))
    yield "k-means in the space", [plain.labels], took
    ground, prepared = timed(lambda: prepare(store, ids, np.arange(len(ids)), seed))
    even, took = timed(lambda: by_k_means(ground, k, HEADS, seed))
    yield "k-means on points drawn to their neighbours (each start)", list(even), prepared + took
    free, took = timed(lambda: by_communities(ground, k, HEADS, seed))
    yield "communities (each start)", list(free), prepared + took
    for what, starts, keep_sizes in (("equal sizes", even, False), ("sizes kept", free, True)):
        for objective in OBJECTIVES if not keep_sizes else ("mutual_information", "temi"):
            yield from _of_heads(ground, k, seed, starts, objective, keep_sizes, what)
    yield from _of_both(ground, k, seed, even, free)
    both, took = timed(lambda: learning.learn(store, ids, k, seed))
    taken = "sizes kept" if both.sizes.differ else "equal sizes"
    yield (
        f"learned clusters, as they are made ({taken}, gain {both.sizes.gain:.3f}, largest {both.sizes.largest:.1f})",
        [both.placed.found.labels],
        took,
    )


def _of_both(
    ground: Ground, k: int, seed: int, even: list[Labels], free: list[Labels]
) -> Iterator[tuple[str, list[Labels], float]]:
    """The votes of heads of both kinds together, joined in both ways."""
    began = time.perf_counter()
    one_size = learning.sound(learning.heads_on(ground, k, seed, even), ground, per_entropy=False)
    own_sizes = learning.sound(learning.heads_on(ground, k, seed, free, keep_sizes=True), ground, per_entropy=True)
    heads, took = Heads.together([own_sizes, one_size]), time.perf_counter() - began
    for way, linked in (("k-means", False), ("linkage", True)):
        joined, more = timed(lambda linked=linked: agreed(heads, ground, k, seed, keep_sizes=linked))
        yield f"votes of both kinds by {way}, mutual_information", [joined], took + more


def _of_heads(
    ground: Ground, k: int, seed: int, starts: list[Labels], objective: str, keep_sizes: bool, what: str
) -> Iterator[tuple[str, list[Labels], float]]:
    """The heads, the one of least loss, the votes joined in both ways, and the last head."""
    heads, took = timed(lambda: learning.heads_on(ground, k, seed, starts, objective=objective, keep_sizes=keep_sizes))
    said = heads.logits(ground.white).argmax(axis=2)
    yield f"a head, {what}, {objective} (mean of {HEADS})", list(said.T), took
    yield f"the head of least held-out loss, {what}, {objective}", [said[:, heads.losses.argmin()]], took
    kept = learning.sound(heads, ground, per_entropy=keep_sizes)
    for way, linked in (("k-means", False), ("linkage", True)):
        joined, took = timed(lambda linked=linked: agreed(kept, ground, k, seed, keep_sizes=linked))
        yield f"votes by {way}, {what}, {objective}", [joined], took
        if linked == keep_sizes:
            head, took = timed(lambda joined=joined: distil(ground.white, joined, ground.neighbours, k, seed))
            if head is not None:
                last = head.transform(ground.white).argmax(axis=1)
                yield f"the last head, {what}, {objective}", [last], took


def probe_accuracy(rows: Float32, labels: Labels, seed: int) -> float:
    """How well a linear probe, taught `labels` on one half of the rows [n, d], predicts them on the other; both ways.

    Label-free: the labels are the clustering's own (Gadetsky et al., TURTLE, 2024, section 4).
    """
    scaled = (rows - rows.mean(axis=0)) / rows.std()
    random = np.random.default_rng(seed)
    order, k, right = random.permutation(len(rows)), int(labels.max()) + 1, 0
    for known, asked in ((order[::2], order[1::2]), (order[1::2], order[::2])):
        probe = LinearHeads(np.zeros((k, rows.shape[1]), np.float32), np.zeros(k, np.float32), 1)
        optimiser = Adam(probe.parameters, PROBE_RATE, PROBE_STEPS)
        for _ in range(PROBE_STEPS):
            batch = random.choice(known, min(PROBE_BATCH, len(known)), replace=False)
            error = probe.probabilities(scaled[batch])
            error[0, labels[batch], np.arange(len(batch))] -= 1
            optimiser.step(probe.gradient(scaled[batch], error / np.float32(len(batch))))
        right += int((probe.probabilities(scaled[asked])[0].argmax(axis=0) == labels[asked]).sum())
    return right / len(rows)


def timed(work: Callable[[], Result]) -> tuple[Result, float]:
    began = time.perf_counter()
    result = work()
    return result, time.perf_counter() - began


def table(rows: dict[str, list[dict[str, float]]]) -> str:
    lines = ["| part | ACC | NMI | ARI | probe |", "|---|---:|---:|---:|---:|"]
    for part, seeds in rows.items():
        told = (
            f"{100 * np.mean(v):.1f} ± {100 * np.std(v, ddof=1) if len(v) > 1 else 0:.1f}"
            for v in ([seed[name] for seed in seeds] for name in ("acc", "nmi", "ari", "probe"))
        )
        lines.append(f"| {part} | {' | '.join(told)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
