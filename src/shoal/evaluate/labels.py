"""Reading labels: those of the source, the names of folders, or a file. Images skipped or vanished count nowhere."""

from __future__ import annotations

import csv
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from shoal import parquet, records
from shoal.errors import DecodeError, RequestError
from shoal.images import manifest
from shoal.images.gate import Gate
from shoal.images.location import file_uri, valid_text
from shoal.images.written import comparable, decoded
from shoal.rundir import RunDir

SOURCE = "source"
FOLDERS = "folders"
TEXTS = (".csv", ".tsv")
LABEL_COLUMNS = ("label", "class", "category")
HINT = "give them with --labels folders (each image's parent folder) or --labels FILE.csv (columns path,label)"


@dataclass(frozen=True, slots=True)
class Labels:
    """Labels by image id.

    Attributes:
        by_id: only of images that are ok or duplicates.
        source: where they come from: `source`, `folders`, or the file.
        unmatched: labels in the file for which the run has no image.
    """

    by_id: dict[int, str]
    source: str
    unmatched: int = 0


def read_labels(run_dir: RunDir, spec: str | None) -> Labels:
    """Read labels for a run.

    Args:
        spec: None for those that came with the source; `folders`; or a .csv, .tsv or .parquet file with a column of
            paths (named as in manifests) and one called label, class or category. Images are matched by path, or by
            file name if no path matches and names are unique.

    Raises:
        RequestError: there are none, the file is not as expected, or no image has one.
    """
    images = run_dir.read_images(["id", "path", "status"])
    counted = images.filter(pc.is_in(images["status"], pa.array([records.OK, records.DUPLICATE])))
    paths: dict[int, str] = dict(zip(counted["id"].to_pylist(), counted["path"].to_pylist(), strict=True))
    if spec is None:
        labels = _of_source(run_dir, paths)
    elif spec == FOLDERS:
        labels = _of_folders(paths)
    else:
        labels = _of_file(Path(spec), paths)
    if not labels.by_id:
        raise RequestError(f"not one of the {len(paths):,} images has a label from {labels.source}; {HINT}")
    return labels


def _of_source(run_dir: RunDir, paths: dict[int, str]) -> Labels:
    if not run_dir.labels.is_file():
        raise RequestError(f"{run_dir.root} has no labels of its own; {HINT}")
    table = records.read_table(run_dir.labels)
    pairs = zip(table["id"].to_pylist(), table["label"].to_pylist(), strict=True)
    return Labels({number: label for number, label in pairs if number in paths and label}, SOURCE)


def _of_folders(paths: dict[int, str]) -> Labels:
    """An image at the top of the source has no folder and so no label."""
    split = {number: path.split("/") for number, path in paths.items()}
    return Labels({number: parts[-2] for number, parts in split.items() if len(parts) > 1 and parts[-2]}, FOLDERS)


def _of_file(file: Path, paths: dict[int, str]) -> Labels:
    pairs = _read_pairs(file)
    by_path = _labels_by_key(file, ((_normal(path), label) for path, label in pairs))
    found = {number: by_path[path] for number, path in paths.items() if path in by_path}
    # The others as other programs spell them: with backslashes, blanks, or accents in Unicode's other form.
    known = set(paths.values())
    forms = {number: comparable(path) for number, path in paths.items() if number not in found}
    others = ((comparable(path), label) for path, label in pairs if _normal(path) not in known)
    rest = _labels_by_key(file, others)
    found |= {number: rest[form] for number, form in forms.items() if form in rest}
    if found or not paths:
        return Labels(found, str(file), len(rest.keys() - set(forms.values())))
    return _by_file_name(file, pairs, paths)


def _by_file_name(file: Path, pairs: list[tuple[str, str]], paths: dict[int, str]) -> Labels:
    """Match by the last part of the path, where that tells images apart."""
    repeated = [name for name, count in Counter(map(_name, paths.values())).items() if count > 1]
    if repeated:
        raise RequestError(
            f"{file} labels no path of this run (it has {pairs[0][0] if pairs else 'no rows'!r}, the run has "
            f"{next(iter(paths.values()))!r}), and names like {repeated[0]!r} are not unique; expected the run's paths"
        )
    by_name = _labels_by_key(file, ((_name(comparable(path)), label) for path, label in pairs))
    names = {number: _name(comparable(path)) for number, path in paths.items()}
    found = {number: by_name[name] for number, name in names.items() if name in by_name}
    return Labels(found, f"{file} (by file name)", len(by_name) - len(found))


def _labels_by_key(file: Path, pairs: Iterable[tuple[str, str]]) -> dict[str, str]:
    labels: dict[str, str] = {}
    for key, label in pairs:
        if label and labels.setdefault(key, label) != label:
            raise RequestError(f"{file} gives {key!r} two labels, {labels[key]!r} and {label!r}; expected one")
    return labels


def _read_pairs(file: Path) -> list[tuple[str, str]]:
    """The (path, label) rows of a file; a null label is empty, bytes of a path that are not UTF-8 are surrogates."""
    suffix = file.suffix.lower()
    if suffix not in TEXTS and suffix != ".parquet":
        raise RequestError(f"--labels has value {str(file)!r}; expected 'folders' or a .csv, .tsv or .parquet file")
    if not os.path.lexists(file):
        raise RequestError(f"--labels names {file}, which is not there")
    try:
        return _of_parquet(file) if suffix == ".parquet" else _of_text(file)
    except (DecodeError, OSError, UnicodeDecodeError, csv.Error, pa.ArrowException) as error:
        raise RequestError(f"--labels names {file}, which cannot be read: {error}") from error


def _of_text(file: Path) -> list[tuple[str, str]]:
    names, *rows = list(manifest.table_rows(Gate().read(file_uri(str(file))))) or [[]]
    places = _columns(file, names)
    path, label = ([row[place] if place < len(row) else "" for row in rows] for place in places)
    return list(zip(path, map(decoded, label), strict=True))


def _of_parquet(file: Path) -> list[tuple[str, str]]:
    with Gate().open(file_uri(str(file))) as stream, parquet.opened(stream) as opened:
        table = parquet.whole(opened)
    places = _columns(file, table.column_names)
    path, label = ([value or "" for value in table.column(place).cast(pa.string()).to_pylist()] for place in places)
    return list(zip(path, label, strict=True))


def _columns(file: Path, names: Sequence[str]) -> tuple[int, int]:
    """The places of the columns of paths and of labels."""
    lowered = [name.strip().lower() for name in names]
    path = manifest.path_column(names)
    label = next((lowered.index(name) for name in LABEL_COLUMNS if name in lowered), None)
    if path is None or label is None:
        lacking = "path" if path is None else "label"
        there = ", ".join(map(valid_text, names)) or "none"
        raise RequestError(f"{file} has no column {lacking!r} but {there}; expected path and label")
    return path, label


def _normal(path: str) -> str:
    return valid_text(path).removeprefix("./")


def _name(path: str) -> str:
    return path.rpartition("/")[2]
