"""What a Ray cluster costs and gains, on this one machine; and what 10 and 100 million images would take by it.

    python bench/ray_scale.py embedding    # the same images here and by Ray: goal at most 1.15 times the seconds
    python bench/ray_scale.py scaling      # 1, 2, 4 and 8 machines whose encoder only waits: goal 0.9 at 8
    python bench/ray_scale.py memory       # the driver's peak at a million images: goal at most 1 GB
    python bench/ray_scale.py table        # core-hours from what the first wrote down, beside published ones

Each writes its figures into results/ray_scale.json, beside the machine. They mean something on a machine that does
nothing else.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from PIL import Image

from machine import RESULTS, describe
from shoal import draft as drafts
from shoal import pipeline, records
from shoal.config import ClusterConfig
from shoal.cores import core_count
from shoal.distributed import executing
from shoal.distributed.cluster import RayCluster
from shoal.embed.batches import EmbeddedBatch
from shoal.embed.parts import PartsWriter
from shoal.embed.work import Embedded, PartsElsewhere, PartsWorker
from shoal.embeddings import PART_ROWS, part_range
from shoal.encoder.engines import CPU_BATCH
from shoal.encoder.spec import CONFIG, EncoderSpec, ModelConfig
from shoal.executor import Executor
from shoal.images.sources import open_source
from shoal.progress import Progress
from shoal.rundir import RunDir
from shoal.unfinished import unfinished_run

FILE = RESULTS / "ray_scale.json"
SIDE = (320, 240)  # pixels of the images that are embedded
MACHINES = (1, 2, 4, 8)
PUBLISHED = (
    # what, images, seconds, cores (None: a GPU), where it is said
    ("fastdup", 11_580_000, 11_561, 32, "https://github.com/visual-layer/fastdup"),
    ("clip-retrieval, RTX 3080", 100_000_000, 20 * 3600, None, "https://github.com/rom1504/clip-retrieval"),
)
LARGE = (10_000_000, 100_000_000)


# -- embedding ---------------------------------------------------------------------------------------------------------


def embedding(count: int, place: Path) -> dict[str, Any]:
    """Seconds of the embedding stage, processor seconds of everything, and seconds of the whole command."""
    source = place / "photographs.parquet"
    pq.write_table(pa.table({"image": pa.array([_photograph(number) for number in range(count)], pa.binary())}), source)
    found: dict[str, Any] = {"images": count, "cores": core_count()}
    for name, more in (("here", []), ("ray", ["--ray"])):
        run = place / name
        words = ["cluster", str(source), "--out", str(run), "--clusters", "3", "--method", "kmeans", "--no-report"]
        before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
        subprocess.run([sys.executable, "-m", "shoal", *words, *more], check=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        stage = RunDir.open(run).read_state()["stages"]["embed"]
        found[name] = {
            "embed_seconds": stage["seconds"],
            "command_seconds": round(time.perf_counter() - began, 1),
            # Of Ray's own processes only those that the command waits for are counted.
            "cpu_seconds": round(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, 1),
        }
    found["ratio"] = round(found["ray"]["embed_seconds"] / found["here"]["embed_seconds"], 3)
    found["core_seconds_per_image"] = found["here"]["embed_seconds"] * core_count() / count
    found["same_bytes"] = _features(place / "here") == _features(place / "ray")
    return found


def _photograph(number: int) -> bytes:
    """A JPEG with about as much in it as a photograph: smooth noise, and some that is not."""
    rng = np.random.default_rng(number)
    coarse = Image.fromarray(rng.integers(0, 256, (12, 16, 3), np.uint8)).resize(SIDE, Image.Resampling.BICUBIC)
    fine = rng.normal(0, 12, (SIDE[1], SIDE[0], 3))
    file = io.BytesIO()
    Image.fromarray(np.clip(np.asarray(coarse) + fine, 0, 255).astype(np.uint8)).save(file, "jpeg", quality=90)
    return file.getvalue()


def _features(root: Path) -> dict[str, bytes]:
    run = RunDir.open(root)
    assert run.generation is not None
    names = [name for name in run.generation.places if name.startswith("embeddings/")]
    return {name: run.path(name).read_bytes() for name in names}


# -- scaling -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Waiting:
    """Parts, by an engine that waits in place of computing: everything else is as ever."""

    inner: PartsElsewhere
    seconds: float  # of a batch
    device: str = "cpu"

    def start(self) -> PartsWorker:
        run_dir = unfinished_run(Path(self.inner.root))
        spec = ModelConfig.read(run_dir.unfinished(f"model/{CONFIG}")).encoder
        assert spec is not None
        return PartsWorker(run_dir, spec, WaitingEngine(spec.dim, self.seconds))

    def portable(self, device: str) -> Waiting:
        return self


@dataclass(frozen=True, slots=True)
class WaitingEngine:
    dim: int
    seconds: float
    name: str = "waiting"
    batch_size: int = CPU_BATCH

    def infer(self, pixels: Any) -> Any:
        time.sleep(self.seconds)
        return np.ones((self.batch_size, self.dim), np.float32)


@dataclass(frozen=True, slots=True)
class WaitingCluster:
    cluster: RayCluster
    seconds: float
    is_here: bool = False

    def run(self, work: Any, pieces: Sequence[int]) -> Iterator[Any]:
        return self.cluster.run(Waiting(work.portable("cpu"), self.seconds), pieces)


class Began(Progress):
    """Notes when all machines have said what they are: from then on only the work itself takes time."""

    at = 0.0

    def say(self, line: str) -> None:
        self.at = time.perf_counter()


def scaling(parts: int, seconds: float, place: Path) -> dict[str, Any]:
    """As many parts for each machine, whatever their number: seconds of one over those of n."""
    from ray.cluster_utils import Cluster  # noqa: PLC0415  (only this needs it)

    os.environ["RAY_AUTH_MODE"] = "disabled"
    found: dict[str, Any] = {"parts_a_machine": parts, "seconds_a_batch": seconds, "seconds": {}, "efficiency": {}}
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    try:
        for count in MACHINES:
            while len(cluster.list_all_nodes()) < count:
                cluster.add_node(num_cpus=1)
            source = _tiny(place, count * parts * PART_ROWS)
            began = Began()
            with executing(cluster.address, False, "cpu", began) as executor:
                assert isinstance(executor, RayCluster)
                _embed(source, place / f"run-{count}", WaitingCluster(executor, seconds), began)
                took = time.perf_counter() - began.at
            found["seconds"][count] = round(took, 2)
            found["efficiency"][count] = round(found["seconds"][MACHINES[0]] / took, 3)
    finally:
        cluster.shutdown()
    return found


def _tiny(place: Path, count: int) -> Path:
    source = place / f"tiny-{count}.parquet"
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (count, 4, 4, 3), np.uint8)
    pq.write_table(pa.table({"image": pa.array(list(map(_png, pixels)), pa.binary())}), source)
    return source


def _png(pixels: Any) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "png", compress_level=0)
    return file.getvalue()


def _embed(source: Path, root: Path, executor: Executor, progress: Progress) -> None:
    config = ClusterConfig((str(source),))
    stages = pipeline.clustering_stages(open_source(config.source), executor=executor)[:2]
    pipeline.run(config, RunDir(root), stages, progress)


# -- memory ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Nothing:
    """Parts of features that are all the same; no image is read."""

    inner: PartsElsewhere
    device: str = "cpu"

    def start(self) -> NothingWorker:
        run_dir = unfinished_run(Path(self.inner.root))
        spec = ModelConfig.read(run_dir.unfinished(f"model/{CONFIG}")).encoder
        assert spec is not None
        return NothingWorker(run_dir, spec)

    def portable(self, device: str) -> Nothing:
        return self


@dataclass(frozen=True, slots=True)
class NothingWorker:
    run_dir: RunDir
    spec: EncoderSpec

    @property
    def kind(self) -> Mapping[str, str]:
        return {"engine": "nothing"}

    def do(self, pieces: Iterable[int]) -> Iterator[Embedded]:
        rows = records.count_rows(self.run_dir.listing)
        for number in pieces:
            ids = part_range(number, rows)
            listed = self.run_dir.read_listing(["id", "sha256"], ids)
            writer = PartsWriter.open(self.run_dir, rows, self.spec)
            writer.plan(listed["id"].to_numpy(), listed["sha256"], [number])
            features = np.ones((len(ids), self.spec.dim), np.float32)
            writer.add(EmbeddedBatch(list(ids), features, {}, {}))
            yield Embedded(len(ids), "nothing")


@dataclass(frozen=True, slots=True)
class NothingCluster:
    cluster: RayCluster
    is_here: bool = False

    def run(self, work: Any, pieces: Sequence[int]) -> Iterator[Any]:
        return self.cluster.run(Nothing(work.portable("cpu")), pieces)


def memory(count: int, place: Path) -> dict[str, Any]:
    """The driver's peak, in a process of its own, while it has `count` images embedded that are listed already."""
    done = subprocess.run(
        [sys.executable, __file__, "driver", "--images", str(count), "--work", str(place)],
        capture_output=True,
        text=True,
        check=True,
    )
    return dict(json.loads(done.stdout.splitlines()[-1]))


