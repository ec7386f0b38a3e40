"""Work done by a Ray cluster: the same bytes as here, whoever does it and whoever dies of it."""

from __future__ import annotations

import http.server
import io
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from ray.cluster_utils import Cluster

from onnx_files import small
from shoal import cli, pipeline, records
from shoal import draft as drafts
from shoal.assign import AssignSummary, write_file
from shoal.assign import assign as assign_images
from shoal.assign_blocks import assigned
from shoal.config import ClusterConfig
from shoal.distributed import cluster as ray_cluster
from shoal.distributed import executing, task
from shoal.distributed.cluster import RayCluster
from shoal.embed.batches import EmbeddedBatch
from shoal.embed.parts import PartsWriter
from shoal.embeddings import PART_ROWS, by_part
from shoal.errors import ConfigError, RequestError, WorkError
from shoal.executor import HERE, Executor
from shoal.images.sources import open_source
from shoal.model import Model
from shoal.neighbours import stage as neighbours_stage
from shoal.progress import Progress, Task
from shoal.rundir import RunDir, StageResult
from shoal.unfinished import unfinished_run
from toy_work import Toy

PARTS = 6
COUNT = PARTS * PART_ROWS - 100
BROKEN, COPY = 1500, 2500  # numbers of images
S3_IMAGES = 12

MACHINE: dict[str, Any] = {"num_cpus": 2, "include_dashboard": False}

Files = dict[str, bytes]
T = TypeVar("T")


@pytest.fixture(scope="module")
def storage() -> Iterator[str]:
    """Where a stand-in for S3 answers; who starts afterwards finds it by the environment, as people tell of theirs."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    with pytest.MonkeyPatch.context() as environment:
        for name, value in {
            "AWS_ENDPOINT_URL": f"http://{host}:{port}",
            "AWS_ACCESS_KEY_ID": "nobody",
            "AWS_SECRET_ACCESS_KEY": "nothing",
            "AWS_DEFAULT_REGION": "us-east-1",
        }.items():
            environment.setenv(name, value)
        yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture(scope="module")
def cluster(storage: str) -> Iterator[Cluster]:
    """Two machines with two cores each."""
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("RAY_AUTH_MODE", "disabled")  # else a token is left in the home folder
        environment.setenv("PYTHONPATH", os.pathsep.join(filter(None, sys.path)))
        # A dead machine is noticed after some refused calls; a slow one is not taken for dead any earlier.
        noticing = {"health_check_period_ms": 200, "health_check_initial_delay_ms": 200}
        made = patiently(lambda: Cluster(initialize_head=True, head_node_args={**MACHINE, "_system_config": noticing}))
        try:
            patiently(lambda: made.add_node(**MACHINE))
            yield made
        finally:
            made.shutdown()


def patiently(start: Callable[[], T]) -> T:
    """Ray gives a machine 30 seconds to start, which is little for one that has much else to do."""
    for _ in range(4):
        with suppress(Exception):  # it has no class of its own
            return start()
    return start()


@pytest.fixture(scope="module")
def connection(cluster: Cluster) -> Iterator[str]:
    """Workers live as long as the connection of who asked for them: all tests here ask by one."""
    with executing(cluster.address, False, "auto", Progress()):
        yield cluster.address


def connect(address: str | None, *, mixed: bool = False, device: str = "auto") -> None:
    with executing(address, mixed, device, Progress()):
        pass


class Told(Progress):
    """Calls `then` when the first batches are embedded, and keeps what was said."""

    def __init__(self, then: Any = None) -> None:
        self.then, self.said = then, list[str]()

    @contextmanager
    def task(self, name: str, total: int, unit: str = "images") -> Iterator[Task]:
        if name == "Embedding":
            yield self
        else:
            with super().task(name, total, unit) as silent:
                yield silent

    def advance(self, count: int = 1) -> None:
        if self.then is not None:
            then, self.then = self.then, None
            then()

    def say(self, line: str) -> None:
        self.said.append(line)


# -- embedding ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A table of small pictures, one of them broken and one a copy, beside a small network."""
    base = tmp_path_factory.mktemp("pictures")
    rng = np.random.default_rng(0)
    pictures = [png(pixels) for pixels in rng.integers(0, 256, (COUNT, 8, 8, 3), np.uint8)]
    pictures[BROKEN] = pictures[BROKEN][:60]
    pictures[COPY] = pictures[COPY - 1]
    pq.write_table(pa.table({"image": pa.array(pictures, pa.binary())}), base / "pictures.parquet")
    (base / "net.onnx").write_bytes(small(16))
    return base / "pictures.parquet"


