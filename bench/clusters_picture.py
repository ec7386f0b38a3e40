"""Draw docs/images/kinds.png: two small worlds of points, cut by k-means and by learned clusters.

python bench/clusters_picture.py
"""

from __future__ import annotations

from pathlib import Path

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
from matplotlib import pyplot
from scipy.optimize import linear_sum_assignment
from sklearn.metrics import adjusted_rand_score

from shoal.cluster import LearnedClustering, SphericalKMeans

TARGET = Path(__file__).parents[1] / "docs" / "images" / "kinds.png"
WORLDS = {"kinds of one size": (250,) * 6, "a long tail": (900, 350, 130, 60, 35, 25)}
COLOURS = ("#3b6ea5", "#d1793d", "#4f9a5b", "#a34a5a", "#8468a8", "#8a8a4a")
DIMS = 24


def main() -> None:
    mpl.rcParams.update({"font.size": 9})
    figure, axes = pyplot.subplots(2, 3, figsize=(8, 5.2), layout="constrained")
    for row, (name, each) in zip(axes, WORLDS.items(), strict=True):
        points, truth = world(each)
        flat = flattened(points)
        cuts = {
            "the kinds": truth,
            "k-means": SphericalKMeans(len(each), random_state=0).fit(points).labels_,
            "learned": LearnedClustering(len(each), random_state=0).fit(points).labels_,
        }
        for axis, (cut, labels) in zip(row, cuts.items(), strict=True):
            axis.scatter(*flat.T, c=[COLOURS[one] for one in matched(labels, truth)], s=3, linewidths=0)
            score = "" if cut == "the kinds" else f", adjusted Rand {adjusted_rand_score(truth, labels):.2f}"
            axis.set(title=f"{cut}{score}", xticks=[], yticks=[])
        row[0].set_ylabel(name)
    TARGET.parent.mkdir(exist_ok=True)
    figure.savefig(TARGET, dpi=150, metadata={"Software": None})
    print(TARGET)


def world(each: tuple[int, ...]) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
    random = np.random.default_rng(0)
    truth = np.repeat(np.arange(len(each)), each)
    points = 1.6 * random.standard_normal((len(each), DIMS))[truth] + random.standard_normal((len(truth), DIMS))
    return np.maximum(points + 1, 0).astype(np.float32), truth


def flattened(points: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """The two leading principal coordinates."""
    centred = points - points.mean(axis=0)
    return centred @ np.linalg.svd(centred, full_matrices=False)[2][:2].T


def matched(labels: npt.NDArray[np.integer], truth: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """The labels, numbered as the kinds that they match best."""
    table = np.zeros((truth.max() + 1,) * 2, np.int64)
    np.add.at(table, (labels, truth), 1)
    return linear_sum_assignment(-table)[1][labels]


if __name__ == "__main__":
    main()