def driver(count: int, place: Path) -> dict[str, Any]:
    """What `memory` starts."""
    run = place / "run"
    with executing("local", False, "cpu", Progress()) as executor:
        assert isinstance(executor, RayCluster)
        before = _peak()
        with drafts.writing(run, from_start=True) as draft:
            draft.begin_stage()
            records.write_table(draft.run_dir.new("own/listing.parquet"), _listing(count))
            draft.end_stage("index", {"state": "done", "key": "", "digest": "", "parts": {}, "facts": {}})
            draft.begin_stage()
            stage = pipeline.stages_of_images(executor=NothingCluster(executor))[0]
            began = time.perf_counter()
            stage.run(ClusterConfig(("nothing",)), draft.run_dir, Progress())
    return {
        "images": count,
        "peak_mb": _peak(),
        "peak_before_mb": before,
        "seconds": round(time.perf_counter() - began, 1),
    }


def _listing(count: int) -> pa.Table:
    numbers = pa.array(np.arange(count))
    texts = numbers.cast(pa.string())
    columns: dict[str, Any] = {field.name: pa.nulls(count, field.type) for field in records.IMAGES}
    columns |= {
        "id": numbers,
        "path": texts,
        "uri": pc.binary_join_element_wise("file:///nowhere/", texts, ""),
        "sha256": pc.utf8_lpad(texts, 64, "0"),
        "status": pa.array(np.full(count, records.OK)),
    }
    return pa.table(columns, schema=records.IMAGES)


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


