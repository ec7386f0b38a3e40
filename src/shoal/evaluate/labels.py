"""Reading labels: those of the source, the names of folders, or a file. Images skipped or vanished count nowhere."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from shoal import records
from shoal.errors import RequestError
from shoal.rundir import RunDir

SOURCE = "source"
FOLDERS = "folders"
DELIMITERS = {".csv": ",", ".tsv": "\t"}
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
        spec: None for those that came with the source; `folders`; or a .csv, .tsv or .parquet file with the columns
            path and label, matched by path, or by file name if no path matches and names are unique.

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
    known = set(paths.values())
    unmatched = sum(path not in known for path in by_path)
    if found or not paths:
        return Labels(found, str(file), unmatched)
    return _by_file_name(file, pairs, paths)


def _by_file_name(file: Path, pairs: list[tuple[str, str]], paths: dict[int, str]) -> Labels:
    """Match by the last part of the path, where that tells images apart."""
    repeated = [name for name, count in Counter(map(_name, paths.values())).items() if count > 1]
    if repeated:
        raise RequestError(
            f"{file} labels no path of this run (it has {pairs[0][0] if pairs else 'no rows'!r}, the run has "
            f"{next(iter(paths.values()))!r}), and names like {repeated[0]!r} are not unique; expected the run's paths"
        )
    by_name = _labels_by_key(file, ((_name(_normal(path)), label) for path, label in pairs))
    found = {number: by_name[_name(path)] for number, path in paths.items() if _name(path) in by_name}
    return Labels(found, f"{file} (by file name)", len(by_name) - len(found))


def _labels_by_key(file: Path, pairs: Iterable[tuple[str, str]]) -> dict[str, str]:
    labels: dict[str, str] = {}
    for key, label in pairs:
        if label and labels.setdefault(key, label) != label:
            raise RequestError(f"{file} gives {key!r} two labels, {labels[key]!r} and {label!r}; expected one")
    return labels


def _read_pairs(file: Path) -> list[tuple[str, str]]:
    """The (path, label) rows of a file; a null label is empty."""
    suffix = file.suffix.lower()
    if suffix not in DELIMITERS and suffix != ".parquet":
        raise RequestError(f"--labels has value {str(file)!r}; expected 'folders' or a .csv, .tsv or .parquet file")
    try:
        columns = _read_parquet(file) if suffix == ".parquet" else _read_csv(file, DELIMITERS[suffix])
    except FileNotFoundError as error:
        raise RequestError(f"--labels names {file}, which is not there") from error
    except (OSError, UnicodeDecodeError, csv.Error, pa.ArrowException) as error:
        raise RequestError(f"--labels names {file}, which cannot be read: {error}") from error
    lacking = [name for name in ("path", "label") if name not in columns]
    if lacking:
        raise RequestError(
            f"{file} has no column {lacking[0]!r} but {', '.join(columns) or 'none'}; expected path and label"
        )
    return [(path or "", label or "") for path, label in zip(columns["path"], columns["label"], strict=True)]


def _read_csv(file: Path, delimiter: str) -> dict[str, list[str | None]]:
    with file.open(encoding="utf-8-sig", newline="") as stream:  # a spreadsheet may have put a byte-order mark
        reader = csv.DictReader(stream, delimiter=delimiter, strict=True)
        rows = list(reader)
        return {name: [row[name] for row in rows] for name in reader.fieldnames or ()}


def _read_parquet(file: Path) -> dict[str, list[str | None]]:
    table = records.read_table(file)
    wanted = [name for name in table.column_names if name in ("path", "label")]
    columns = {name: table[name].cast(pa.string()).to_pylist() for name in wanted}
    return columns if len(wanted) == 2 else {name: [] for name in table.column_names}


def _normal(path: str) -> str:
    return path.removeprefix("./")


def _name(path: str) -> str:
    return path.rpartition("/")[2]
