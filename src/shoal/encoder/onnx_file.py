"""ONNX files, which may come from anybody: looked through before OpenVINO reads one.

OpenVINO follows external data to other files, and even to addresses in memory, before anybody can ask it what a file
holds. So the file is walked here first, every graph in it with its subgraphs and functions, and refused for what no
image network needs. Field numbers are those of https://github.com/onnx/onnx/blob/main/onnx/onnx.proto.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, Final

from shoal import foreign
from shoal.encoder.file_bytes import CutOffError, FileBytes
from shoal.encoder.protobuf import Bytes, DamagedError, Value, Walker, varints
from shoal.errors import RunError, WeightsError

LARGEST: Final = (1 << 31) - 1  # bytes; protobuf has no larger messages
DEEPEST: Final = 16  # of graphs within graphs
MOST_OPERATORS: Final = 20_000  # SwinV2-S by torch has 7,181; OpenVINO's time grows with the square
MOST_AXES: Final = 16  # of a tensor
LARGEST_AXIS: Final = 1 << 31
LARGEST_DENSE: Final = 1 << 28  # numbers of a sparse tensor with its zeros
NUMBERS_A_BYTE: Final = 4  # at most: the narrowest have two bits
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
_SPARSE: Final = {"values": 1, "indices": 2, "dims": 3}
_TRAINING: Final = {"initialization": 1, "algorithm": 2}
_ENTRY: Final = {"key": 1, "value": 2}


@dataclass(slots=True)
class Contents:
    """What was seen in a file: how many operators, how many numbers in its tensors."""

    operators: int = 0
    numbers: int = 0


@contextmanager
def opened(path: Path) -> Iterator[FileBytes]:
    """The bytes of a file, read as they are walked through; what is found damaged meanwhile is told with its name.

    Raises:
        WeightsError: it cannot be read, is empty or too large, or damaged.
    """
    with _damage_told(path), _sized(path) as (file, size):
        yield FileBytes(file, 0, size)


def read(path: Path) -> bytes:
    """The bytes of a file, all at once: what is looked through then is what is used. Raises as `opened` does."""
    with _damage_told(path), _sized(path) as (file, size):
        return bytes(FileBytes(file, 0, size))


@contextmanager
def _sized(path: Path) -> Iterator[tuple[BinaryIO, int]]:
    try:
        with foreign.plain_file(path) as file:
            size = file.seek(0, os.SEEK_END)
            if not 0 < size <= LARGEST:
                raise WeightsError(f"{path} has {size:,} bytes; expected an ONNX file of 1 to {LARGEST:,}")
            yield file, size
    except (FileNotFoundError, RunError) as error:
        raise WeightsError(f"{path} cannot be read; expected an ONNX file") from error


@contextmanager
def _damage_told(name: object) -> Iterator[None]:
    try:
        yield
    except (DamagedError, CutOffError) as error:
        raise WeightsError(f"{name} is damaged, or no ONNX file: {error}") from error


def metadata(path: Path) -> dict[str, str]:
    """A file's own entries, key and value; long ones are left out. Raises WeightsError as `opened` does."""
    walker, found = Walker(), {}
    with opened(path) as view:
        for number, value in walker.fields(view):
            if number == _MODEL["metadata"] and not isinstance(value, int) and len(value) <= MOST_METADATA:
                entry = {name: bytes(text) for name, text in walker.fields(value) if not isinstance(text, int)}
                key, text = (entry.get(_ENTRY[name], b"").decode(errors="replace") for name in ("key", "value"))
                found[key] = text
    return found


def look_through(name: object, view: Bytes) -> Contents:
    """Walk through a whole file.

    Args:
        name: how errors call it.

    Raises:
        WeightsError: it is damaged, its tensors lie in other files, or it has operators that are not ONNX's own, loops,
            or more operators or sizes than any image network.
    """
    with _damage_told(name):
        search = _Search(name)
        search.model(view)
        if not search.contents.operators:
            raise DamagedError("it has no operators")
        return search.contents


@dataclass(slots=True)
class _Shape:
    """The axes that a tensor says it has, all in one field or each in its own."""

    axes: int = 0
    numbers: int = 1

    def add(self, value: Value) -> None:
        for size in [value] if isinstance(value, int) else varints(value):
            self.axes += 1
            if self.axes > MOST_AXES:
                raise DamagedError(f"a tensor has over {MOST_AXES} axes")
            if size > LARGEST_AXIS:
                raise DamagedError("a tensor has an axis that is too long, or of a length below 0")
            self.numbers *= size

    def check(self, most: int) -> None:
        if self.numbers > most:
            raise DamagedError("a tensor has fewer numbers than its shape says")


