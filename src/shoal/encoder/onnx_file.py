"""ONNX files, which may come from anybody: looked through before OpenVINO reads one.

OpenVINO follows external data to other files, and even to addresses in memory, before anybody can ask it what a file
holds. So the file is walked here first, every graph in it with its subgraphs and functions, and refused for what no
image network needs. Field numbers are those of https://github.com/onnx/onnx/blob/main/onnx/onnx.proto.
"""

from __future__ import annotations

import math
import mmap
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from shoal import foreign
from shoal.encoder.protobuf import DamagedError, Value, Walker, varints
from shoal.errors import RunError, WeightsError

LARGEST: Final = (1 << 31) - 1  # bytes; protobuf has no larger messages
DEEPEST: Final = 16  # of graphs within graphs
MOST_METADATA: Final = 1 << 16  # bytes of one entry that is read; exporters put whole scripts there
DOMAINS: Final = ("", "ai.onnx")  # two names of the standard's own
LOOPS: Final = ("Loop", "Scan")

# Of each message: the fields that lead to other messages, and those that are looked at.
_MODEL: Final = {"graph": 7, "metadata": 14, "training": 20, "function": 25}
_GRAPH: Final = {"node": 1, "initializer": 5, "sparse": 15}
_NODE: Final = {"operator": 4, "attribute": 5, "domain": 7}
_ATTRIBUTE: Final = {"tensor": 5, "graph": 6, "tensors": 10, "graphs": 11, "sparse": 22, "sparses": 23}
_TENSOR: Final = {"dims": 1, "external": 13, "location": 14}
_FUNCTION: Final = {"node": 7, "attribute": 11}
_SPARSE: Final = {"values": 1, "indices": 2}
_TRAINING: Final = {"initialization": 1, "algorithm": 2}
_ENTRY: Final = {"key": 1, "value": 2}


@dataclass(slots=True)
class Contents:
    """What was seen in a file: how many operators, how many numbers in its tensors."""

    operators: int = 0
    numbers: int = 0


def existing(backbone: str) -> Path:
    """The file that `--backbone FILE.onnx` names. Raises WeightsError if it is none."""
    path = Path(backbone).expanduser()
    if not path.is_file():
        raise WeightsError(f"--backbone has value {backbone!r}; expected an ONNX file that exists on this machine")
    return path


@contextmanager
def opened(path: Path) -> Iterator[memoryview]:
    """The bytes of a file, mapped; what is found damaged while they are walked through is told with its name.

    Raises:
        WeightsError: it cannot be read, is empty or too large, or damaged.
    """
    try:
        with foreign.plain_file(path) as file:
            size = file.seek(0, 2)
            if not 0 < size <= LARGEST:
                raise WeightsError(f"{path} has {size:,} bytes; expected an ONNX file of 1 to {LARGEST:,}")
            mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except (FileNotFoundError, RunError) as error:
        raise WeightsError(f"{path} cannot be read; expected an ONNX file") from error
    try:
        yield memoryview(mapped)  # unmapped with the last view of it: an error on its way out may still hold some
    except DamagedError as error:
        raise WeightsError(f"{path} is damaged, or no ONNX file: {error}") from error


def metadata(path: Path) -> dict[str, str]:
    """A file's own entries, key and value; long ones are left out. Raises WeightsError as `opened` does."""
    walker, found = Walker(), {}
    with opened(path) as view:
        for number, value in walker.fields(view):
            if number == _MODEL["metadata"] and isinstance(value, memoryview) and len(value) <= MOST_METADATA:
                entry = {name: bytes(text) for name, text in walker.fields(value) if isinstance(text, memoryview)}
                key, text = (entry.get(_ENTRY[name], b"").decode(errors="replace") for name in ("key", "value"))
                found[key] = text
    return found


