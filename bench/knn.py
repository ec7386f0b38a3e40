"""Approximate nearest neighbours: ours beside well-kept libraries, on features of real images.

    python bench/knn.py EMBEDDINGS [--rows 1000000] [--noise 0.3] [--only ours …] [--threads 2] [--work DIR]

EMBEDDINGS is the `embeddings` folder of a run. Without --rows they are taken as they are; with it they are repeated up
to that many, each copy with noise of its own: normal, of `--noise` times each feature's standard deviation.

Ours is the whole search, from the embeddings on disk to ids and similarities. The libraries (installed into
bench/work/knn) only index and search rows that Shoal has reduced already, for candidates that Shoal then re-ranks:
their times are without either. Each runs in a process of its own. Recall is the share of neighbours whose similarity
reaches that of the true k-th to 1e-6, on 400 rows. Up to 100,000 rows every way is run again with one thread, to see
whether that changes its bytes.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import subprocess
import sys
import venv
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from machine import describe, machine_line, write_result
from shoal.atomic import write_json, writing_array
from shoal.embeddings import PART_ROWS, EmbeddingStore, normalise_rows, products
from shoal.neighbours.approximate import Search
from shoal.neighbours.placing import best_of
from shoal.neighbours.plan import load_array

HERE = Path(__file__).parent
LIBRARIES = {
    "faiss_ivf_pq": "faiss-cpu==1.15.1",
    "faiss_ivf_flat": "faiss-cpu==1.15.1",
    "faiss_hnsw": "faiss-cpu==1.15.1",
    "hnswlib": "hnswlib==0.8.0",
    "usearch": "usearch==2.26.6",
    "pynndescent": "pynndescent==0.7.0",
}
ASKED = 400
K = 50
TWICE_UP_TO = 100_000


def write_features(source: EmbeddingStore, folder: Path, rows: int, noise: float) -> None:
    """Rows of `source`, repeated with noise up to `rows`, as an `embeddings` folder."""
    folder.mkdir(parents=True, exist_ok=True)
    x = source.read(np.arange(source.rows))
    spread = x.std(axis=0) * np.float32(noise)
    random = np.random.default_rng(0)
    parts = []
    for number, start in enumerate(range(0, rows, PART_ROWS)):
        ids = np.arange(start, min(start + PART_ROWS, rows))
        values = x[ids % len(x)] + spread * random.standard_normal((len(ids), source.dim), dtype=np.float32)
        parts.append({"file": f"part-{number:05d}.npy"})
        np.save(folder / parts[-1]["file"], np.maximum(values, 0).astype(np.float16))  # as pooled after a ReLU
    write_json(folder / "manifest.json", {"rows": rows, "dim": source.dim, "dtype": "float16", "parts": parts})


def true_kth(store: EmbeddingStore, asked: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
    """The similarity of the true k-th neighbour of each of `asked`."""
    queries = normalise_rows(store.read(asked))
    best = np.empty((len(asked), 0), dtype=np.float32)
    for where, rows in store.blocks(np.arange(store.rows)):
        similarity = queries @ normalise_rows(rows).T
        inside = np.flatnonzero((asked >= where.start) & (asked < where.stop))
        similarity[inside, asked[inside] - where.start] = -np.inf
        both = np.concatenate([best, similarity], axis=1)
        best, _ = best_of(both, np.zeros(both.shape, dtype=np.int64), K)
    return best.min(axis=1)


def recall(store: EmbeddingStore, found: npt.NDArray[np.int32], asked: npt.NDArray[np.int64], kth: Any) -> float:
    """Of what was found, re-ranked, [n, K or more]: the share that is as near as the true k-th."""
    reached = 0
    for row, bar in zip(asked.tolist(), kth.tolist(), strict=True):
        others = found[row][(found[row] != row) & (found[row] >= 0)].astype(np.int64)
        similarity = products(normalise_rows(store.read(others)), normalise_rows(store.read(np.array([row]))))[:, 0]
        reached += min(K, int((similarity >= bar - 1e-6).sum()))
    return reached / (len(asked) * K)


def library_python(work: Path) -> Path:
    """The Python of a venv with all of the libraries."""
    python = work / "libraries/bin/python"
    if not python.exists():
        venv.create(work / "libraries", with_pip=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", *sorted(set(LIBRARIES.values()))], check=True)
    return python


def measured(method: str, work: Path, threads: int) -> dict[str, Any]:
    """Run one way; what it took, and a digest of what it found."""
    python = sys.executable if method == "ours" else str(library_python(work))
    command = [python, str(HERE / "knn_method.py"), method, str(work), str(threads)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    found = np.load(work / f"{method}.npy")
    took: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return {**took, "digest": hashlib.sha256(found.tobytes()).hexdigest()}


def write_reduced(work: Path, search: Search) -> None:
    """The rows as ours reduced them, by position, for the libraries."""
    shape = (len(search.ids), search.plan().projection.shape[1])
    with writing_array(work / "reduced.npy", shape, np.float32) as append:
        for file in sorted(search.folder.glob("placed-*.safetensors")):
            append(load_array(file, "reduced"))


def start_anew(search: Search) -> None:
    for made in search.folder.glob("*"):
        made.unlink()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("embeddings", type=Path)
    parser.add_argument("--rows", type=int)
    parser.add_argument("--noise", type=float, default=0.3)
    parser.add_argument("--only", nargs="+", default=["ours", *LIBRARIES], choices=["ours", *LIBRARIES])
    parser.add_argument("--threads", type=int, default=describe()["cores"])
    parser.add_argument("--work", type=Path, default=HERE / "work/knn")
    asked = parser.parse_args()
    asked.work.mkdir(parents=True, exist_ok=True)
    features = asked.work / "embeddings"
    if asked.rows is None:
        features.unlink(missing_ok=True)
        features.symlink_to(asked.embeddings.absolute())
    else:
        write_features(EmbeddingStore.open(asked.embeddings), features, asked.rows, asked.noise)
    store = EmbeddingStore.open(features)
    rows = np.sort(np.random.default_rng(1).choice(store.rows, ASKED, replace=False))
    kth = true_kth(store, rows)
    data = "as they are" if asked.rows is None else f"repeated with noise of {asked.noise}"
    name = f"knn-{store.rows}" if asked.rows is None else f"knn-{store.rows}-{asked.noise}"
    ways: dict[str, Any] = {}
    for method in asked.only:
        search = Search.within(asked.work / "search", store, np.arange(store.rows), K)
        if method == "ours":
            start_anew(search)
        elif not (asked.work / "reduced.npy").is_file():
            write_reduced(asked.work, search)
        way = measured(method, asked.work, asked.threads)
        way["recall"] = recall(store, np.load(asked.work / f"{method}.npy"), rows, kth)
        if method == "ours":
            way["recall_told"] = search.recall()
        if store.rows <= TWICE_UP_TO:
            if method == "ours":
                start_anew(search)
            way["same_bytes_with_one_thread"] = measured(method, asked.work, 1)["digest"] == way["digest"]
        ways[method] = way
        print(method, {key: round(value, 3) if isinstance(value, float) else value for key, value in way.items()})
        shape = f"{store.rows:,} x {store.dim} {store.dtype}, {data}, k = {K}, {asked.threads} threads"
        written = write_result(name, {"features": shape, "libraries": LIBRARIES, "ways": ways})
    print(written, machine_line(describe()))


if __name__ == "__main__":
    main()