@dataclass(slots=True)
class _Search:
    name: object
    walker: Walker = field(default_factory=Walker)
    contents: Contents = field(default_factory=Contents)

    def model(self, message: Bytes) -> None:
        for number, value in self._messages(message, _MODEL["graph"]):
            if number == _MODEL["graph"]:
                self._graph(value, 0, is_main=True)
            elif number == _MODEL["training"]:
                for inner, graph in self._messages(value, *_TRAINING.values()):
                    if inner in _TRAINING.values():
                        self._graph(graph, 0)
            elif number == _MODEL["function"]:
                self._function(value)

    def _graph(self, message: Bytes, depth: int, *, is_main: bool = False) -> None:
        if depth > DEEPEST:
            raise DamagedError(f"its graphs are nested over {DEEPEST} deep")
        for number, value in self._messages(message):
            if number == _GRAPH["node"]:
                self._node(value, depth)
            elif number == _GRAPH["initializer"]:
                numbers = self._tensor(value)
                self.contents.numbers += numbers if is_main else 0
            elif number == _GRAPH["sparse"]:
                self._sparse(value)

    def _function(self, message: Bytes) -> None:
        for number, value in self._messages(message):
            if number == _FUNCTION["node"]:
                self._node(value, 0)
            elif number == _FUNCTION["attribute"]:
                self._attribute(value, 0)

    def _node(self, message: Bytes, depth: int) -> None:
        operator = domain = ""
        for number, value in self._messages(message, _NODE["operator"], _NODE["domain"]):
            if number == _NODE["attribute"]:
                self._attribute(value, depth)
            elif number == _NODE["operator"]:
                operator = _text(value)
            elif number == _NODE["domain"]:
                domain = _text(value)
        self.contents.operators += 1
        if self.contents.operators > MOST_OPERATORS:
            raise WeightsError(
                f"{self.name} has over {MOST_OPERATORS:,} operators; expected an image network, of fewer"
            )
        if domain not in DOMAINS:
            raise WeightsError(
                f"{self.name} has the operator {operator!r} of the domain {domain!r}; expected only ONNX's own"
            )
        if operator in LOOPS:
            raise WeightsError(
                f"{self.name} has the operator {operator!r}; expected a network without loops, whose work is known"
            )

    def _attribute(self, message: Bytes, depth: int) -> None:
        once = _ATTRIBUTE["tensor"], _ATTRIBUTE["graph"], _ATTRIBUTE["sparse"]
        for number, value in self._messages(message, *once):
            if number in (_ATTRIBUTE["tensor"], _ATTRIBUTE["tensors"]):
                self._tensor(value)
            elif number in (_ATTRIBUTE["graph"], _ATTRIBUTE["graphs"]):
                self._graph(value, depth + 1)
            elif number in (_ATTRIBUTE["sparse"], _ATTRIBUTE["sparses"]):
                self._sparse(value)

    def _sparse(self, message: Bytes) -> None:
        shape = _Shape()
        for number, value in self._once(message, _SPARSE["values"], _SPARSE["indices"]):
            if number == _SPARSE["dims"]:
                shape.add(value)
            elif number in _SPARSE.values() and not isinstance(value, int):
                self._tensor(value)
        shape.check(LARGEST_DENSE)

    def _tensor(self, message: Bytes) -> int:
        """How many numbers it has: no more than fit into its bytes, however it gives its shape."""
        shape = _Shape()
        for number, value in self.walker.fields(message):
            if number == _TENSOR["external"] or (number == _TENSOR["location"] and value != 0):
                raise WeightsError(
                    f"{self.name} keeps tensors in other files (external data); expected one file that holds them all: "
                    "torch.onnx.export writes it with external_data=False"
                )
            if number == _TENSOR["dims"]:
                shape.add(value)
        shape.check(NUMBERS_A_BYTE * len(message))
        return shape.numbers

    def _messages(self, message: Bytes, *once: int) -> Iterator[tuple[int, Bytes]]:
        """Its fields that have a length: messages and texts. Of `once` see `_once`."""
        for number, value in self._once(message, *once):
            if not isinstance(value, int):
                yield number, value

    def _once(self, message: Bytes, *once: int) -> Iterator[tuple[int, Value]]:
        """Its fields. Two of a message would be joined, and of two texts one hidden: of `once` there may be one."""
        found = set()
        for number, value in self.walker.fields(message):
            if number in once:
                if number in found:
                    raise DamagedError("what there can be but one of is there twice")
                found.add(number)
            yield number, value


def _text(value: Bytes) -> str:
    return bytes(value[:100]).decode(errors="replace")
