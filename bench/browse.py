"""Is the page's server quick and small on 100,000 images, or a million? Ready time, first clusters, latencies under
load, searches by words and by an image, edits, edits after 1,000 others, memory.

    python bench/browse.py [--images 100000] [--clusters 40] [--seconds 60] [--rate 20] [--no-refit] [--make-only]

A small run of photographs is made for real, and its images are repeated, each time with features moved a little, until
there are enough. The load is open-loop: requests start at their time whatever the server does, as people's do.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import httpx
import numpy as np

from edits import edit_until
from machine import describe, machine_line, write_result
from photos import WORK, photo_folder
from repeated import repeat
from shoal.browse.run_view import RunView
from shoal.rundir import RunDir

SMALL = 1000
REPEATS = 3  # edits of each kind
MANY_EDITS = 1000
CLUSTERS = 40
GOALS = {
    "ready_s": 2.0,
    "first_clusters_s": 1.5,
    "p95_ms": 50.0,
    "words_p95_ms": 100.0,
    "memory_mb": 1000.0,
    "edit_ms": 150.0,
}
QUERIES = ("bird -penguin", "lakeside", "flower", "palace", "daisy dome", "animal", '"sea shore" -boat', "church")
WARM_UP_SECONDS = 2


def main() -> None:
    parser = argparse.ArgumentParser(description="The page's server on many images.")
    parser.add_argument("--images", type=int, default=100_000)
    parser.add_argument("--seconds", type=int, default=60, help="how long the load lasts")
    parser.add_argument("--rate", type=float, default=20.0, help="requests a second")
    parser.add_argument("--clusters", type=int, default=CLUSTERS, help=f"of the made run, a multiple of {CLUSTERS}")
    parser.add_argument(
        "--no-refit", action="store_true", help="do not apply the corrections, for which the run is copied"
    )
    parser.add_argument("--make-only", action="store_true", help="only make the run, and say where it is")
    options = parser.parse_args()
    run = large_run(options.images, options.clusters)
    if options.make_only:
        print(run)
        return
    shutil.rmtree(run / "cache", ignore_errors=True)
    (run / "edits.jsonl").unlink(missing_ok=True)
    found = {
        "images": options.images,
        "clusters": options.clusters,
        "rate": options.rate,
        "seconds": options.seconds,
        "goals": GOALS,
    }
    found["load"] = os.getloadavg()[0]
    with Served(run) as served:
        found |= served.opening()
        found["requests"] = load(served, options.rate, options.seconds, options.images)
        found["memory_mb_after_load"] = served.memory()
        found["words"] = words(served)
        found["edit_ms"] = edits(served)
        found["search_s"] = search(served)
        found["memory_mb_after_search"] = served.memory()
    edit_until(RunView(RunDir.open(run)), MANY_EDITS, np.random.default_rng(1))
    with Served(run) as served:
        found[f"after_{MANY_EDITS}_edits"] = served.opening() | {"edit_ms": edits(served), "memory_mb": served.memory()}
    if not options.no_refit:
        found["refit_s"], found["memory_mb_after_refit"] = refit(run)
    (run / "edits.jsonl").unlink()
    write_result("browse", found)
    print(json.dumps(found, indent=2))
    print(machine_line(describe()))


# -- the run -----------------------------------------------------------------------------------------------------------


def large_run(images: int, clusters: int = CLUSTERS) -> Path:
    """bench/work/browse-IMAGES[-CLUSTERS].shoal, made on first use."""
    if images < SMALL * (clusters // CLUSTERS):
        raise SystemExit(f"--clusters {clusters} needs --images {SMALL * (clusters // CLUSTERS)} or more")
    target = WORK / ("-".join(["browse", str(images)] + [str(clusters)] * (clusters != CLUSTERS)) + ".shoal")
    if not (target / "run.json").is_file():
        shutil.rmtree(target, ignore_errors=True)
        repeat(_small_run(), target, images, clusters // CLUSTERS)
    return target


def _small_run() -> Path:
    run = WORK / "browse-small.shoal"
    folder = photo_folder(SMALL)
    command = [sys.executable, "-m", "shoal", "cluster", str(folder), "--out", str(run), "--clusters", str(CLUSTERS)]
    subprocess.run(command, check=True)
    return run


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
        """What the server itself holds, MB: pages of the files that it maps are the system's."""
        status = Path(f"/proc/{self._process.pid}/status").read_text()
        return round(int(re.search(r"RssAnon:\s+(\d+) kB", status)[1]) * 1024 / 1e6, 1)  # type: ignore[index]


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

    west, south, east, north = np.frombuffer(served.client.get("/api/map").content, "<f4", 4, 12).tolist()

    def part_of_map() -> str:
        """From a quarter of its width down to a hundredth."""
        share = 0.25 ** generator.uniform(1, 3.3)
        left, low = generator.uniform(0, 1 - share, 2)
        edges = west + left * (east - west), south + low * (north - south)
        asked = {"west": edges[0], "south": edges[1]}
        asked |= {"east": edges[0] + share * (east - west), "north": edges[1] + share * (north - south)}
        return f"/api/map?{urlencode(asked)}"

    kinds: list[tuple[str, float, Callable[[], str]]] = [
        ("thumb", 0.55, thumb),
        ("cluster images", 0.2, page),
        ("image", 0.12, lambda: f"/api/images/{generator.integers(images)}"),
        ("map", 0.05, part_of_map),
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
    """Milliseconds from an edit of each kind until the clusters and the map show it: medians of some."""
    taken: dict[str, list[float]] = {}
    images = served.client.get("/api/run").json()["images"]

    def timed(name: str, work: Callable[[], Any]) -> Any:
        began = time.perf_counter()
        made = work()
        taken.setdefault(name, []).append(1000 * (time.perf_counter() - began))
        return made

    def preview(cluster: int) -> str:
        asked = {"cluster": cluster, "parts": 3}
        answer = served.client.post("/api/split/preview", json=asked).raise_for_status()
        return str(answer.json()["token"])

    def edit(op: str, **values: Any) -> None:
        seen = served.client.get("/api/run").json()
        body = {"op": op, "base": seen["base"], "base_version": seen["version"], **values}
        since = {"base": seen["base"], "since": seen["version"]}

        def work() -> None:
            served.client.post("/api/edits", json=body).raise_for_status()
            served.client.get("/api/clusters").raise_for_status()
            served.client.get("/api/map/changes", params=since).raise_for_status()

        timed(op, work)

    for number in range(REPEATS):
        cards = [card for card in served.client.get("/api/clusters").json()["clusters"] if not card["noise"]]
        middle, *few = [card["id"] for card in (cards[len(cards) // 2], cards[-1], cards[-2])]
        edit("rename", cluster=middle, name=f"name {number}")
        edit("merge", clusters=few)
        token = timed("preview of a split", partial(preview, middle))
        edit("split", cluster=middle, token=token)
        edit("move", ids=list(range(number, min(3000, images), 3)), cluster=cards[0]["id"])
        edit("noise", ids=[5 + number, 70 + number, 110 + number])
        edit("undo")
    return {name: round(statistics.median(each), 1) for name, each in taken.items()}


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
