"""Pickles of tensors, without torch and without running anything that is in them.

A pickle is a program. This one is read by a machine of our own that knows the few instructions which tensors need, and
to which every name but those of tensors and their storages is an error; `pickle` itself is not used.
"""

from __future__ import annotations

import math
import pickletools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, BinaryIO, Final, NoReturn

import numpy as np
import numpy.typing as npt

MOST_AXES: Final = 16
MOST_NUMBERS: Final = 1 << 40  # of a tensor, and of the sides beside an empty one

BFLOAT16: Final = np.dtype([("bfloat16", "<u2")])  # numpy has no such numbers: they are widened to float32
NUMBERS: Final = {
    "DoubleStorage": np.dtype("<f8"),
    "FloatStorage": np.dtype("<f4"),
    "HalfStorage": np.dtype("<f2"),
    "BFloat16Storage": BFLOAT16,
    "LongStorage": np.dtype("<i8"),
    "IntStorage": np.dtype("<i4"),
    "ShortStorage": np.dtype("<i2"),
    "CharStorage": np.dtype("i1"),
    "ByteStorage": np.dtype("u1"),
    "BoolStorage": np.dtype("?"),
}


class NotTensorsError(ValueError):
    """The file is none of plain tensors; the text says why."""


@dataclass(frozen=True, slots=True)
class Storage:
    """Where tensors keep their numbers, as the pickle tells of it."""

    key: str
    numbers: np.dtype[Any]
    count: int

    @property
    def size(self) -> int:
        return self.count * self.numbers.itemsize


@dataclass(frozen=True, slots=True)
class Tensor:
    """A view of a storage that lies wholly inside it and has no more numbers than it."""

    storage: Storage
    offset: int  # in numbers, as are the strides
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    def of(self, raw: bytes) -> npt.NDArray[Any]:
        """The tensor by its storage's bytes, of which it is a view."""
        numbers = np.frombuffer(raw, self.storage.numbers)
        step = numbers.itemsize
        return np.lib.stride_tricks.as_strided(
            numbers[self.offset :], self.shape, [step * stride for stride in self.strides], writeable=False
        )


def load(stream: BinaryIO, storages: dict[str, Storage] | None = None) -> Any:
    """The object of the pickle at the stream's place, which is left behind it; `storages` takes those it names."""
    try:
        return _Machine({} if storages is None else storages).run(stream)
    except NotTensorsError:
        raise
    except (ValueError, IndexError, KeyError, TypeError) as error:  # cut short, or nonsense
        raise NotTensorsError(f"its pickle is damaged ({short(error)})") from error


class _Machine:
    """Those instructions of pickle that plain values and tensors need. No name is imported and nothing is called."""

    def __init__(self, storages: dict[str, Storage]) -> None:
        self._storages = storages
        self._stack: list[Any] = []
        self._below: list[list[Any]] = []  # stacks that a MARK has put aside
        self._memo: dict[int, Any] = {}

    def run(self, stream: BinaryIO) -> Any:
        while True:
            code = CODES[stream.read(1).decode("latin-1")]
            if code.name == "STOP":
                (result,) = self._stack
                return result
            step = STEPS.get(code.name)
            if step is None:
                refuse(f"its pickle uses {code.name}")
            argument: Any = None
            if code.name == "GLOBAL":  # pickletools would undo escapes, and warn of wrong ones
                argument = " ".join(stream.readline().decode("ascii").rstrip("\n") for _ in ("module", "name"))
            elif code.arg is not None:
                argument = code.arg.reader(stream)
            step(self, argument)

    def push(self, value: Any) -> None:
        self._stack.append(value)

    def pop(self) -> Any:
        return self._stack.pop()

    def mark(self, _: Any) -> None:
        self._below.append(self._stack)
        self._stack = []

    def since_mark(self) -> list[Any]:
        found, self._stack = self._stack, self._below.pop()
        return found

    def top(self, kind: type) -> Any:
        if not isinstance(self._stack[-1], kind):
            refuse(f"its pickle fills what is no {kind.__name__}")
        return self._stack[-1]

    def put(self, place: int) -> None:
        self._memo[place] = self._stack[-1]

    def get(self, place: int) -> None:
        self.push(self._memo[place])

    def last(self, count: int) -> None:
        found = [self.pop() for _ in range(count)]
        self.push(tuple(reversed(found)))

    def append(self, values: list[Any]) -> None:
        self.top(list).extend(values)

    def set_items(self, values: list[Any]) -> None:
        names, items = values[::2], values[1::2]
        if not all(type(name) in (str, int) for name in names):
            refuse("its pickle has keys that are neither text nor numbers")
        self.top(dict).update(zip(names, items, strict=True))

    def set_item(self, _: Any) -> None:
        item, name = self.pop(), self.pop()
        self.set_items([name, item])

    def name(self, name: str) -> None:
        """`module name`, as GLOBAL gives it."""
        module, _, inner = name.rpartition(" ")
        if module == "torch" and inner in NUMBERS:
            self.push(NUMBERS[inner])
        elif name in CALLS:
            self.push(CALLS[name])
        else:
            refuse(f"its pickle names {short(f'{module}.{inner}')}, which is not run")

    def reduce(self, _: Any) -> None:
        arguments, call = self.pop(), self.pop()
        if call not in CALLS.values() or not isinstance(arguments, tuple):
            refuse("its pickle calls what is not to be called")
        self.push(call(*arguments))

    def build(self, _: Any) -> None:
        """State of an OrderedDict: torch keeps the versions of its modules there."""
        self.pop()
        self.top(dict)

    def storage(self, _: Any) -> None:
        found = self.pop()
        match found:
            case ("storage", np.dtype() as numbers, str(key), str(), int(count), *view):
                if view not in ([], [None]) or count < 0:
                    refuse(f"storage {short(key)} is a view or has a size below 0")
                storage = Storage(key, numbers, count)
                if self._storages.setdefault(key, storage) != storage:
                    refuse(f"storage {short(key)} is said to be of two kinds")
                self.push(storage)
            case _:
                refuse("its pickle refers to what is no storage")


