"""Reading labels: those of the source, the names of folders, or a file. Images skipped or vanished count nowhere."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from shoal import parquet, records
from shoal.embeddings import Ids
from shoal.errors import DecodeError, RequestError
from shoal.images import manifest
from shoal.images.gate import Gate
from shoal.images.location import file_uri, valid_text
from shoal.images.written import comparable, decoded
from shoal.rundir import RunDir

SOURCE = "source"
FOLDERS = "folders"
FOLDER: Final = r"(?:^|/)(?P<folder>[^/]+)/[^/]*\z"  # the last one of a path
TEXTS = (".csv", ".tsv")
LABEL_COLUMNS = ("label", "class", "category")
IN_FILE: Final = "--labels FILE.csv (columns path,label)"
HINT: Final = f"give them with --labels folders (each image's parent folder) or {IN_FILE}"


@dataclass(frozen=True, slots=True, eq=False)
class Labels:
    """Labels of images that are ok or duplicates.

    Attributes:
        table: `id` and `label`, a row for each image that has one.
        source: where they come from: `source`, `folders`, or the file.
        unmatched: labels in the file for which the run has no image.
    """

    table: pa.Table
    source: str
    unmatched: int = 0

    def of(self, ids: Ids) -> pa.Array:
        """The label of each image, null for one without: texts [n]."""
        places = pc.index_in(pa.array(ids), value_set=self.table["id"].combine_chunks())
        return self.table["label"].combine_chunks().take(places)

    def renamed(self, label_of: Mapping[str, str]) -> Labels:
        """With other labels in place of those that `label_of` knows."""
        texts = self.table["label"].combine_chunks().dictionary_encode()
        others = pa.array([label_of.get(text, text) for text in texts.dictionary.to_pylist()], pa.string())
        return replace(self, table=self.table.set_column(1, "label", others.take(texts.indices)))


def names_in(labels: pa.Array) -> npt.NDArray[np.str_]:
    """The texts of an array that has no nulls, as numpy has them."""
    texts = labels.dictionary_encode()
    found: npt.NDArray[np.str_] = np.array(texts.dictionary.to_pylist(), np.str_)[texts.indices.to_numpy()]
    return found


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
    ids, paths = counted["id"].combine_chunks(), counted["path"]
    if spec is None:
        labels = _of_source(run_dir, ids)
    elif spec == FOLDERS:
        labels = _of_folders(ids, paths)
    else:
        labels = _of_file(Path(spec), ids, paths)
    if not labels.table.num_rows:
        raise RequestError(f"not one of the {len(ids):,} images has a label from {labels.source}{_why_none(labels)}")
    return labels


def _why_none(labels: Labels) -> str:
    """Why nothing has a label, and what else can be done, after what was done."""
    if labels.source == SOURCE:
        return f"; {HINT}"
    if labels.source == FOLDERS:
        return f": they lie in no folder of the source; give labels with {IN_FILE}"
    if not labels.unmatched:
        return ", which gives none; expected a path and a label in each row"
    return (
        f": none of the {labels.unmatched:,} paths in it is one of theirs; expected paths as shoal export --to csv has"
    )


def _of_source(run_dir: RunDir, ids: pa.Array) -> Labels:
    if not run_dir.labels.is_file():
        raise RequestError(f"{run_dir.root} has no labels of its own; {HINT}")
    table = records.read_table(run_dir.labels, ["id", "label"])
    is_label = pc.and_(pc.is_in(table["id"], value_set=ids), pc.not_equal(table["label"], ""))
    return Labels(table.filter(is_label), SOURCE)


def _of_folders(ids: pa.Array, paths: pa.ChunkedArray) -> Labels:
    """An image at the top of the source has no folder and so no label."""
    return _labelled(ids, pc.struct_field(pc.extract_regex(paths, FOLDER), "folder"), FOLDERS)


def _labelled(ids: pa.Array, labels: pa.Array | pa.ChunkedArray, source: str, unmatched: int = 0) -> Labels:
    """Without the images whose label is null."""
    return Labels(pa.table({"id": ids, "label": labels}).filter(pc.is_valid(labels)), source, unmatched)


def _of_file(file: Path, ids: pa.Array, paths: pa.ChunkedArray) -> Labels:
    written, labels = _read_columns(file)
    normal = _texts(map(_normal, written))
    by_path = _ByKey.of(file, normal, labels)
    found = by_path.labels_of(paths)
    # The others as other programs spell them: with backslashes, blanks, or accents in Unicode's other form.
    others = np.flatnonzero(~pc.is_in(normal, value_set=paths).to_numpy(zero_copy_only=False))
    rest = _ByKey.of(
        file, _texts(comparable(written[place]) for place in others.tolist()), labels.take(pa.array(others))
    )
    unknown = found.is_null().to_numpy(zero_copy_only=False)
    forms = _texts(map(comparable, paths.filter(pa.array(unknown)).to_pylist()))
    found = pc.replace_with_mask(found, pa.array(unknown), rest.labels_of(forms))
    if found.null_count < len(found) or not len(paths):
        return _labelled(ids, found, str(file), rest.without(forms))
    return _by_file_name(file, (written, labels), ids, paths)


def _by_file_name(file: Path, columns: tuple[Sequence[str], pa.Array], ids: pa.Array, paths: pa.Array) -> Labels:
    """Match by the last part of the path, where that tells images apart."""
    written, labels = columns
    names = _texts(map(_name, paths.to_pylist())).dictionary_encode()
    if len(names.dictionary) < len(names):
        repeated = names.dictionary[int(np.argmax(np.bincount(names.indices.to_numpy()) > 1))]
        raise RequestError(
            f"{file} labels no path of this run (it has {written[0] if written else 'no rows'!r}, the run has "
            f"{paths[0].as_py()!r}), and names like {repeated.as_py()!r} are not unique; expected the run's paths"
        )
    by_name = _ByKey.of(file, _texts(_name(comparable(path)) for path in written), labels)
    forms = _texts(_name(comparable(path)) for path in paths.to_pylist())
    return _labelled(ids, by_name.labels_of(forms), f"{file} (by file name)", by_name.without(forms))


@dataclass(frozen=True, slots=True, eq=False)
class _ByKey:
    """The labels of a file by what images are known by: two columns without nulls, no key twice."""

    keys: pa.Array
    labels: pa.Array

    @classmethod
    def of(cls, file: Path, keys: pa.Array, labels: pa.Array) -> _ByKey:
        """Without those that are empty. Raises RequestError if a key has two."""
        is_label = pc.not_equal(labels, "")
        keys, labels = keys.filter(is_label).dictionary_encode(), labels.filter(is_label)
        key, label = keys.indices.to_numpy(), labels.dictionary_encode().indices.to_numpy()
        first = np.unique(key, return_index=True)[1]
        again = np.flatnonzero(label != label[first][key])
        if len(again):
            known, other = labels[int(first[key[again[0]]])], labels[int(again[0])]
            raise RequestError(
                f"{file} gives {keys[int(again[0])].as_py()!r} two labels, {known.as_py()!r} and {other.as_py()!r}; "
                "expected one"
            )
        return cls(keys.dictionary, labels.take(pa.array(first)))

    def labels_of(self, keys: pa.Array | pa.ChunkedArray) -> pa.Array | pa.ChunkedArray:
        """The label of each key, null for one that there is not."""
        return self.labels.take(pc.index_in(keys, value_set=self.keys))

    def without(self, keys: pa.Array) -> int:
        """How many labels are of none of these."""
        return len(self.keys) - (pc.sum(pc.is_in(self.keys, value_set=keys)).as_py() or 0)


def _read_columns(file: Path) -> tuple[Sequence[str], pa.Array]:
    """The paths and labels of a file; a null label is empty, bytes of a path that are not UTF-8 are surrogates."""
    suffix = file.suffix.lower()
    if suffix not in TEXTS and suffix != ".parquet":
        raise RequestError(f"--labels has value {str(file)!r}; expected 'folders' or a .csv, .tsv or .parquet file")
    if not os.path.lexists(file):
        raise RequestError(f"--labels names {file}, which is not there")
    try:
        return _of_parquet(file) if suffix == ".parquet" else _of_text(file)
    except (DecodeError, OSError, UnicodeDecodeError, csv.Error, pa.ArrowException) as error:
        raise RequestError(f"--labels names {file}, which cannot be read: {error}") from error


def _of_text(file: Path) -> tuple[Sequence[str], pa.Array]:
    names, *rows = list(manifest.table_rows(Gate().read(file_uri(str(file))))) or [[]]
    places = _columns(file, names)
    path, label = ([row[place] if place < len(row) else "" for row in rows] for place in places)
    return path, _texts(map(decoded, label))


def _of_parquet(file: Path) -> tuple[Sequence[str], pa.Array]:
    with Gate().open(file_uri(str(file))) as stream, parquet.opened(stream) as opened:
        names = opened.schema_arrow.names
        path, label = (names[place] for place in _columns(file, names))
        table = parquet.whole(opened, [path, label])
    path, label = (pc.fill_null(table[name].cast(pa.string()), "").combine_chunks() for name in (path, label))
    return path.to_pylist(), label


def _texts(values: Iterable[str]) -> pa.Array:
    return pa.array(values, pa.string())


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