def look_through(path: Path, view: memoryview) -> Contents:
    """Walk through a whole file.

    Args:
        path: how errors call it.

    Raises:
        WeightsError: its tensors lie in other files, or it has operators that are not ONNX's own, or loops.
        DamagedError: it is no ONNX file.
    """
    search = _Search(path)
    search.model(view)
    if not search.contents.operators:
        raise DamagedError("it has no operators")
    return search.contents


@dataclass(slots=True)
class _Search:
    path: Path
    walker: Walker = field(default_factory=Walker)
    contents: Contents = field(default_factory=Contents)

    def model(self, message: memoryview) -> None:
        for number, value in self._messages(message):
            if number == _MODEL["graph"]:
                self._graph(value, 0)
            elif number == _MODEL["training"]:
                for inner, graph in self._messages(value):
                    if inner in _TRAINING.values():
                        self._graph(graph, 0)
            elif number == _MODEL["function"]:
                self._function(value)

    def _graph(self, message: memoryview, depth: int) -> None:
        if depth > DEEPEST:
            raise DamagedError(f"its graphs are nested over {DEEPEST} deep")
        for number, value in self._messages(message):
            if number == _GRAPH["node"]:
                self._node(value, depth)
            elif number == _GRAPH["initializer"]:
                self._tensor(value)
            elif number == _GRAPH["sparse"]:
                self._sparse(value)

    def _function(self, message: memoryview) -> None:
        for number, value in self._messages(message):
            if number == _FUNCTION["node"]:
                self._node(value, 0)
            elif number == _FUNCTION["attribute"]:
                self._attribute(value, 0)

    def _node(self, message: memoryview, depth: int) -> None:
        operator = domain = ""
        for number, value in self._messages(message):
            if number == _NODE["attribute"]:
                self._attribute(value, depth)
            elif number == _NODE["operator"]:
                operator = _text(value)
            elif number == _NODE["domain"]:
                domain = _text(value)
        self.contents.operators += 1
        if domain not in DOMAINS:
            raise WeightsError(
                f"{self.path} has the operator {operator!r} of the domain {domain!r}; expected only ONNX's own"
            )
        if operator in LOOPS:
            raise WeightsError(
                f"{self.path} has the operator {operator!r}; expected a network without loops, whose work is known"
            )

    def _attribute(self, message: memoryview, depth: int) -> None:
        for number, value in self._messages(message):
            if number in (_ATTRIBUTE["tensor"], _ATTRIBUTE["tensors"]):
                self._tensor(value)
            elif number in (_ATTRIBUTE["graph"], _ATTRIBUTE["graphs"]):
                self._graph(value, depth + 1)
            elif number in (_ATTRIBUTE["sparse"], _ATTRIBUTE["sparses"]):
                self._sparse(value)

    def _sparse(self, message: memoryview) -> None:
        for number, value in self._messages(message):
            if number in _SPARSE.values():
                self._tensor(value)

    def _tensor(self, message: memoryview) -> None:
        dims: list[int] = []
        for number, value in self.walker.fields(message):
            if number == _TENSOR["external"] or (number == _TENSOR["location"] and value != 0):
                raise WeightsError(
                    f"{self.path} keeps tensors in other files (external data); expected one file that holds them all: "
                    "torch.onnx.export writes it with external_data=False"
                )
            if number == _TENSOR["dims"]:
                dims += self._dims(value)
        self.contents.numbers += math.prod(dims)

    def _dims(self, value: Value) -> list[int]:
        if isinstance(value, int):
            return [value]
        if len(value) > 1 << 10:
            raise DamagedError("a tensor has too many dimensions")
        return list(varints(value))

    def _messages(self, message: memoryview) -> Iterator[tuple[int, memoryview]]:
        """Its fields that have a length: messages and texts."""
        for number, value in self.walker.fields(message):
            if isinstance(value, memoryview):
                yield number, value


def _text(value: memoryview) -> str:
    return bytes(value[:100]).decode(errors="replace")