def _ordered() -> dict[str, Any]:
    return {}


def _rebuilt(storage: Any, offset: Any, shape: Any, strides: Any, *_: Any) -> Tensor:
    """torch._utils._rebuild_tensor_v2; what follows the strides is of no meaning to weights."""
    if not isinstance(storage, Storage):
        refuse("a tensor has no storage")
    if not (isinstance(shape, tuple) and isinstance(strides, tuple) and len(shape) == len(strides) <= MOST_AXES):
        refuse(f"a tensor has more than {MOST_AXES} axes, or not a stride for each")
    if not all(type(number) is int and 0 <= number <= MOST_NUMBERS for number in (offset, *shape, *strides)):
        refuse(f"a tensor's offset, shape or strides are no whole numbers from 0 to {MOST_NUMBERS:,}")
    numbers = math.prod(shape)
    if math.prod(side for side in shape if side) > MOST_NUMBERS:
        refuse(f"a tensor's shape is of more than {MOST_NUMBERS:,} numbers")
    reach = sum((side - 1) * stride for side, stride in zip(shape, strides, strict=True)) + 1 if numbers else 0
    if numbers > storage.count or offset + reach > storage.count:
        refuse(f"a tensor reaches beyond the {storage.count:,} numbers of its storage {short(storage.key)}")
    return Tensor(storage, offset, shape, strides)


CALLS: Final[dict[str, Callable[..., Any]]] = {
    "collections OrderedDict": _ordered,
    "torch._utils _rebuild_tensor_v2": _rebuilt,
}
CODES: Final = {code.code: code for code in pickletools.opcodes}
STEPS: Final[dict[str, Callable[[_Machine, Any], None]]] = {
    "PROTO": lambda machine, _: None,
    "MARK": _Machine.mark,
    "NONE": lambda machine, _: machine.push(None),
    "NEWTRUE": lambda machine, _: machine.push(True),
    "NEWFALSE": lambda machine, _: machine.push(False),
    **dict.fromkeys(("BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT", "BINUNICODE"), _Machine.push),
    **dict.fromkeys(("BINPUT", "LONG_BINPUT"), _Machine.put),
    **dict.fromkeys(("BINGET", "LONG_BINGET"), _Machine.get),
    "EMPTY_TUPLE": lambda machine, _: machine.push(()),
    "EMPTY_LIST": lambda machine, _: machine.push([]),
    "EMPTY_DICT": lambda machine, _: machine.push({}),
    "TUPLE": lambda machine, _: machine.push(tuple(machine.since_mark())),
    "TUPLE1": lambda machine, _: machine.last(1),
    "TUPLE2": lambda machine, _: machine.last(2),
    "TUPLE3": lambda machine, _: machine.last(3),
    "APPEND": lambda machine, _: machine.append([machine.pop()]),
    "APPENDS": lambda machine, _: machine.append(machine.since_mark()),
    "SETITEM": _Machine.set_item,
    "SETITEMS": lambda machine, _: machine.set_items(machine.since_mark()),
    "GLOBAL": _Machine.name,
    "REDUCE": _Machine.reduce,
    "BUILD": _Machine.build,
    "BINPERSID": _Machine.storage,
}


def short(value: Any) -> str:
    """A value of the file's for a message: printable, on one line, not endless."""
    text = str(value)[:100] if isinstance(value, str | int | Exception) else type(value).__name__
    return ascii(text)


def refuse(why: str) -> NoReturn:
    raise NotTensorsError(why)
