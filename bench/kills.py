"""Is a run whole after SIGKILL at any moment? Real commands are killed at random, looked at, and given again.

    python bench/kills.py [-n 200] [--seed 0] [--processes 10]
    python bench/kills.py --readers [--rounds 20]

A moment is drawn uniformly over the time that the command takes when nobody kills it. After each kill the run has to be
all old or all new, every command that reads has to work on it (in this process; as processes of their own after one
kill in `--processes`), and the same command given again has to end in the bytes of a run that was never killed.
`--readers`: two processes read, one of them by whole commands, while a third clusters again and again with another
number.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import hashlib
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from machine import describe, keep_run, machine_line
from photos import WORK, photos
from shoal.cli import main as shoal
from shoal.corrections import changes
from shoal.corrections.corrected import read_corrected
from shoal.corrections.edit import REFIT
from shoal.corrections.log import append, read_log
from shoal.corrections.model import load_model
from shoal.corrections.refit import refit
from shoal.embeddings import EmbeddingStore
from shoal.errors import RunError
from shoal.export import JOURNAL_NAME
from shoal.export.record import RECORD_NAME
from shoal.model import Model
from shoal.progress import Progress
from shoal.publication import read_whole
from shoal.rundir import RunDir, digest_file, digest_of

PLACE = WORK / "kills"
NOW = PLACE / "now"  # always the same folder, for a run tells where its source is
RUN, PICTURES = NOW / "run", NOW / "pictures"
NEW = PLACE / "new"  # images that the run has not got
COUNT, GONE, ADDED, SIDE = 150, 10, 20, 160
PROMISED = ("embeddings", "neighbours", "clusters.parquet", "choose_k.parquet")
DERIVED = ("report/", "map.parquet")  # may come a generation later than the clusters that they show
MOST_SECONDS = 600.0

Files = dict[str, str]  # digests by name
Watch = Callable[["Scene"], str | None]  # what is wrong, if anything is


@dataclass
class Scene:
    """A command, what it finds, and what is known of what it leaves.

    Attributes:
        before: makes what the command finds, in NOW.
        watch: looks at what the command makes besides the run.
        result: the files that it makes besides the run.
    """

    name: str
    before: Callable[[], None]
    command: list[str]
    watch: Watch
    result: Callable[[], Files]
    seconds: float = 0.0
    known: dict[str, Files] = field(default_factory=dict)  # the run's files, `old` and `new`
    shown: dict[str, Files] = field(default_factory=dict)  # at the run's root, `old` and `new`
    made: dict[str, Files] = field(default_factory=dict)

    @property
    def template(self) -> Path:
        return PLACE / f"before-{self.name}"


def main() -> None:
    options = _options()
    if options.refit:
        _refit_once()
    elif options.read:
        _read_until_told()
    elif options.readers:
        _readers(options.rounds)
    else:
        _kills(options.n, options.seed, options.processes)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="SIGKILL at random moments, and what is there then.")
    parser.add_argument("-n", type=int, default=200, help="kills, spread over the scenes")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--processes", type=int, default=10, help="after one kill in so many, commands are processes")
    parser.add_argument("--readers", action="store_true")
    parser.add_argument("--rounds", type=int, default=20, help="of clustering while others read")
    parser.add_argument("--refit", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--read", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args()


# -- kills -----------------------------------------------------------------------------------------------------------


def _kills(count: int, seed: int, processes: int) -> None:
    scenes = _scenes()
    _prepare(scenes)
    generator = np.random.default_rng(seed)
    faults: list[str] = []
    found: dict[str, Counter[str]] = {scene.name: Counter() for scene in scenes}
    late = 0
    print(f"seed {seed}: {count} kills", flush=True)
    for number in range(count):
        scene = scenes[number % len(scenes)]
        delay, missed = _kill_once(scene, generator)
        late += missed
        wrong, state = _look(scene, as_processes=number % processes == 0)
        wrong += _again(scene)
        found[scene.name][state] += 1
        label = f"kill {number} ({scene.name}, after {delay:.3f} of {scene.seconds:.3f} s): {state}"
        print(label if not wrong else f"{label}: {'; '.join(wrong)}", flush=True)
        faults += [f"{label}: {line}" for line in wrong]
        told = {  # kept after each, for it takes long
            "seed": seed,
            "kills": number + 1,
            "ended_before_the_kill": late,
            "commands_as_processes_after_one_kill_in": processes,
            "scenes": {
                scene.name: {"seconds_unkilled": round(scene.seconds, 3), "found": dict(found[scene.name])}
                for scene in scenes
            },
            "faults": faults,
        }
        keep_run("kills", "kills", told)
    print(f"{count} kills, {len(faults)} faults\n\n{machine_line(describe())}")
    sys.exit(bool(faults))


def _scenes() -> list[Scene]:
    first = ["cluster", str(PICTURES), "--out", str(RUN), "--clusters", "2-5"]
    other = [*first[:-1], "6", "--no-report"]

    def with_run() -> None:
        _with_pictures()
        _shoal(first)

    def with_other_pictures() -> None:
        with_run()
        for picture in sorted(PICTURES.rglob("*.jpg"))[:GONE]:
            picture.unlink()
        for number, photo in enumerate(photos(ADDED, 1)):
            photo.resize((SIDE, SIDE)).save(PICTURES / f"kind{number % 2}" / f"later-{number:03d}.jpg")

    def with_edits() -> None:
        with_run()
        run = RunDir.open(RUN)
        append(run, lambda log: changes.merge(read_corrected(run), read_corrected(run).numbers[:2]))
        moved = read_corrected(run).members(read_corrected(run).numbers[0])[:5].tolist()
        append(run, lambda log: changes.move(read_corrected(run), moved, None, "by hand"))

    def with_publication() -> None:
        with_run()
        _shoal(["publish", str(RUN), "--to", str(NOW / "published")])
        _shoal(other)
        _shoal(["evaluate", str(RUN)])  # the card tells it, and it is one of the commands that are given after a kill

    run_alone: tuple[Watch, Callable[[], Files]] = (lambda scene: None, dict)
    command = [sys.executable, "-m", "shoal"]
    return [
        Scene("first run", _with_pictures, [*command, *first], *run_alone),
        Scene("another K", with_run, [*command, *other], *run_alone),
        Scene("other features", with_run, [*command, *first, "--features", "logits"], *run_alone),
        Scene("other images", with_other_pictures, [*command, *first], *run_alone),
        Scene("refit", with_edits, [sys.executable, __file__, "--refit"], *run_alone),
        Scene(
            "move",
            with_run,
            [*command, "export", str(RUN), str(NOW / "sorted"), "--to", "folders", "--mode", "move"],
            _watch_pictures,
            lambda: {**_digests(PICTURES), **_digests(NOW / "sorted", (JOURNAL_NAME, RECORD_NAME))},
        ),
        Scene(
            "publish",
            with_publication,
            [*command, "publish", str(RUN), "--to", str(NOW / "published")],
            _watch_publication,
            lambda: _digests(NOW / "published"),
        ),
    ]


def _with_pictures() -> None:
    for number, photo in enumerate(photos(COUNT, 0)):
        folder = PICTURES / f"kind{number % 2}"
        folder.mkdir(parents=True, exist_ok=True)
        photo.resize((SIDE, SIDE)).save(folder / f"{number:03d}.jpg", quality=90)


def _prepare(scenes: Sequence[Scene]) -> None:
    """Make what each command finds, and learn what it leaves when nobody kills it."""
    shutil.rmtree(PLACE, ignore_errors=True)
    NEW.mkdir(parents=True)
    for number, photo in enumerate(photos(4, 2)):
        photo.resize((SIDE, SIDE)).save(NEW / f"{number}.jpg")
    for scene in scenes:
        shutil.rmtree(NOW, ignore_errors=True)
        scene.before()
        gc.collect()  # what this process has read is not held any more
        NOW.rename(scene.template)
        _begin(scene)
        _learn(scene, "old")
        _process(scene.command)  # the first time, encoders are converted
        _begin(scene)
        began = time.perf_counter()
        _process(scene.command)
        scene.seconds = time.perf_counter() - began
        _learn(scene, "new")
        print(f"{scene.name}: {scene.seconds:.2f} s", flush=True)


def _begin(scene: Scene) -> None:
    shutil.rmtree(NOW, ignore_errors=True)
    subprocess.run(["cp", "-a", scene.template, NOW], check=True)  # hard links and times too


def _learn(scene: Scene, when: str) -> None:
    files = _files()
    scene.known[when] = {} if files is None else files
    scene.shown[when] = _digests(RUN)
    scene.made[when] = scene.result()


def _kill_once(scene: Scene, generator: np.random.Generator) -> tuple[float, int]:
    """Kill the command; after how many seconds, and how often it was quicker."""
    for missed in range(1000):
        _begin(scene)
        delay = float(generator.uniform(0, scene.seconds))
        with (PLACE / "killed.log").open("wb") as said:
            running = subprocess.Popen(scene.command, stdout=said, stderr=said, start_new_session=True)
            try:
                running.wait(delay)
            except subprocess.TimeoutExpired:
                os.killpg(running.pid, signal.SIGKILL)
                if running.wait() == -signal.SIGKILL:
                    return delay, missed
    raise RuntimeError(f"{scene.name} always ends before it can be killed")


def _look(scene: Scene, as_processes: bool) -> tuple[list[str], str]:
    """What is wrong with what a kill left, and whether that is old or new."""
    wrong = []
    try:
        files = _files()
        state = _state(scene, files)
        if files is not None:
            _require_one_set()
        strange = [name for name, digest in _digests(RUN).items() if not _is_known(scene, name, digest)]
        wrong += [f"at the root, {name} is neither old nor new" for name in strange]
        wrong += [line for line in [scene.watch(scene)] if line]
    except Exception as error:
        return [f"{type(error).__name__}: {error}"], "neither"
    wrong += _commands(is_unfinished=files is None, as_processes=as_processes)
    gc.collect()
    return wrong, state


def _state(scene: Scene, files: Files | None) -> str:
    if files is None:
        if scene.known["old"]:
            raise RuntimeError("the run is gone")
        return "no run yet"
    for when, known in scene.known.items():
        if files == known:
            return when
    raise RuntimeError("the run is neither old nor new")


def _is_known(scene: Scene, name: str, digest: str) -> bool:
    """Is a file at the root whole? Reports and maps have no bytes that are known before."""
    is_table = name in scene.known["new"] or name in scene.known["old"]
    return not is_table or digest in {shown.get(name) for shown in scene.shown.values()}


def _files() -> Files | None:
    """Digests of the run's files as readers see them; None if there is no finished run."""
    try:
        run = RunDir.open(RUN)
        run.require("cluster")
    except RunError:
        return None
    assert run.generation is not None
    return {name: digest_file(run.path(name)) for name in run.generation.places if not name.startswith(DERIVED)}


