"""What embeddings that a person gives have in common, whatever they lie in: what is expected, and how errors tell."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, Final, Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from shoal import foreign
from shoal.embeddings import Float32, Ids
from shoal.errors import EmbeddingsError, RunError
from shoal.images.location import valid_text

MOST_DIMS: Final = 1 << 24
BLOCK_BYTES: Final = 8 << 20  # read at a time, about
EXPECTED: Final = "float16, float32 or float64 [images, dimensions]"
MOST_QUOTED: Final = 200  # characters of what a file holds, in an error


class Rows(Protocol):
    """Vectors by number."""

    def read(self, numbers: Ids) -> Float32:
        """float32 [len(numbers), dim]; what single precision cannot hold is infinite."""


def check(name: str, dtype: np.dtype[Any], shape: tuple[int, ...]) -> None:
    """Raise EmbeddingsError unless these are floats of two dimensions."""
    if dtype.kind != "f" or dtype.itemsize > 8 or len(shape) != 2:
        raise EmbeddingsError(f"{name} holds {quoted(dtype)} {list(shape)}; expected {EXPECTED}")
    check_shape(name, shape, str(dtype))


def check_shape(name: str, shape: tuple[int, ...], what: str) -> None:
    """Raise EmbeddingsError unless there are rows, and numbers in them."""
    if shape[0] < 1 or not 1 <= shape[1] <= MOST_DIMS:
        raise EmbeddingsError(f"{name} holds {what} {list(shape)}; expected {EXPECTED}, none of them 0")


def single(values: npt.NDArray[Any]) -> Float32:
    """In single precision; what it cannot hold is infinite."""
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        return values.astype(np.float32)


def quoted(value: object) -> str:
    """What a file holds, as an error may quote it, however long it is."""
    text = str(value)
    return text if len(text) <= MOST_QUOTED else f"{text[:MOST_QUOTED]}…"


def opened(path: str, name: str) -> BinaryIO:
    """A file, open for reading. Raises EmbeddingsError, which calls it `name`."""
    with telling_of(name):
        return foreign.open_plain(Path(path))


@contextmanager
def telling_of(name: str) -> Iterator[None]:
    """Turn what reading a file raises into an EmbeddingsError that names it."""
    try:
        yield
    except FileNotFoundError as error:
        raise EmbeddingsError(f"{name} does not exist") from error
    except RunError as error:
        raise EmbeddingsError(valid_text(str(error))) from error
    except (OSError, UnicodeDecodeError, pa.ArrowException) as error:
        words = getattr(error, "strerror", None) or str(error)
        raise EmbeddingsError(f"{name} cannot be read: {quoted(' '.join(words.split()))}") from error
