"""An executor on a Ray cluster. Ray does placing, moving and retrying; what is finished is told by files alone."""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final, TypeVar

import ray
from ray.exceptions import RayError, RayTaskError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from shoal.cores import core_count
from shoal.distributed import address as addresses
from shoal.distributed import task
from shoal.encoder import needs
from shoal.errors import ConfigError, WorkError
from shoal.executor import Work
from shoal.progress import Progress

P = TypeVar("P")
R = TypeVar("R")

MOST_CORES: Final = 8  # of a worker: beyond, Python's own lock is waited for
TASKS: Final = 8  # for each worker at least, so that all end at about the same time
MOST_PIECES: Final = 16  # of a task: what is made ready anew for each is little beside it
UNDER_WAY: Final = 1000  # tasks that Ray knows of at a time
RETRIES: Final = 5  # of a task whose worker died
PATIENCE: Final = 60.0  # seconds without a task done, after which is looked who is there
LOOKED: Final = 5.0  # seconds after which is looked again which machines there are
LEVEL: Final = "error"  # of what Ray says


@dataclass(frozen=True, slots=True)
class Share:
    """What a worker gets of a machine, and which machines can give it, by Ray's ids."""

    cores: int
    gpus: int
    machines: tuple[str, ...]
    workers: int  # that there is room for

    @property
    def device(self) -> str:
        return "cuda" if self.gpus else "cpu"

    @property
    def options(self) -> dict[str, Any]:
        return {"num_cpus": self.cores, "num_gpus": self.gpus}


@contextmanager
def connected(address: str, mixed: bool, device: str, progress: Progress) -> Iterator[RayCluster]:
    """Connect to the cluster at `address`, and disconnect in the end.

    Args:
        mixed: machines of several kinds may take part.
        device: that workers are to have; auto: GPUs if there are any.

    Raises:
        WorkError: nothing answers there, or no machine there has what workers need.
        ConfigError: no cluster has such a device.
    """
    addresses.require_answer(address)
    own = {"num_cpus": core_count(), "include_dashboard": False, "_node_ip_address": "127.0.0.1"}
    try:
        ray.init(
            address=address,
            log_to_driver=False,
            logging_level=LEVEL,
            **(own if address == addresses.LOCAL else {}),
        )
    except (RayError, ConnectionError, RuntimeError, ValueError) as error:
        raise WorkError(f"the Ray cluster at {address} cannot be used: {_first_line(error)}") from error
    try:
        cluster = RayCluster(address, mixed, progress)
        cluster.share(device)
        yield cluster
    finally:
        ray.shutdown()


