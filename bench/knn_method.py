"""One way to find neighbours, for bench/knn.py, in a process of its own: prints what it took as a line of JSON.

    python knn_method.py METHOD FOLDER THREADS

`ours` searches the embeddings in FOLDER/embeddings with Shoal. The others are run by the Python of a venv that has
them, and imported where they are used, since no process has all: they search FOLDER/reduced.npy (float32 [n, r], as
`ours` reduced them) for the 97 nearest of each row, itself among them, which Shoal then re-ranks. Leaves ids [n, 50] or
[n, 97] in FOLDER/METHOD.npy.
"""

import json
import os
import sys
import threading
import time
from pathlib import Path

import numpy as np

K, CANDIDATES = 50, 97


def ours(folder, threads):
    from shoal import cores  # noqa: PLC0415
    from shoal.embeddings import EmbeddingStore  # noqa: PLC0415
    from shoal.executor import HERE  # noqa: PLC0415
    from shoal.neighbours.approximate import Search  # noqa: PLC0415
    from shoal.neighbours.work import search_by  # noqa: PLC0415
    from shoal.progress import TerminalProgress  # noqa: PLC0415

    store = EmbeddingStore.open(folder / "embeddings")
    search = Search.within(folder / "search", store, np.arange(store.rows), K)
    cores.use(threads)
    search_by(HERE, search, folder, TerminalProgress())
    ids = np.empty((store.rows, K), np.int32)
    for found in search.found():
        ids[found.rows] = found.neighbours
    return ids


def faiss_ivf_pq(rows, threads):
    """Cells as many as ours, 4-bit codes scanned in registers, as faiss's own guide has it for a million."""
    return _faiss_ivf(rows, threads, f"PQ{rows.shape[1] // 2}x4fs", 2 * CANDIDATES)


def faiss_ivf_flat(rows, threads):
    return _faiss_ivf(rows, threads, "Flat", CANDIDATES)


def _faiss_ivf(rows, threads, kept, count):
    import faiss  # noqa: PLC0415

    faiss.omp_set_num_threads(threads)
    index = faiss.index_factory(rows.shape[1], f"IVF{2 * int(len(rows) ** 0.5)},{kept}")
    index.train(rows[:: max(1, len(rows) // 65_536)])
    index.add(rows)
    index.nprobe = 64
    return index.search(rows, count)[1]


def faiss_hnsw(rows, threads):
    import faiss  # noqa: PLC0415

    faiss.omp_set_num_threads(threads)
    index = faiss.IndexHNSWFlat(rows.shape[1], 16)
    index.hnsw.efConstruction = 100
    index.hnsw.efSearch = 128
    index.add(rows)
    return index.search(rows, CANDIDATES)[1]


def hnswlib(rows, threads):
    import hnswlib  # noqa: PLC0415

    index = hnswlib.Index("l2", rows.shape[1])
    index.init_index(len(rows), M=16, ef_construction=100)
    index.set_num_threads(threads)
    index.add_items(rows)
    index.set_ef(128)
    return index.knn_query(rows, CANDIDATES)[0]


def usearch(rows, threads):
    from usearch.index import Index  # noqa: PLC0415

    index = Index(
        ndim=rows.shape[1], metric="ip", dtype="f16", connectivity=16, expansion_add=100, expansion_search=128
    )
    index.add(np.arange(len(rows)), rows, threads=threads)
    found = np.full((len(rows), CANDIDATES), -1, np.int32)
    for start in range(0, len(rows), 65_536):
        keys = index.search(rows[start : start + 65_536], CANDIDATES, threads=threads).keys
        found[start : start + len(keys), : keys.shape[1]] = keys
    return found


def pynndescent(rows, threads):
    from pynndescent import NNDescent  # noqa: PLC0415

    return NNDescent(rows, n_neighbors=CANDIDATES, metric="euclidean", n_jobs=threads, random_state=0).neighbor_graph[0]


class Memory(threading.Thread):
    """Watches the process's own memory: anonymous, without maps of files; and the most of both that was resident."""

    def __init__(self):
        super().__init__(daemon=True)
        self.anonymous = self.resident = 0

    def run(self):
        while True:
            for line in Path("/proc/self/status").read_text().splitlines():
                if line.startswith("RssAnon"):
                    self.anonymous = max(self.anonymous, int(line.split()[1]) * 1024)
                elif line.startswith("VmHWM"):
                    self.resident = int(line.split()[1]) * 1024
            time.sleep(0.1)


def main(method, folder, threads):
    folder, threads = Path(folder), int(threads)
    memory = Memory()
    memory.start()
    given = (folder,) if method == "ours" else (np.load(folder / "reduced.npy", mmap_mode="r"),)
    before, began = time.process_time(), time.perf_counter()
    ids = globals()[method](*given, threads)
    took = {"seconds": time.perf_counter() - began, "cpu_seconds": time.process_time() - before}
    np.save(folder / f"{method}.npy", ids.astype(np.int32))
    print(json.dumps(took | {"anonymous_bytes": memory.anonymous, "resident_bytes": memory.resident}), flush=True)
    os._exit(0)


if __name__ == "__main__":
    main(*sys.argv[1:])
