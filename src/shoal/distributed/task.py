"""What runs on a machine of the cluster: some pieces of some work, by a worker that is made ready once in a process."""

from __future__ import annotations

import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from shoal import cores
from shoal.errors import WorkError
from shoal.executor import Work, Worker

Kind = Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Machine:
    """A machine that has been asked: what it is called, and the kind that a worker on it is of."""

    host: str
    kind: Kind


def look(work: Work[Any, Any], core_count: int) -> Machine:
    """Make a worker ready on this machine, and say what it is."""
    return Machine(socket.gethostname(), _worker(work, core_count).kind)


def do(work: Work[Any, Any], core_count: int, kind: Kind | None, pieces: Sequence[Any]) -> list[Any]:
    """Do pieces, and tell what the worker tells.

    Args:
        kind: of the worker that is to do them; None: any.

    Raises:
        WorkError: it is of another kind. Whatever else the worker raises.
    """
    worker = _worker(work, core_count)
    if kind is not None and worker.kind != kind:
        raise WorkError(unlike([Machine("the others", kind), Machine(socket.gethostname(), worker.kind)]))
    return list(worker.do(pieces))


def unlike(machines: Sequence[Machine]) -> str:
    """One line about machines that are not all of one kind: in what they differ, and which they are."""
    first = machines[0]
    other = next(machine for machine in machines if machine.kind != first.kind)
    name = next(name for name in first.kind if first.kind[name] != other.kind.get(name))
    return (
        f"the machines differ in {name}: {first.kind[name]!r} on {first.host}, {other.kind.get(name)!r} on "
        f"{other.host}; expected one kind, so that it does not matter who does what (--mixed lets them differ)"
    )


@lru_cache(maxsize=1)
def _worker(work: Work[Any, Any], core_count: int) -> Worker[Any, Any]:
    cores.use(core_count)
    return work.start()
