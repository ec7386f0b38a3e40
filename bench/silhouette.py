"""The exact cosine silhouette beside scikit-learn's, on the same points, in one run.

python bench/silhouette.py [--images 20000] [--dims 256] [--clusters 20] [--repeats 3]
"""

from __future__ import annotations

import argparse

import numpy as np
from sklearn.metrics import silhouette_samples

from machine import measure, ratio_table, write_result
from shoal.cluster.number import silhouette
from shoal.embeddings import normalise_rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    for name, default in (("--images", 20_000), ("--dims", 256), ("--clusters", 20), ("--repeats", 3)):
        parser.add_argument(name, type=int, default=default)
    asked = parser.parse_args()
    generator = np.random.default_rng(0)
    labels = generator.integers(0, asked.clusters, asked.images).astype(np.int32)
    centres = generator.standard_normal((asked.clusters, asked.dims))
    noise = generator.standard_normal((asked.images, asked.dims))
    points = normalise_rows((centres[labels] + 2 * noise).astype(np.float32))
    ours = measure(lambda: silhouette.cosine(points, labels, asked.clusters), asked.repeats)
    theirs = measure(lambda: silhouette_samples(points, labels, metric="cosine"), asked.repeats, warm_up=0)
    expected = silhouette_samples(points.astype(np.float64), labels, metric="cosine")
    difference = float(np.abs(silhouette.cosine(points, labels, asked.clusters) - expected).max())
    print(ratio_table([("Shoal", ours), ("scikit-learn", theirs)], "scikit-learn"))
    print(f"largest difference to scikit-learn in double precision: {difference:.1e}")
    write_result(
        "silhouette",
        {
            "asked": vars(asked),
            "shoal": ours.to_json(),
            "scikit-learn": theirs.to_json(),
            "ratio": theirs.median / ours.median,
            "largest_difference": difference,
        },
    )


if __name__ == "__main__":
    main()
