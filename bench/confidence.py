"""Does confidence say how often a cluster is right, and does closeness know images of other kinds?

    python bench/confidence.py cifar10=bench.out/cifar10/efficientnet_lite0-default/train.shoal tinyimagenet-20=…

Only runs of CIFAR-10's training images and of tinyimagenet-20 may be given, as for learned_parts.py. Four fifths of
each part are clustered, into as many clusters as there are kinds, and the rest is assigned; labels only score.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from machine import RESULTS, write_result
from shoal.cluster import graph, kmeans
from shoal.cluster.learned import learning
from shoal.cluster.model import ClusterModel, fit_model
from shoal.cluster.space import fit_space, points_of
from shoal.embeddings import EmbeddingStore, Float32, Ids, normalise_rows
from shoal.evaluate.metrics import confusion, matching
from shoal.evaluate.reliability import reliability
from subsets import LabelledRun, Truth, even, long_tail

IMAGES = 8_000  # of an even part, at most
TAIL = {"tinyimagenet-20": (500, 10), "cifar10": (5_000, 50)}  # images of the largest and the smallest kind
OTHERS = {"tinyimagenet-20": (10, 5), "cifar10": (3,)}  # kinds kept out, that are to be unknown
FITTED = 0.8


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", metavar="NAME=RUN")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--heads", type=int, default=16)
    parser.add_argument("--picture", type=Path, help="reliability diagrams as a PNG")
    asked = parser.parse_args()
    rows: list[dict[str, Any]] = []
    for name, folder in (text.split("=", 1) for text in asked.runs):
        run = LabelledRun(folder)
        for part, sizes in parts(name, run.kinds):
            for seed in range(asked.seeds):
                for row in calibrated(run, *run.part(sizes, seed), seed, asked.heads):
                    rows.append({"set": name, "part": part, "seed": seed, **row})
            print(table([row for row in rows if (row["set"], row["part"]) == (name, part)], name, part), flush=True)
    unknown = {
        f"{name}, {count} kinds kept out": [known(LabelledRun(folder), count, seed) for seed in range(asked.seeds)]
        for name, folder in (text.split("=", 1) for text in asked.runs)
        for count in OTHERS[name]
    }
    print(unknown_table(unknown))
    write_result("confidence", {"rows": rows, "unknown": unknown, "seeds": asked.seeds, "heads": asked.heads})
    draw(rows, asked.picture or RESULTS / "confidence.png")


def parts(name: str, kinds: int) -> Iterator[tuple[str, npt.NDArray[np.int64]]]:
    yield "all kinds", even(kinds, IMAGES)
    yield "half of the kinds", even(kinds // 2, IMAGES // 2)
    yield "long tail", long_tail(kinds, *TAIL[name])


def calibrated(run: LabelledRun, ids: Ids, truth: Truth, seed: int, heads: int) -> Iterator[dict[str, Any]]:
    """A row for each method, images and kind of confidence."""
    order = np.random.default_rng([seed, 1]).permutation(len(ids))
    fitted, new = (np.sort(one) for one in np.split(order, [int(FITTED * len(ids))]))
    for method, model in models(EmbeddingStore.open(run.run.embeddings), ids[fitted], truth[fitted], seed, heads):
        for images, where in (("fitted", fitted), ("new", new)):
            features = EmbeddingStore.open(run.run.embeddings).read(ids[where])
            for told, one in (("posterior alone", replace(model, landmarks=None)), ("confidence", model)):
                found = one.assign(features)
                match = matching(confusion(truth[where], found.cluster))
                right = np.array([match.get(c) == t for c, t in zip(found.cluster, truth[where], strict=True)])
                yield {"method": method, "images": images, "told": told, **figures(found.confidence, right)}


def models(store: EmbeddingStore, ids: Ids, truth: Truth, seed: int, heads: int) -> Iterator[tuple[str, ClusterModel]]:
    k = len(np.unique(truth))
    space = fit_space(store, ids, "cosine", np.random.default_rng([seed, 3]))
    plain, lengths = points_of(space, store, ids)
    found = kmeans.fit(plain, k, np.random.default_rng([seed, k]), starts=4)
    yield "k-means", fit_model(space, found, plain, lengths, seed)
    heard = learning.learn(store, ids, k, seed, heads=heads).placed
    yield "learned", fit_model(heard.space, heard.found, heard.points, heard.lengths, seed, plain, heard.level)
    placed = graph.find(store, ids, k, seed).placed
    yield "graph", fit_model(placed.space, placed.found, placed.points, placed.lengths, seed, plain, placed.level)


def figures(confidence: Float32, right: npt.NDArray[np.bool_]) -> dict[str, Any]:
    """Calibration error, Brier score and how often a right image is told surer than a wrong one, in per cent."""
    found = reliability(confidence, right)
    return {
        "acc": 100 * found.accuracy,
        "mean": 100 * found.confidence,
        "ece": 100 * found.error,
        "brier": 100 * float(np.mean((confidence - right) ** 2)),
        "auroc": 100 * auroc(confidence, right),
        "bins": [[one.confidence, one.accuracy, one.n] for one in found.bins],
    }


def auroc(scores: npt.NDArray[np.floating], positive: npt.NDArray[np.bool_]) -> float:
    from sklearn.metrics import roc_auc_score  # noqa: PLC0415  (half a second)

    return float(roc_auc_score(positive, scores)) if 0 < positive.sum() < len(positive) else float("nan")


def known(run: LabelledRun, out: int, seed: int) -> dict[str, float]:
    """AUROC in per cent of each score of closeness, with kinds kept out of the fit; and the shares called unknown."""
    store = EmbeddingStore.open(run.run.embeddings)
    kinds = np.random.default_rng([5, seed]).permutation(run.kinds)
    inside = np.random.default_rng([6, seed]).permutation(np.flatnonzero(~np.isin(run.truth, kinds[:out])))[:6_000]
    fitted, asked = np.sort(inside[: len(inside) * 2 // 3]), inside[len(inside) * 2 // 3 :]
    others = np.random.default_rng([7, seed]).permutation(np.flatnonzero(np.isin(run.truth, kinds[:out])))[: len(asked)]
    _, model = next(models(store, run.ids[fitted], run.truth[fitted], seed, 4))
    both = run.ids[np.concatenate([asked, others])]
    is_known = np.arange(len(both)) < len(asked)
    found, (points, lengths) = model.assign(store.read(both)), model.space.project(store.read(both))
    centre = (points @ model.centroids.T).max(axis=1)
    inside_share = lengths[:, 0] / np.hypot(lengths[:, 0], lengths[:, 1])
    rows = normalise_rows(store.read(run.ids[fitted]))
    ten = np.partition(normalise_rows(store.read(both)) @ rows.T, -10, axis=1)[:, -10:].mean(axis=1)
    scores = {
        "closeness, as assign has it": centre * inside_share - model.least_closeness[found.cluster],
        "confidence": found.confidence,
        "posterior alone (maximum softmax)": replace(model, landmarks=None).assign(store.read(both)).confidence,
        "cosine to the centroid": centre,
        "mean cosine to the 10 nearest images": ten,
    }
    told = {name: 100 * auroc(values, is_known) for name, values in scores.items()}
    told["told unknown of the known"] = 100 * float(found.unknown[is_known].mean())
    told["told unknown of the others"] = 100 * float(found.unknown[~is_known].mean())
    return told


def table(rows: list[dict[str, Any]], name: str, part: str) -> str:
    lines = [
        f"\n{name}, {part}",
        "| method | images | told | ACC | mean | ECE | Brier | AUROC |",
        "|---|---|---|" + "---:|" * 5,
    ]
    for method, images, told in dict.fromkeys((row["method"], row["images"], row["told"]) for row in rows):
        same = [row for row in rows if (row["method"], row["images"], row["told"]) == (method, images, told)]
        values = (spread([row[key] for row in same]) for key in ("acc", "mean", "ece", "brier", "auroc"))
        lines.append(f"| {method} | {images} | {told} | {' | '.join(values)} |")
    return "\n".join(lines)


def unknown_table(found: dict[str, list[dict[str, float]]]) -> str:
    lines = [f"\n| | {' | '.join(found)} |", "|---|" + "---:|" * len(found)]
    for score in next(iter(found.values()))[0]:
        lines.append(f"| {score} | {' | '.join(spread([one[score] for one in draws]) for draws in found.values())} |")
    return "\n".join(lines)


def spread(values: list[float]) -> str:
    return f"{np.mean(values):.1f} ± {np.std(values, ddof=1) if len(values) > 1 else 0:.1f}"


def draw(rows: list[dict[str, Any]], target: Path) -> None:
    """Reliability diagrams of images that were not fitted: a column a part, a row a method, all seeds."""
    from matplotlib import pyplot  # noqa: PLC0415  (slow to load)

    columns = list(dict.fromkeys((row["set"], row["part"]) for row in rows))
    methods = list(dict.fromkeys(row["method"] for row in rows))
    figure, panels = pyplot.subplots(len(methods), len(columns), figsize=(2.6 * len(columns), 5.4), squeeze=False)
    for line, method in enumerate(methods):
        for panel, column in zip(panels[line], columns, strict=True):
            panel.plot([0, 1], [0, 1], color="0.8", linewidth=1)
            for told, colour in (("posterior alone", "0.6"), ("confidence", "C0")):
                for row in rows:
                    if (row["set"], row["part"], row["method"], row["told"], row["images"]) == (
                        *column,
                        method,
                        told,
                        "new",
                    ):
                        said, right, _ = zip(*(one for one in row["bins"] if one[2] >= 10), strict=True)
                        panel.plot(said, right, ".-", color=colour, linewidth=0.8, markersize=4)
            panel.set(title=f"{column[0]}\n{column[1]}, {method}", xlim=(0, 1), ylim=(0, 1))
            panel.title.set_fontsize(8)
    figure.supxlabel("confidence (blue; grey: posterior alone)")
    figure.supylabel("share right")
    figure.tight_layout()
    figure.savefig(target, dpi=110)


if __name__ == "__main__":
    main()