def _require_one_set() -> None:
    """Raise unless clusters, images, embeddings and model of the run belong together."""
    run = RunDir.open(RUN)
    corrected, store, model = read_corrected(run), EmbeddingStore.open(run.embeddings), load_model(run.model)
    images = run.read_images(["id", "status"])
    if not set(corrected.ids.tolist()) <= set(images["id"].to_pylist()):
        raise RuntimeError("clusters of images that are not there")
    if store.dim != len(model.model.space.mean):
        raise RuntimeError(f"embeddings of {store.dim} dimensions, a model of {len(model.model.space.mean)}")


def _reading_commands() -> Iterator[list[str]]:
    out = PLACE / "out"
    yield ["report", str(RUN)]
    yield ["assign", str(RUN), str(NEW)]
    yield ["similar", str(RUN), str(NEW / "0.jpg"), "-n", "5"]
    yield ["evaluate", str(RUN)]
    yield ["export", str(RUN), str(out / "clusters.csv"), "--to", "csv"]
    yield ["publish", str(RUN), "--to", str(out / "model")]


def _commands(is_unfinished: bool, as_processes: bool) -> list[str]:
    """Give every command that reads; what is wrong with its answers."""
    wrong = []
    out = PLACE / "out"
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir()
    for words in _reading_commands():
        code, said = _process_answer(words) if as_processes else _answer(words)
        lines = said.strip().splitlines()
        is_right = (code == 2 and len(lines) == 1) if is_unfinished else code == 0
        if not is_right or "Traceback" in said:
            wrong.append(f"shoal {words[0]} exits with {code}: {' / '.join(lines[-3:])}")
    return wrong


