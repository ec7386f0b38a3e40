"""Is the page's server quick and small on 100,000 images? Ready time, first clusters, latencies under load, searches
by words and by an image, edits, memory.

    python bench/browse.py [--images 100000] [--seconds 60] [--rate 20] [--make-only]

A small run of photographs is made for real, and its images are repeated, each time with features moved a little, until
there are enough. The load is open-loop: requests start at their time whatever the server does, as people's do.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import psutil

from machine import describe, machine_line, write_result
from photos import WORK, photo_folder

SMALL = 1000
NOT_COPIED = ("cache", "report", "embeddings", "neighbours", "classes", "generations", "lock*")
CLUSTERS = 40
GOALS = {"ready_s": 2.0, "first_clusters_s": 1.5, "p95_ms": 50.0, "words_p95_ms": 100.0, "memory_mb": 500.0}
QUERIES = ("bird -penguin", "lakeside", "flower", "palace", "daisy dome", "animal", '"sea shore" -boat', "church")
WARM_UP_SECONDS = 2


def main() -> None:
    parser = argparse.ArgumentParser(description="The page's server on many images.")
    parser.add_argument("--images", type=int, default=100_000)
    parser.add_argument("--seconds", type=int, default=60, help="how long the load lasts")
    parser.add_argument("--rate", type=float, default=20.0, help="requests a second")
    parser.add_argument("--make-only", action="store_true", help="only make the run, and say where it is")
    options = parser.parse_args()
    run = large_run(options.images)
    if options.make_only:
        print(run)
        return
    shutil.rmtree(run / "cache", ignore_errors=True)
    (run / "edits.jsonl").unlink(missing_ok=True)
    found = {"images": options.images, "rate": options.rate, "seconds": options.seconds, "goals": GOALS}
    found["load"] = os.getloadavg()[0]
    with Served(run) as served:
        found |= served.opening()
        found["requests"] = load(served, options.rate, options.seconds, options.images)
        found["memory_mb_after_load"] = served.memory()
        found["words"] = words(served)
        found["edit_ms"] = edits(served)
        found["search_s"] = search(served)
        found["memory_mb_after_search"] = served.memory()
    found["refit_s"], found["memory_mb_after_refit"] = refit(run)
    write_result("browse", found)
    print(json.dumps(found, indent=2))
    print(machine_line(describe()))


# -- the run -----------------------------------------------------------------------------------------------------------


def large_run(images: int) -> Path:
    """bench/work/browse-IMAGES.shoal, made on first use."""
    target = WORK / f"browse-{images}.shoal"
    if not (target / "run.json").is_file():
        shutil.rmtree(target, ignore_errors=True)
        _repeat(_small_run(), target, images)
    return target


def _small_run() -> Path:
    run = WORK / "browse-small.shoal"
    folder = photo_folder(SMALL)
    command = [sys.executable, "-m", "shoal", "cluster", str(folder), "--out", str(run), "--clusters", str(CLUSTERS)]
    subprocess.run(command, check=True)
    return run


def _repeat(small: Path, target: Path, images: int) -> None:
    """Every table of the small run, its rows repeated under new ids; features, places and confidences moved.

    As a run of before generations, whose files all lie at its root.
    """
    import pyarrow as pa  # noqa: PLC0415
    import pyarrow.parquet as pq  # noqa: PLC0415

    from shoal.embeddings import PART_ROWS, EmbeddingStore  # noqa: PLC0415

    generator = np.random.default_rng(0)
    source = np.arange(images) % SMALL
    ids = pa.array(np.arange(images), pa.int64())
    made = target.with_suffix(".part")
    shutil.rmtree(made, ignore_errors=True)
    shutil.copytree(small, made, ignore=shutil.ignore_patterns(*NOT_COPIED))
    for name in ("images", "clusters", "levels", "map"):
        table = pq.read_table(small / f"{name}.parquet").take(source)
        table = table.set_column(0, "id", ids)
        if "path" in table.column_names:
            paths = [f"copy {number // SMALL}/{path}" for number, path in enumerate(table["path"].to_pylist())]
            table = table.set_column(table.column_names.index("path"), "path", pa.array(paths))
        for column in {"x", "y"} & set(table.column_names):
            moved = table[column].to_numpy() + generator.normal(0, 1, images).astype(np.float32)
            table = table.set_column(table.column_names.index(column), column, pa.array(moved))
        if name == "clusters":
            confidence = np.clip(table["confidence"].to_numpy() + generator.normal(0, 0.02, images), 0, 1)
            place = table.column_names.index("confidence")
            table = table.set_column(place, "confidence", pa.array(confidence.astype(np.float32)))
        pq.write_table(table, made / f"{name}.parquet", compression="zstd")
    store = EmbeddingStore.open(small / "embeddings")
    rows = store.read(np.arange(SMALL))
    (made / "embeddings").mkdir()
    parts = []
    for start in range(0, images, PART_ROWS):
        stop = min(start + PART_ROWS, images)
        block = rows[source[start:stop]]
        block = block + generator.normal(0, 0.02, block.shape) * np.abs(block)
        part = f"part-{start // PART_ROWS:05d}.npy"
        np.save(made / "embeddings" / part, block.astype(store.dtype))
        parts.append({"file": part, "start": start, "stop": stop})
    manifest = json.loads((small / "embeddings" / "manifest.json").read_text())
    (made / "embeddings" / "manifest.json").write_text(json.dumps({**manifest, "rows": images, "parts": parts}))
    (made / "neighbours").mkdir()
    neighbours = np.load(small / "neighbours" / "ids.npy")
    shifted = neighbours[source] + (np.arange(images) // SMALL * SMALL)[:, None]
    shifted = np.where((neighbours[source] >= 0) & (shifted < images), shifted, -1).astype(np.int32)
    np.save(made / "neighbours" / "ids.npy", shifted)
    np.save(made / "neighbours" / "similarity.npy", np.load(small / "neighbours" / "similarity.npy")[source])
    state = json.loads((small / "run.json").read_text())
    (made / "run.json").write_text(json.dumps({key: state[key] for key in state if key != "generation"}))
    (made / "classes").mkdir()
    for name in ("ids", "probabilities"):
        np.save(made / "classes" / f"{name}.npy", np.load(small / "classes" / f"{name}.npy")[source])
    made.rename(target)


# -- the server --------------------------------------------------------------------------------------------------------


class Served:
    """A server in a process of its own, as `shoal browse` starts it."""

    def __init__(self, run: Path) -> None:
        self._command = [sys.executable, "-m", "shoal", "browse", str(run), "--no-open"]

    def __enter__(self) -> Served:
        began = time.perf_counter()
        self._process = subprocess.Popen(self._command, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        self.address = self._process.stdout.readline().split()[-1]
        address, token = self.address.split("/#token=")
        limits = httpx.Limits(max_connections=64, max_keepalive_connections=64)
        self.client = httpx.Client(base_url=address, headers={"x-shoal-token": token}, limits=limits, timeout=120)
        self.client.get("/")
        self._ready = time.perf_counter() - began
        return self

    def __exit__(self, *error: object) -> None:
        self.client.close()
        self._process.terminate()
        self._process.wait(10)

    def opening(self) -> dict[str, float]:
        """What a person who opens the page waits for: the server, then the first clusters with their pictures."""
        began = time.perf_counter()
        self.client.get("/api/session").raise_for_status()
        self.client.get("/api/run").raise_for_status()
        cards = self.client.get("/api/clusters").raise_for_status().json()["clusters"]
        listed = time.perf_counter() - began
        first = [image for card in cards[:12] for image in card["prototypes"][:4]]
        with ThreadPoolExecutor(6) as pool:  # as many connections as a browser opens
            list(pool.map(lambda image: self.client.get(f"/api/images/{image}/thumb?size=192"), first))
        return {
            "ready_s": round(self._ready, 3),
            "first_clusters_s": round(listed, 3),
            "first_pictures_s": round(time.perf_counter() - began, 3),
            "memory_mb_opened": self.memory(),
        }

    def memory(self) -> float:
        """Resident set of the server, MB."""
        return round(psutil.Process(self._process.pid).memory_info().rss / 1e6, 1)


def load(served: Served, rate: float, seconds: int, images: int) -> dict[str, Any]:
    """Requests as people make them, started at their times; latencies in ms by kind, and the most memory held."""
    generator = np.random.default_rng(0)
    cards = served.client.get("/api/clusters").json()["clusters"]
    contents = itertools.cycle(generator.permutation(SMALL).tolist())

    def thumb() -> str:
        """Equal images share their picture: another content each time, so that most pictures have to be made."""
        image = next(contents) + SMALL * int(generator.integers(images // SMALL))
        return f"/api/images/{image}/thumb?size=192"

    def page() -> str:
        card = cards[generator.integers(len(cards))]
        offset = generator.integers(max(1, card["size"] - 200))
        return f"/api/clusters/{card['id']}/images?offset={offset}&limit=200"

    kinds: list[tuple[str, float, Callable[[], str]]] = [
        ("thumb", 0.6, thumb),
        ("cluster images", 0.2, page),
        ("image", 0.12, lambda: f"/api/images/{generator.integers(images)}"),
        ("clusters", 0.04, lambda: "/api/clusters"),
        ("run", 0.04, lambda: "/api/run"),
    ]
    names = generator.choice(len(kinds), int(rate * seconds), p=[share for _, share, _ in kinds])
    wanted = [(kinds[number][0], kinds[number][2]()) for number in names]
    taken: list[tuple[str, float]] = []
    peak = [served.memory()]
    done = threading.Event()

    def watch() -> None:
        while not done.wait(0.25):
            peak[0] = max(peak[0], served.memory())

    def ask(kind: str, address: str, due: float) -> None:
        time.sleep(max(0.0, due - time.perf_counter()))
        served.client.get(address).raise_for_status()
        taken.append((kind, 1000 * (time.perf_counter() - due)))

    watcher = threading.Thread(target=watch)
    watcher.start()
    start = time.perf_counter() + 0.5
    with ThreadPoolExecutor(64) as pool:
        for number, (kind, address) in enumerate(wanted):
            due = start + number / rate
            time.sleep(max(0.0, due - time.perf_counter() - 0.2))
            pool.submit(ask, kind, address, due)
    done.set()
    watcher.join()
    kept = taken[int(WARM_UP_SECONDS * rate) :]
    found: dict[str, Any] = {"count": len(kept), "memory_mb_peak": peak[0], "all": _quantiles([ms for _, ms in kept])}
    for kind, _, _ in kinds:
        found[kind] = _quantiles([ms for name, ms in kept if name == kind])
    return found


def _quantiles(latencies: list[float]) -> dict[str, float]:
    p50, p95, p99 = np.percentile(latencies, [50, 95, 99])
    return {
        "p50_ms": round(p50, 1),
        "p95_ms": round(p95, 1),
        "p99_ms": round(p99, 1),
        "max_ms": round(max(latencies), 1),
    }


def edits(served: Served) -> dict[str, float]:
    """Milliseconds of one edit of each kind, and of the clusters after it."""
    taken = {}

    def edit(op: str, **values: Any) -> None:
        seen = served.client.get("/api/run").json()
        began = time.perf_counter()
        body = {"op": op, "base": seen["base"], "base_version": seen["version"], **values}
        served.client.post("/api/edits", json=body).raise_for_status()
        served.client.get("/api/clusters").raise_for_status()
        taken[op] = round(1000 * (time.perf_counter() - began), 1)

    edit("rename", cluster=0, name="first")
    edit("merge", clusters=[1, 2])
    began = time.perf_counter()
    preview = served.client.post("/api/split/preview", json={"cluster": 1, "parts": 3}).raise_for_status().json()
    taken["preview of a split"] = round(1000 * (time.perf_counter() - began), 1)
    edit("split", cluster=1, token=preview["token"])
    edit("move", ids=list(range(0, 3000, 3)), cluster=0)
    edit("noise", ids=[5, 7, 11])
    edit("undo")
    return taken


def words(served: Served) -> dict[str, float]:
    """Milliseconds of searches by words, the first of which opens what they need."""

    def ask(number: int) -> float:
        began = time.perf_counter()
        asked = {"words": QUERIES[number % len(QUERIES)], "limit": 200}
        served.client.get("/api/find", params=asked).raise_for_status()
        return 1000 * (time.perf_counter() - began)

    first = ask(0)
    return {"first_ms": round(first, 1), **_quantiles([ask(number) for number in range(25 * len(QUERIES))])}


def search(served: Served) -> dict[str, float]:
    """Seconds of the first search, which starts the encoder, and of the next ones."""
    picture = next(photo_folder(SMALL).iterdir()).read_bytes()
    taken = []
    for _ in range(4):
        began = time.perf_counter()
        served.client.post("/api/search", files={"image": ("photo.jpg", picture)}).raise_for_status()
        taken.append(time.perf_counter() - began)
    return {"first": round(taken[0], 3), "next": round(sorted(taken[1:])[1], 3)}


def refit(run: Path) -> tuple[float, float]:
    """Seconds that applying the corrections takes, on a copy of the run, and the memory of the server afterwards."""
    copy = run.with_name("browse-refit.shoal")
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(run, copy, ignore=shutil.ignore_patterns("cache"))
    try:
        with Served(copy) as served:
            seen = served.client.get("/api/run").json()
            began = time.perf_counter()
            body = {"base": seen["base"], "base_version": seen["version"]}
            job = served.client.post("/api/refit", json=body).raise_for_status().json()["job"]
            while (state := served.client.get(f"/api/jobs/{job}").json())["state"] == "running":
                time.sleep(0.1)
            if state["state"] != "done":
                raise RuntimeError(state["message"])
            return round(time.perf_counter() - began, 2), served.memory()
    finally:
        shutil.rmtree(copy)


if __name__ == "__main__":
    main()