# -- table -------------------------------------------------------------------------------------------------------------


def table() -> str:
    """Markdown: what was measured here, times many; and what others publish, times as many."""
    known = json.loads(FILE.read_text()) if FILE.is_file() else {}
    lines = ["| | s an image and core | " + " | ".join(f"{count:,} images" for count in LARGE) + " | said by |"]
    lines += ["|---|---:|" + "---:|" * len(LARGE) + "---|"]
    rows = []
    if "embedding" in known:
        seconds = known["embedding"]["figures"]["core_seconds_per_image"]
        rows.append(("Shoal, embedding", seconds, "core-hours", "`bench/ray_scale.py embedding`"))
    for name, images, seconds, cores, where in PUBLISHED:
        rows.append((name, seconds * (cores or 1) / images, "core-hours" if cores else "GPU-hours", where))
    for name, seconds, unit, where in rows:
        hours = " | ".join(f"{seconds * count / 3600:,.0f} {unit}" for count in LARGE)
        lines.append(f"| {name} | {seconds:.4f} | {hours} | {where} |")
    if not rows or rows[0][0] != "Shoal, embedding":
        lines.append(
            "\nNot measured yet: run `python bench/ray_scale.py embedding` on a machine that does nothing else."
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("embedding", "scaling", "memory", "table", "driver"))
    parser.add_argument("--images", type=int, help="[default: 10,000; for memory 1,000,000]")
    parser.add_argument("--parts", type=int, default=8, help="for each machine, of 1,024 images  [default: 8]")
    parser.add_argument("--seconds", type=float, default=0.04, help="that the encoder waits for a batch of 4")
    parser.add_argument("--work", type=Path, help="a folder for what is made  [default: a temporary one]")
    asked = parser.parse_args()
    if asked.what == "table":
        print(table())
        return
    place = asked.work or Path(tempfile.mkdtemp(prefix="ray-scale-"))
    try:
        if asked.what == "driver":
            print(json.dumps(driver(asked.images, place)))
            return
        found = {
            "embedding": lambda: embedding(asked.images or 10_000, place),
            "scaling": lambda: scaling(asked.parts, asked.seconds, place),
            "memory": lambda: memory(asked.images or 1_000_000, place),
        }[asked.what]()
    finally:
        if asked.work is None:
            shutil.rmtree(place, ignore_errors=True)
    known = json.loads(FILE.read_text()) if FILE.is_file() else {}
    known[asked.what] = {"machine": describe(), "figures": found}
    FILE.write_text(json.dumps(known, indent=2) + "\n")
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
