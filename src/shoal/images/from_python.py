"""What a Python program may give as a source: paths, a table of them, or pictures."""

from __future__ import annotations

import itertools
import operator
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from PIL import Image

from shoal.errors import SourceError
from shoal.images import listed
from shoal.images.in_memory import CHANNELS, InMemorySource, is_picture
from shoal.images.manifest import PATH_COLUMNS, path_column
from shoal.images.sources import open_source
from shoal.progress import Progress
from shoal.runfiles import IN_RUN, PICTURES

Picture = Image.Image | npt.NDArray[np.uint8]
Source = str | Path | Iterable[str | Path] | pd.DataFrame | Iterable[Picture] | npt.NDArray[np.uint8]


def opened_source(source: Source, progress: Progress) -> tuple[tuple[str, ...], listed.Source]:
    """What a source is called in a run, and the source itself.

    Raises:
        SourceError: it holds neither paths nor pictures, or is not there.
    """
    if isinstance(source, str | Path):
        return _at_paths((str(source),))
    if isinstance(source, pd.DataFrame):
        return _at_paths(_paths_in(source))
    if isinstance(source, np.ndarray) and source.dtype.kind not in "OUS":
        return _of_array(source, progress)
    kind = type(source).__name__
    if isinstance(source, Mapping | bytes) or not isinstance(source, Iterable):  # a mapping yields its keys
        raise _no_source(kind)
    try:
        given = iter(source)
    except TypeError as error:  # an array without dimensions
        raise _no_source(kind) from error
    first = next(given, None)
    if is_picture(first):
        return _in_memory(itertools.chain([first], given), operator.length_hint(source), progress)
    paths = [] if first is None else [first, *given]
    for one in paths:
        if not isinstance(one, str | Path):
            raise _no_source(f"{kind} of {type(one).__name__}")
    return _at_paths(tuple(map(str, paths)))


def _at_paths(paths: tuple[str, ...]) -> tuple[tuple[str, ...], listed.Source]:
    return paths, open_source(paths)


def _in_memory(pictures: Iterable[Any], count: int, progress: Progress) -> tuple[tuple[str, ...], listed.Source]:
    return (f"{IN_RUN}{PICTURES}",), InMemorySource(pictures, count, progress)


def _of_array(pictures: npt.NDArray[Any], progress: Progress) -> tuple[tuple[str, ...], listed.Source]:
    """Pictures one after the other along the first axis."""
    told = f"array of {pictures.dtype} {list(pictures.shape)}"
    if pictures.ndim == 3 and pictures.shape[2] in CHANNELS:
        raise SourceError(f"source is one {told}, a single picture; expected several of them, or a list with it")
    if pictures.dtype != np.uint8 or pictures.ndim not in (3, 4):
        raise _no_source(told)
    return _in_memory(pictures, len(pictures), progress)


def _paths_in(table: pd.DataFrame) -> tuple[str, ...]:
    names = list(map(str, table.columns))
    place = path_column(names)
    if place is None:
        raise SourceError(
            f"source is a DataFrame with the columns {', '.join(names[:20]) or '(none)'}; expected one of paths or "
            f"URIs, called {', '.join(PATH_COLUMNS)}"
        )
    return tuple(map(str, table.iloc[:, place].dropna()))


def _no_source(kind: str) -> SourceError:
    return SourceError(
        f"source is of type {kind}; expected a path or URI, or a list of them (a folder, files, a glob, a manifest, a "
        "table, a zip or a tar), a DataFrame with a column of them, or pictures (PIL images, or uint8 arrays [height, "
        "width], [height, width, 3] or [height, width, 4]); features go into embeddings=, beside their images, or, "
        "without images, into shoal.cluster.SphericalKMeans"
    )
