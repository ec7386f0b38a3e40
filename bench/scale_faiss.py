"""The faiss side of bench/scale.py, run by the Python of a venv that has faiss-cpu: k-means of all rows of a file.

    python scale_faiss.py FEATURES.npy K

Prints the seconds of the k-means. The rows are read as float32 and scaled to unit length, which is not counted.
"""

import sys
import time

import faiss
import numpy as np

ITERATIONS = 20


def main(features: str, k: str) -> None:
    stored = np.load(features, mmap_mode="r")
    rows = np.empty(stored.shape, np.float32)
    for start in range(0, len(rows), 8192):
        rows[start : start + 8192] = stored[start : start + 8192]
    faiss.normalize_L2(rows)
    began = time.perf_counter()
    faiss.Kmeans(rows.shape[1], int(k), niter=ITERATIONS, spherical=True, seed=1).train(rows)
    print(time.perf_counter() - began, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