def _again(scene: Scene) -> list[str]:
    """Give the killed command again; what is other than if nobody had killed it."""
    try:
        _process(scene.command)
    except RuntimeError as error:
        return [f"given again: {error}"]
    wrong = [] if _files() == scene.known["new"] else ["given again, the run is another"]
    wanted, found = (
        {name: digest for name, digest in files.items() if name.startswith(PROMISED)}
        for files in (scene.shown["new"], _digests(RUN))
    )
    wrong += [f"given again, {name} is other" for name in sorted(wanted | found) if wanted.get(name) != found.get(name)]
    if scene.result() != scene.made["new"]:
        wrong.append("given again, what is made besides the run is other")
    wrong += [f"{path} is left" for path in sorted(NOW.rglob("*")) if path.suffix in (".tmp", ".part", ".shoal-part")]
    return wrong


# -- what is made besides the run ------------------------------------------------------------------------------------


def _watch_pictures(scene: Scene) -> str | None:
    """Every picture is somewhere."""
    there = set({**_digests(PICTURES), **_digests(NOW / "sorted")}.values())
    lost = [name for name, digest in scene.made["old"].items() if digest not in there]
    return f"{lost[0]} and {len(lost) - 1} others are lost" if lost else None


def _watch_publication(scene: Scene) -> str | None:
    """What is published is of one clustering."""
    name = "clusters.safetensors"
    digest = read_whole(NOW / "published", lambda files: digest_file(files / name))
    Model.open(NOW / "published")
    return None if digest in {made[name] for made in scene.made.values()} else "the publication is neither old nor new"