def png(pixels: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "png", compress_level=0)
    return file.getvalue()


def asked(source: str | Path) -> ClusterConfig:
    here = Path(os.environ["SHOAL_NET"])
    one = (0.5, 0.5, 0.5)
    return ClusterConfig((str(source),), backbone=str(here), input_mean=one, input_std=one, clusters="3")


def embed(source: str | Path, root: Path, executor: Executor = HERE, progress: Progress | None = None) -> Files:
    """Index and embed; return every file of the run that has to do with embedding, as readers see it."""
    config = asked(source)
    wanted = ("index", "embed", "images")
    stages = [
        stage
        for stage in pipeline.clustering_stages(open_source(config.source), executor=executor)
        if stage.name in wanted
    ]
    run = pipeline.run(config, RunDir(root), stages, progress or Progress())
    assert run.generation is not None
    return {name: run.path(name).read_bytes() for name in run.generation.places}


@pytest.fixture(scope="module", autouse=True)
def _net(source: Path) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("SHOAL_NET", str(source.with_name("net.onnx")))
        yield


@pytest.fixture(scope="module")
def alone(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Files:
    """What embedding gives on this machine by itself."""
    return embed(source, tmp_path_factory.mktemp("alone") / "run")


def test_two_machines_write_the_bytes_that_one_writes(
    connection: str, source: Path, alone: Files, tmp_path: Path
) -> None:
    told = Told()
    assert embed(source, tmp_path / "run", RayCluster(connection, False, told), told) == alone
    assert told.said[-1].startswith("Ray: machines: 2, workers: 2, cores of each: 2, engine: openvino")
    images = RunDir.open(tmp_path / "run").read_images(["status", "reason", "duplicate_of"]).to_pylist()
    assert images[BROKEN]["status"] == records.SKIPPED
    assert images[BROKEN]["reason"]
    assert images[COPY] == {"status": records.DUPLICATE, "reason": None, "duplicate_of": COPY - 1}


def test_a_machine_that_dies_in_the_middle_changes_nothing(
    cluster: Cluster, connection: str, source: Path, alone: Files, tmp_path: Path
) -> None:
    third = patiently(lambda: cluster.add_node(**MACHINE))
    cluster.wait_for_nodes()
    dies = Told(lambda: cluster.remove_node(third, allow_graceful=False))
    assert embed(source, tmp_path / "run", RayCluster(connection, False, dies), dies) == alone
    assert dies.said[0].startswith("Ray: machines: 3")
    assert dies.then is None


def test_a_machine_that_is_gone_is_told_once(monkeypatch: pytest.MonkeyPatch) -> None:
    told = Told()
    monkeypatch.setattr(ray_cluster, "LOOKED", 0.0)
    monkeypatch.setattr(ray_cluster, "_alive", lambda: frozenset("ab"))
    machines = ray_cluster.Machines(told)
    for here in ({"a", "b", "c"}, {"a", "b", "c", "d"}, {"a", "b", "d"}, {"a", "b", "d"}, {"a"}):
        monkeypatch.setattr(ray_cluster, "_alive", lambda here=here: frozenset(here))
        machines.look()
    assert told.said == [
        "Ray: a machine has left the cluster; others do that part of the work",
        "Ray: 2 machines have left the cluster; others do that part of the work",
    ]


TALKING = """
import sys
from shoal.distributed import executing
from shoal.progress import Progress

with executing(sys.argv[1], False, "cpu", Progress()):
    from ray._private.worker import print_to_stdstream

    print_to_stdstream({"lines": ["[state-dump] of a machine"], "pid": "raylet", "is_err": False}, ignore_prefix=False)
print("the end")
"""


def test_what_ray_says_of_its_own_is_not_in_the_output(cluster: Cluster) -> None:
    done = subprocess.run([sys.executable, "-c", TALKING, cluster.address], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "the end\n"), done.stderr


DRIVER = """
import sys
from pathlib import Path
import test_distributed as tests

address, source, root = sys.argv[1:]

def say():
    print("a piece is done", flush=True)
    sys.stdin.read()  # until the end

with tests.executing(address, False, "auto", tests.Progress()) as executor:
    tests.embed(source, Path(root), executor, tests.Told(say))
"""


def test_a_driver_that_is_killed_is_started_again_and_goes_on(
    connection: str, source: Path, alone: Files, tmp_path: Path
) -> None:
    driver = subprocess.Popen(
        [sys.executable, "-c", DRIVER, connection, str(source), str(tmp_path / "run")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert driver.stdout is not None
    assert driver.stdin is not None
    assert driver.stdout.readline() == "a piece is done\n"
    driver.send_signal(signal.SIGKILL)
    driver.wait()
    driver.stdin.close()
    driver.stdout.close()
    assert embed(source, tmp_path / "run", RayCluster(connection, False, Progress())) == alone
    facts = RunDir.open(tmp_path / "run").read_state()["stages"]["embed"]["facts"]
    assert facts["embedded_now"] < facts["images"]


def test_what_outlives_its_driver_writes_no_more(source: Path, tmp_path: Path) -> None:
    """Or it might write beside the next one, of what the source was before."""
    from shoal import lock
    from shoal.errors import RunLockedError

    config = asked(source)
    stages = pipeline.clustering_stages(open_source(config.source))[:2]
    left: list[Any] = []

    class Leaving:
        is_here = False

        def run(self, work: Any, pieces: Any) -> Iterator[Any]:
            left.append((work.portable("cpu").start(), pieces))
            raise WorkError("the driver ends here")

    stages = [*stages[:1], *pipeline.stages_of_images(executor=Leaving())[:1]]
    with pytest.raises(WorkError):
        pipeline.run(config, RunDir(tmp_path), stages, Progress())
    worker, pieces = left[0]
    with pytest.raises(RunLockedError, match="no longer being written"):
        list(worker.do(pieces))
    with lock.writing(tmp_path / "lock"):  # the same process again
        assert sum(done.images for done in worker.do(pieces)) == COUNT - 1  # a copy is of no use
    assert unfinished_run(tmp_path).unfinished("embeddings/part-00000.npy").is_file()


def test_workers_read_a_bucket_by_themselves(connection: str, tmp_path: Path) -> None:
    import s3fs

    bucket = s3fs.S3FileSystem()
    bucket.mkdir("photos")
    rng = np.random.default_rng(1)
    for number in range(S3_IMAGES):
        bucket.pipe(f"photos/{number:02d}.png", png(rng.integers(0, 256, (8, 8, 3), np.uint8)))
    bucket.pipe("photos/broken.png", b"\x89PNG\r\n\x1a\n and nothing more")
    here = embed("s3://photos", tmp_path / "here")
    assert embed("s3://photos", tmp_path / "there", RayCluster(connection, False, Progress())) == here
    statuses = RunDir.open(tmp_path / "there").read_images(["status"])["status"].to_pylist()
    assert sorted(statuses) == [*[records.OK] * S3_IMAGES, records.SKIPPED]


def test_the_whole_command_leaves_the_run_that_it_leaves_alone(cluster: Cluster, source: Path, tmp_path: Path) -> None:
    network = ["--backbone", os.environ["SHOAL_NET"], "--input-mean", "0.5,0.5,0.5", "--input-std", "0.5,0.5,0.5"]
    words = ["cluster", str(source), *network, "--clusters", "3", "--method", "kmeans", "--no-report"]
    found = []
    for name, more in (("here", []), ("there", ["--ray", cluster.address])):
        command = [sys.executable, "-m", "shoal", *words, "--out", str(tmp_path / name), *more]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        run = RunDir.open(tmp_path / name)
        assert run.generation is not None
        found.append({file: run.path(file).read_bytes() for file in run.generation.places})
    assert found[0] == found[1]


# -- neighbours --------------------------------------------------------------------------------------------------------


def neighbours(root: Path, executor: Executor) -> Files:
    """What the stage writes of 20,000 images, as a search in pieces: one of the first pass, two of the second."""
    rng = np.random.default_rng(0)
    features = rng.standard_normal((20_000, 6)).astype(np.float32)
    with drafts.writing(root, from_start=True) as draft:
        draft.begin_stage()
        columns: dict[str, Any] = {one.name: pa.nulls(len(features), one.type) for one in records.IMAGES}
        ids, ok = pa.array(np.arange(len(features))), pa.array([records.OK] * len(features))
        columns |= {"id": ids, "path": ids.cast(pa.string()), "uri": ids.cast(pa.string()), "status": ok}
        records.write_table(draft.run_dir.new("images.parquet"), pa.table(columns, schema=records.IMAGES))
        writer = PartsWriter(draft.run_dir, len(features), 6, "float32", "an encoder")
        for some in by_part(writer.plan(ids.to_numpy(), columns["path"])):
            writer.add(EmbeddedBatch(some.tolist(), features[some], {}, {}))
        draft.end_stage("embed", draft.record("", (), StageResult(writer.finish()), 0.0))
        draft.begin_stage()
        result = neighbours_stage.run(ClusterConfig(("x",)), draft.run_dir, Progress(), executor)
        assert result.facts["method"] == "approximate"
        names = ("ids.npy", "similarity.npy", "manifest.json")
        return {name: draft.run_dir.unfinished(f"neighbours/{name}").read_bytes() for name in names}


def test_neighbours_are_found_by_many_as_by_one(
    connection: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(neighbours_stage, "EXACT_UP_TO", 1000)
    there = neighbours(tmp_path / "there", RayCluster(connection, False, Progress()))
    assert there == neighbours(tmp_path / "here", HERE)


# -- assignment --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def run(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of some of the pictures."""
    root = tmp_path_factory.mktemp("assigning") / "run"
    config = replace(asked(source), limit=200, method="kmeans")
    stages = pipeline.clustering_stages(open_source(config.source))
    pipeline.run(config, RunDir(root), stages, Progress())
    return root


def assign(executor: Executor, run: Path, source: Path, target: Path) -> AssignSummary:
    summary, model = AssignSummary(), Model.open(run, with_encoder=False)
    with assigned(executor, model, open_source((str(source),)), target, "auto", summary, Progress()) as images:
        write_file(images, target)
    return summary


def test_new_images_are_assigned_by_many_as_by_one(connection: str, run: Path, source: Path, tmp_path: Path) -> None:
    alone, summary = tmp_path / "alone.csv", AssignSummary()
    opened, model = open_source((str(source),)), Model.open(run)
    write_file(assign_images(model, opened, summary, Progress()), alone)
    there = tmp_path / "there.csv"
    assert assign(RayCluster(connection, False, Progress()), run, source, there) == summary
    assert there.read_bytes() == alone.read_bytes()
    assert len(summary.skipped) == 1
    assert sorted(file.name for file in tmp_path.iterdir()) == ["alone.csv", "there.csv"]


def test_an_assignment_goes_on_from_the_blocks_that_are_there(run: Path, source: Path, tmp_path: Path) -> None:
    class Dying:
        """Does one block and dies; then does what is left."""

        is_here = False
        seen: ClassVar[list[list[int]]] = []

        def run(self, work: Any, pieces: Any) -> Iterator[Any]:
            self.seen.append(list(pieces))
            yield from work.portable("cpu").start().do(pieces[: 1 if len(self.seen) == 1 else None])
            if len(self.seen) == 1:
                raise WorkError("it dies")

    target = tmp_path / "new.csv"
    with pytest.raises(WorkError, match="it dies"):
        assign(Dying(), run, source, target)
    assert not target.exists()
    assert assign(Dying(), run, source, target).assigned == COUNT - 1
    assert Dying.seen == [[0, 1], [1]]
    assert [file.name for file in tmp_path.iterdir()] == ["new.csv"]


def test_the_table_of_a_run_is_written_by_many_as_by_one(
    cluster: Cluster, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, more in (("here", []), ("there", ["--ray", cluster.address])):
        command = [sys.executable, "-m", "shoal", "export", str(run), str(tmp_path / f"{name}.parquet")]
        done = subprocess.run([*command, "--to", "parquet", *more], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    assert (tmp_path / "there.parquet").read_bytes() == (tmp_path / "here.parquet").read_bytes()
    assert sorted(file.name for file in tmp_path.iterdir()) == ["here.parquet", "there.parquet"]
    words = ("export", str(run), str(tmp_path / "out"), "--to", "csv", "--ray", cluster.address)
    assert said(*words, capsys=capsys) == (2, "shoal: --ray goes with --to parquet; got --to csv")


def test_what_lies_where_blocks_would_is_not_touched(run: Path, source: Path, tmp_path: Path) -> None:
    (tmp_path / "new.csv.parts").mkdir()
    (tmp_path / "new.csv.parts" / "mine").write_text("mine")
    with pytest.raises(RequestError, match="holds no blocks of an assignment"):
        assign(HERE, run, source, tmp_path / "new.csv")
    assert [file.name for file in (tmp_path / "new.csv.parts").iterdir()] == ["mine"]


# -- machines ----------------------------------------------------------------------------------------------------------


def test_machines_of_several_kinds_are_refused_unless_they_are_let_in(connection: str, tmp_path: Path) -> None:
    work = Toy(str(tmp_path), has_own_kind=True)
    with pytest.raises(WorkError, match=r"differ in process: '\d+' on .*--mixed lets"):
        list(RayCluster(connection, False, Progress()).run(work, range(20)))
    found = RayCluster(connection, True, Progress()).run(work, range(20))
    assert sorted(found) == [piece * piece for piece in range(20)]


def test_a_worker_that_turns_out_to_be_of_another_kind_does_nothing(tmp_path: Path) -> None:
    """It may have joined when the others were asked already."""
    with pytest.raises(WorkError, match="differ in engine: 'bf16' on the others, 'toy' on "):
        task.do(Toy(str(tmp_path)), 2, {"engine": "bf16"}, [1, 2])


def test_a_processor_with_fewer_instructions_is_another_kind() -> None:
    extensions: Any = np.show_config(mode="dicts")
    there = extensions["SIMD Extensions"]["found"]
    if not there:
        pytest.skip("this processor has nothing beyond what numpy needs")
    told = {
        subprocess.run(
            [sys.executable, "-c", "from shoal.kind import processor; print(processor())"],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "NPY_DISABLE_CPU_FEATURES": less},
            capture_output=True,
            check=True,
        ).stdout
        for less in ("", there[-1], "")
    }
    assert len(told) == 2


def test_a_worker_is_made_ready_once_in_a_process(connection: str, tmp_path: Path) -> None:
    found = list(RayCluster(connection, False, Progress()).run(Toy(str(tmp_path)), range(200)))
    assert sorted(found) == [piece * piece for piece in range(200)]
    assert len(list(tmp_path.iterdir())) <= 4  # two machines that were asked what they are, two workers


def test_what_a_worker_refuses_is_told_as_here(connection: str, tmp_path: Path) -> None:
    for executor in (HERE, RayCluster(connection, False, Progress())):
        with pytest.raises(WorkError, match=r"^piece 7 is refused$"):
            list(executor.run(Toy(str(tmp_path), refused=(7,)), range(20)))


def test_a_piece_that_kills_every_worker_ends_the_work(connection: str, tmp_path: Path) -> None:
    with pytest.raises(WorkError, match=r"died 6 times .*the same command goes on"):
        list(RayCluster(connection, False, Progress()).run(Toy(str(tmp_path), deadly=(3,)), range(20)))


def test_a_device_that_no_machine_has_is_refused(connection: str) -> None:
    executor = RayCluster(connection, False, Progress())
    with pytest.raises(WorkError, match=r"no machine of the Ray cluster at .* has a GPU"):
        executor.share("cuda")
    with pytest.raises(ConfigError, match="'mps'; expected auto, cpu or cuda"):
        executor.share("mps")


# -- addresses ---------------------------------------------------------------------------------------------------------


def said(*words: str, capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    with pytest.raises(SystemExit) as ended:
        cli.main(words)
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("shoal: ")]
    assert len(lines) == 1
    return int(str(ended.value.code)), lines[0]


@pytest.mark.parametrize("scheme", ["", "ray://"])
@pytest.mark.parametrize("listens", [False, True])
def test_a_wrong_address_is_told_within_ten_seconds(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], scheme: str, listens: bool
) -> None:
    with answering_otherwise() if listens else nothing_there() as place:
        began = time.monotonic()
        words = ("cluster", str(source), "--out", str(tmp_path / "run"), "--ray", scheme + place)
        code, line = said(*words, capsys=capsys)
        took = time.monotonic() - began
    assert code == 1
    assert f"no Ray cluster answers at {scheme}{place}" in line
    assert took < 10
    assert not (tmp_path / "run").exists()


@contextmanager
def nothing_there() -> Iterator[str]:
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))  # taken, and nobody listens
        yield f"127.0.0.1:{reserved.getsockname()[1]}"


@contextmanager
def answering_otherwise() -> Iterator[str]:
    class Quiet(http.server.BaseHTTPRequestHandler):
        def log_message(self, *words: Any) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Quiet) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.parametrize("address", ["photos/", "ray://", "10.0.0.1", "http://10.0.0.1:80", ""])
def test_what_is_no_address_is_refused(address: str) -> None:
    with pytest.raises(ConfigError, match=r"--ray has value .*expected none, auto, HOST:PORT"):
        connect(address)


def test_without_ray_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ConfigError, match=r"^--ray needs ray, which is not installed: pip install 'ray\[client\]'$"):
        connect("auto")


def test_mixed_goes_with_ray_only() -> None:
    with pytest.raises(ConfigError, match="--mixed goes with --ray"):
        connect(None, mixed=True)
