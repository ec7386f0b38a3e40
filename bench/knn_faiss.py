"""The faiss side of bench/knn.py, run by the Python of a venv that has faiss-cpu: one search for each line read.

    python knn_faiss.py FEATURES.npy K THREADS OUT.npy

Reads `search M` from standard input, searches the neighbours of the first M rows, prints the seconds it took, and
leaves their ids [M, K + 1] in OUT.npy. Building the index is not counted.
"""

import sys
import time

import faiss
import numpy as np


def main(features: str, k: str, threads: str, out: str) -> None:
    faiss.omp_set_num_threads(int(threads))
    rows = np.load(features)
    index = faiss.IndexFlatIP(rows.shape[1])
    index.add(rows)
    for line in sys.stdin:
        queries = rows[: int(line.split()[1])]
        began = time.perf_counter()
        _, ids = index.search(queries, int(k) + 1)  # a row finds itself too
        seconds = time.perf_counter() - began
        np.save(out, ids)
        print(seconds, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