class RayCluster:
    """Has pieces done by workers on all machines of the cluster that this process is connected to."""

    is_here = False

    def __init__(self, address: str, mixed: bool, progress: Progress) -> None:
        self._address, self._mixed, self._progress = address, mixed, progress

    def share(self, device: str) -> Share:
        """What a worker gets of a machine: a GPU where there is one, and as many cores as every machine has for it.

        Raises:
            WorkError: no machine has it. ConfigError: no cluster has such a device.
        """
        if device not in ("auto", "cpu", "cuda"):
            raise ConfigError(f"--device has value {device!r}; expected auto, cpu or cuda on a Ray cluster")
        found = {node["NodeID"]: node["Resources"] for node in ray.nodes() if node["Alive"]}
        gpus = {name: int(has["GPU"]) for name, has in found.items() if has.get("GPU", 0) >= 1}
        if device == "cuda" or (device == "auto" and gpus and not needs.missing()):
            rooms = {name: (int(found[name].get("CPU", 0)), count) for name, count in gpus.items()}
            cores = {name: cpus // count for name, (cpus, count) in rooms.items() if cpus >= count}
            if cores:
                least = min(*cores.values(), MOST_CORES)
                return Share(least, 1, tuple(cores), sum(rooms[name][1] for name in cores))
            raise WorkError(f"no machine of the Ray cluster at {self._address} has a GPU with a CPU to it")
        cpus = {name: int(has["CPU"]) for name, has in found.items() if has.get("CPU", 0) >= 1}
        if not cpus:
            raise WorkError(f"no machine of the Ray cluster at {self._address} has a CPU for workers")
        least = min(*cpus.values(), MOST_CORES)
        return Share(least, 0, tuple(cpus), sum(count // least for count in cpus.values()))

    def run(self, work: Work[P, R], pieces: Sequence[P]) -> Generator[R, None, None]:
        """Have the pieces done, and yield what workers tell, in the order in which tasks end.

        A task whose worker or machine dies is given to another; what is finished of it already is not done again.

        Raises:
            WorkError: the machines are of several kinds, or a task's workers died again and again.
            Whatever a worker raises.
        """
        share = self.share(work.device)
        portable = work.portable(share.device)
        kind = self._kind(portable, share)
        size = min(max(1, len(pieces) // (TASKS * share.workers)), MOST_PIECES)
        tasks = iter([pieces[start : start + size] for start in range(0, len(pieces), size)])
        do = _remote(task.do).options(**share.options, max_retries=RETRIES, name="shoal")
        under_way: list[Any] = []
        machines = Machines(self._progress)
        try:
            while True:
                for some in tasks:
                    under_way.append(do.remote(portable, share.cores, kind, some))
                    if len(under_way) >= UNDER_WAY:
                        break
                if not under_way:
                    return
                done, under_way = ray.wait(under_way, timeout=PATIENCE)
                machines.look()
                for one in done:
                    yield from _result(one)
                if not done:
                    self._tell_of_waiting(share)
        finally:
            _end(under_way)

    def _kind(self, work: Work[Any, Any], share: Share) -> task.Kind | None:
        """The kind that all machines' workers are of, having had one made ready on each; None: any."""
        look = _remote(task.look)
        places = [NodeAffinitySchedulingStrategy(machine, soft=False) for machine in share.machines]
        options = {"num_cpus": 0, "num_gpus": share.gpus, "max_retries": RETRIES}
        asked = [look.options(**options, scheduling_strategy=place).remote(work, share.cores) for place in places]
        found: list[task.Machine] = [_result(one) for one in asked]
        engines = ", ".join(sorted({machine.kind["engine"] for machine in found}))
        self._progress.say(
            f"Ray: machines: {len(found)}, workers: {share.workers}, cores of each: {share.cores}, engine: {engines}"
        )
        if self._mixed:
            return None
        if any(machine.kind != found[0].kind for machine in found):
            raise WorkError(task.unlike(found))
        return found[0].kind

    def _tell_of_waiting(self, share: Share) -> None:
        has = ray.cluster_resources()
        if has.get("CPU", 0) < share.cores or has.get("GPU", 0) < share.gpus:
            self._progress.say("Ray: no machine is left that has room for a worker; waiting for one to join")


class Machines:
    """Those of the cluster; says when some are gone."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._here, self._looked = _alive(), time.monotonic()

    def look(self) -> None:
        """Look again, if it is some seconds since."""
        if time.monotonic() - self._looked < LOOKED:
            return
        now = _alive()
        if gone := len(self._here - now):
            one = "a machine has" if gone == 1 else f"{gone:,} machines have"
            self._progress.say(f"Ray: {one} left the cluster; others do that part of the work")
        self._here, self._looked = now, time.monotonic()


def _alive() -> frozenset[str]:
    return frozenset(node["NodeID"] for node in ray.nodes() if node["Alive"])


def _remote(function: Any) -> Any:
    """A task that leaves its process as it is, encoder and all: with a GPU, Ray would end it."""
    return ray.remote(max_calls=0)(function)


def _result(task_: Any) -> Any:
    try:
        return ray.get(task_)
    except RayTaskError as error:
        if error.cause is None or isinstance(error.cause, RayError):  # it never came to the work: a module is missing
            raise WorkError(f"a worker could not begin: {_first_line(error.cause or error)}") from error
        raise error.cause from error
    except RayError as error:
        raise WorkError(
            f"workers that had some part of the work died {RETRIES + 1:,} times ({_first_line(error)}); the same "
            "command goes on from what is finished"
        ) from error


def _end(tasks: list[Any]) -> None:
    """Stop what is under way, and wait until nothing is: nobody works for a command that has ended."""
    for one in tasks:
        ray.cancel(one, force=True)
    if tasks:
        ray.wait(tasks, num_returns=len(tasks), timeout=PATIENCE)


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return (lines[0] if lines else type(error).__name__)[:300]
