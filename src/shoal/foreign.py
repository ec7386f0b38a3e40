"""Files of runs and models, which may come from anybody: JSON of bounded size, tensors looked at before they are read.

Whatever is wrong with one is a RunError of one line that names the file, the field, its value and what was expected.
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Final, NoReturn, TypeVar

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError, safe_open

from shoal.errors import RunError, ShoalError
from shoal.typed import Reader, UnfitError

T = TypeVar("T")

LARGEST_JSON: Final = 1 << 24  # bytes
FLOATS: Final = ("F32",)
INTEGERS: Final = ("I32", "I64")


def read_bytes(path: Path, most: int = LARGEST_JSON) -> bytes:
    """A file's bytes.

    Raises:
        FileNotFoundError: there is none. RunError: it is no plain file, is too large, or cannot be read.
    """
    with plain_file(path) as file:
        data = file.read(most + 1)
    if len(data) > most:
        raise RunError(f"{path} has over {most:,} bytes; expected fewer")
    return data


@contextmanager
def plain_file(path: Path) -> Iterator[BinaryIO]:
    """Open a file for reading, and tell of what reading it raises too. Raises as `read_bytes` does."""
    with open_plain(path) as file:
        try:
            yield file
        except FileNotFoundError:
            raise
        except (OSError, ValueError) as error:
            raise RunError(f"{path} cannot be read: {_words(error)}") from error


def open_plain(path: Path) -> BinaryIO:
    """A file, open for reading. Raises as `read_bytes` does."""
    try:
        # A pipe would never answer, and a device never end.
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    except FileNotFoundError:
        raise
    except (OSError, ValueError) as error:
        raise RunError(f"{path} cannot be read: {_words(error)}") from error
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise RunError(f"{path} is no plain file")
    return os.fdopen(descriptor, "rb")


def parse_json(data: bytes | str, name: object) -> Any:
    """JSON without NaN and infinities. Raises RunError, naming `name`, if it is none."""
    try:
        return json.loads(data, parse_constant=_no_number)
    except RecursionError:
        raise RunError(f"{name} is not readable: it is nested too deeply") from None
    except ValueError as error:
        raise RunError(f"{name} is not readable as JSON: {_words(error)}") from error


def read_json(path: Path, kind: type[T], most: int = LARGEST_JSON) -> T:
    """The JSON of a file as the type `kind`; keys that it does not have are passed over.

    Raises:
        FileNotFoundError: there is no such file. RunError: it is not readable, or a value does not fit.
    """
    value = parse_json(read_bytes(path, most), path)
    with telling_of(path):
        return READER.read(kind, value)


READER: Final = Reader(others=True)


@contextmanager
def telling_of(name: object, kind: type[ShoalError] = RunError) -> Iterator[None]:
    """Turn what does not fit into a RunError that names the file, or another error."""
    try:
        yield
    except UnfitError as error:
        raise kind(f"{name}: {error}") from error


@dataclass(frozen=True, slots=True)
class Tensors:
    """What a safetensors file says that it holds: dtype and shape by name, which its library compared with its size."""

    path: Path
    found: Mapping[str, tuple[str, tuple[int, ...]]]

    @classmethod
    def of(cls, path: Path, what: str = "tensors") -> Tensors:
        """Reads the header alone.

        Args:
            what: an error calls what the file should hold so.

        Raises:
            RunError: there is no such file, or no header that fits it.
        """
        if not path.is_file():
            raise RunError(f"{path} is not there: no {what}")
        try:
            with safe_open(path, "numpy") as file:
                slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118  (it is no dictionary)
                return cls(path, {name: (one.get_dtype(), tuple(one.get_shape())) for name, one in slices.items()})
        except (OSError, SafetensorError, ValueError) as error:
            raise RunError(f"{path} holds no readable {what}: {_words(error)}") from error

    def shape(self, name: str, like: tuple[int | None, ...], dtypes: tuple[str, ...] = FLOATS) -> tuple[int, ...]:
        """The shape of a tensor, which has to be `like` (None: any number from 1 up) and of one of `dtypes`.

        Raises:
            RunError: there is none of that name, or it is another.
        """
        words = f"{' or '.join(dtypes)} [{', '.join('n' if size is None else f'{size:,}' for size in like)}]"
        if name not in self.found:
            raise RunError(f"{self.path}: tensor {name!r} is missing; expected {words}")
        dtype, shape = self.found[name]
        fits = len(shape) == len(like) and all(
            size > 0 if wanted is None else size == wanted for size, wanted in zip(shape, like, strict=True)
        )
        if dtype not in dtypes or not fits:
            raise RunError(f"{self.path}: tensor {name!r} is {dtype} {list(shape)}; expected {words}")
        return shape

    def read(self, *names: str) -> dict[str, npt.NDArray[Any]]:
        """Tensors by name, those of them that there are. Raises RunError where a number is none."""
        try:
            with safe_open(self.path, "numpy") as file:
                read = {name: np.asarray(file.get_tensor(name)) for name in names if name in self.found}
        except (OSError, SafetensorError, ValueError, TypeError) as error:
            raise RunError(f"{self.path} is not readable as tensors: {_words(error)}") from error
        for name, values in read.items():
            if not np.isfinite(values).all():
                raise RunError(f"{self.path}: tensor {name!r} holds NaN or infinite values; expected numbers")
        return read


def _no_number(text: str) -> NoReturn:
    raise ValueError(f"{text} is no number of JSON")


def _words(error: BaseException) -> str:
    return (" ".join(str(error).split()) or type(error).__name__)[:200]