# -- readers ---------------------------------------------------------------------------------------------------------


def _readers(rounds: int) -> None:
    scene = next(scene for scene in _scenes() if scene.name == "another K")
    _prepare([scene])
    _begin(scene)
    known = [digest_of(files) for files in scene.known.values()]
    command = [sys.executable, __file__, "--read"]
    readers = [subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    for reader, as_processes in zip(readers, (False, True), strict=True):
        assert reader.stdin is not None
        assert reader.stdout is not None
        reader.stdin.write(json.dumps({"known": known, "as_processes": as_processes}) + "\n")
        reader.stdin.flush()
        reader.stdout.readline()  # it has read once
    for number in range(rounds):
        _process([*scene.command[:-2], "2-5" if number % 2 else "6", "--no-report"])
        print(f"round {number}", flush=True)
    told = [json.loads(reader.communicate("")[0].splitlines()[-1]) for reader in readers]
    faults = [line for one in told for line in one["faults"]]
    keep_run("kills", "readers", {"rounds": rounds, "readers": told})
    print(f"{rounds} rounds, {[one['read'] for one in told]} looks, {len(faults)} faults\n\n{machine_line(describe())}")
    sys.exit(bool(faults))


def _read_until_told() -> None:
    """Look at the run again and again until standard input ends; say what was found."""
    asked = json.loads(sys.stdin.readline())
    seen: Counter[str] = Counter()
    faults: list[str] = []
    ended = _Ended()
    while not ended.now():
        try:
            files = _files()
            if digest_of(files) not in asked["known"]:
                faults.append("a mixture")
            _require_one_set()
            seen[digest_of(files)[:8]] += 1
        except Exception as error:
            faults.append(f"{type(error).__name__}: {error}")
        words = ["similar", str(RUN), str(NEW / "0.jpg"), "-n", "5"]
        code, said = _process_answer(words) if asked["as_processes"] else _answer(words)
        if code:
            faults.append(said)
        if seen.total() == 1:
            print("ready", flush=True)
    print(json.dumps({"read": seen.total(), "seen": dict(seen), "faults": faults, **asked}), flush=True)


class _Ended:
    """Has standard input come to its end?"""

    def __init__(self) -> None:
        os.set_blocking(sys.stdin.fileno(), False)

    def now(self) -> bool:
        try:
            return os.read(sys.stdin.fileno(), 1) == b""
        except BlockingIOError:
            return False


# -- commands --------------------------------------------------------------------------------------------------------


def _refit_once() -> None:
    """What a person does on the page: apply the corrections, unless that is done."""
    run = RunDir.open(RUN)
    log = read_log(run)
    if log[-1].op != REFIT:
        refit(run, len(log), Progress())


def _process(command: Sequence[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, timeout=MOST_SECONDS, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} exits with {done.returncode}: {done.stderr[-2000:]}")


def _shoal(words: Sequence[str]) -> None:
    _process([sys.executable, "-m", "shoal", *words])


def _process_answer(words: Sequence[str]) -> tuple[int, str]:
    """Exit code of a command, and all it said."""
    command = [sys.executable, "-m", "shoal", *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=MOST_SECONDS, check=False)
    return done.returncode, done.stdout + done.stderr


def _answer(words: Sequence[str]) -> tuple[int, str]:
    """As `_process_answer`, in this process."""
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        try:
            shoal(list(words))
        except SystemExit as ended:
            return int(ended.code or 0), said.getvalue()
    return 0, said.getvalue()


def _digests(folder: Path, but: Sequence[str] = ()) -> Files:
    """Of the files below a folder, without what is Shoal's own of a run."""
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.relative_to(folder).parts[0] != "generations" and path.name not in but
    }


if __name__ == "__main__":
    main()
