"""Exact k-nearest neighbours: ours against faiss.IndexFlatIP, alternating, on the same rows, threads and machine.

    python bench/knn.py [--features FILE.npz] [--rows 50000] [--dim 1280] [--k 50] [--repeats 5]

faiss-cpu is installed into bench/work/faiss. Its wheel carries an old OpenBLAS that knows no processor newer than
itself and then falls back to a kernel of 2004, several times slower; so faiss is also run with OPENBLAS_CORETYPE set
to what numpy's newer OpenBLAS finds here, and the ratio is taken to that, the better of the two. What faiss does as
installed is measured on a tenth of the queries and scaled.

Recall is the share of neighbours whose similarity, in float64, reaches that of the true k-th to 1e-6, on 1,000 rows.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
import venv
from pathlib import Path

import numpy as np
import numpy.typing as npt
import threadpoolctl

from machine import Timing, describe, machine_line, ratio_table, write_result
from shoal.embeddings import Float32, normalise_rows
from shoal.neighbours.exact import exact_neighbours

HERE = Path(__file__).parent
WORK = HERE / "work"
FAISS = "faiss-cpu==1.15.1"
CHECKED_ROWS = 1000


class Faiss:
    """A process of the venv with faiss, holding the rows in an index."""

    def __init__(self, python: Path, features: Path, k: int, threads: int, coretype: str | None) -> None:
        self._out = WORK / f"knn-faiss-{coretype or 'installed'}.npy"
        environment = {**os.environ, "OMP_WAIT_POLICY": "passive"} | (
            {"OPENBLAS_CORETYPE": coretype} if coretype else {}
        )
        command = [str(python), str(HERE / "knn_faiss.py"), str(features), str(k), str(threads), str(self._out)]
        self._process = subprocess.Popen(
            command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def search(self, queries: int) -> float:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print("search", queries, file=self._process.stdin, flush=True)
        return float(self._process.stdout.readline())

    def ids(self) -> npt.NDArray[np.int64]:
        found: npt.NDArray[np.int64] = np.load(self._out)
        return found

    def close(self) -> None:
        self._process.communicate()


def faiss_python() -> Path:
    folder = WORK / "faiss"
    python = folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    if not python.exists():
        venv.create(folder, with_pip=True)
    subprocess.run([python, "-m", "pip", "install", "--quiet", FAISS, "numpy"], check=True)
    return python


def clustered_rows(n: int, d: int, seed: int = 0) -> Float32:
    """Non-negative rows, as pooled features are: 100 clusters in 64 dimensions, spread over d by a ReLU layer."""
    random = np.random.default_rng(seed)
    centres = random.standard_normal((100, 64), dtype=np.float32)
    hidden = centres[random.integers(0, 100, n)] + random.standard_normal((n, 64), dtype=np.float32)
    layer = random.standard_normal((64, d), dtype=np.float32) / 8
    noise = random.standard_normal((n, d), dtype=np.float32)
    return np.maximum(hidden @ layer + 0.5 * noise, 0)


def recall(rows: Float32, found: npt.NDArray[np.integer], k: int) -> float:
    """Of the neighbours in `found` [n, k or more] of evenly spread rows, the row itself left out."""
    checked = np.linspace(0, len(found) - 1, CHECKED_ROWS).astype(int)
    true = rows[checked].astype(np.float64) @ rows.T.astype(np.float64)
    true[np.arange(len(checked)), checked] = -np.inf
    kth = -np.partition(-true, k - 1, axis=1)[:, k - 1]
    reached = 0
    for position, row in enumerate(checked):
        others = found[row][found[row] != row][:k]
        reached += int((true[position, others] >= kth[position] - 1e-6).sum())
    return reached / (len(checked) * k)


def timed_ours(rows: Float32, k: int, threads: int) -> tuple[float, npt.NDArray[np.int32]]:
    began = time.perf_counter()
    ids, _ = exact_neighbours(rows, k, threads=threads)
    return time.perf_counter() - began, ids


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--features", type=Path, help="an .npz with an array `features` [n, d]; default: made ones")
    parser.add_argument("--rows", type=int, default=50_000)
    parser.add_argument("--dim", type=int, default=1280, help="of made features")
    parser.add_argument("--k", type=int, default=50)
    parser.add_argument("--repeats", type=int, default=5)
    asked = parser.parse_args()
    WORK.mkdir(exist_ok=True)
    python = faiss_python()
    if asked.features:
        rows = np.load(asked.features)["features"][: asked.rows].astype(np.float32)
    else:
        rows = clustered_rows(asked.rows, asked.dim)
    normalise_rows(rows)
    file = WORK / "knn-rows.npy"
    np.save(file, rows)
    threads = describe()["cores"]
    coretype = next(pool["architecture"] for pool in threadpoolctl.threadpool_info() if pool["user_api"] == "blas")

    tuned = Faiss(python, file, asked.k, threads, coretype)
    timed_ours(rows[:5000], asked.k, threads)  # warm up
    tuned.search(5000)
    ours, theirs = [], []
    for repeat in range(asked.repeats):
        seconds, ids = timed_ours(rows, asked.k, threads)
        ours.append(seconds)
        theirs.append(tuned.search(len(rows)))
        print(f"repeat {repeat + 1}: ours {ours[-1]:.1f} s, faiss {theirs[-1]:.1f} s", file=sys.stderr)
    recalls = {"ours": recall(rows, ids, asked.k), "faiss": recall(rows, tuned.ids(), asked.k)}
    tuned.close()
    installed = Faiss(python, file, asked.k, threads, None)
    as_installed = installed.search(len(rows) // 10) * 10
    installed.close()

    timings = [("faiss.IndexFlatIP", Timing(tuple(theirs))), ("ours", Timing(tuple(ours)))]
    result = {
        "task": f"exact {asked.k} nearest neighbours of each of {rows.shape} rows, {threads} threads",
        "data": asked.features.name if asked.features else "clustered_rows(seed=0)",
        "faiss": f"{FAISS}, OPENBLAS_CORETYPE={coretype}",
        "seconds": {name: timing.to_json() for name, timing in timings},
        "ratio": timings[1][1].median / timings[0][1].median,
        "faiss_as_installed_seconds_from_a_tenth": as_installed,
        "recall": recalls,
    }
    name = "knn" if asked.features is None else f"knn-{asked.features.stem}"
    written = write_result(name, result)
    print(ratio_table(timings, "faiss.IndexFlatIP"))
    print(f"\nfaiss as installed: about {as_installed:.0f} s; recall {recalls}; {written}")
    print(machine_line(describe()))


if __name__ == "__main__":
    main()
