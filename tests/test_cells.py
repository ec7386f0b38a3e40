"""Cells of CSV: no spreadsheet runs one, and every text comes back."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pictures import paint
from shoal.assign import SCHEMA, write_csv
from shoal.cells import csv_line, guarded, unguarded
from shoal.images import manifest
from shoal.images.sources import open_source

TEXT = st.one_of(st.text(), st.text(alphabet="'=+-@\t\r\n \ufeff\"a", max_size=6))


@given(TEXT)
@example("'=1")
@example("''=1")
@example("'")
def test_every_text_comes_back(text: str) -> None:
    assert unguarded(guarded(text)) == text


@given(TEXT)
def test_what_a_spreadsheet_sees_first_is_no_formula(text: str) -> None:
    cell = guarded(text)
    assert not cell.startswith(("\t", "\r", "\n"))
    assert not cell.strip('\0\ufeff\u200b \t\r\n"').startswith(tuple("=+-@＝＋－＠"))


OWASP = ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "\n=1", "\ufeff=1", ' "=1', "＝1", "'=1"]


@pytest.mark.parametrize("text", OWASP)
def test_what_owasp_names_is_guarded(text: str) -> None:
    assert guarded(text) == "'" + text


@pytest.mark.parametrize("text", ["", "a.jpg", "a-b", "'a'", "1", "x=1", "é", "'"])
def test_other_texts_stay_as_they_are(text: str) -> None:
    assert guarded(text) == text


@given(st.lists(TEXT, min_size=1))
def test_no_cell_ends_its_line(cells: list[str]) -> None:
    assert list(csv.reader(io.StringIO(csv_line(cells), newline=""), strict=True)) == [cells] or cells == [""]


def test_the_table_of_assign_is_a_source_again(tmp_path: Path) -> None:
    paint(tmp_path, each=1)
    files = [file for file in tmp_path.rglob("*") if file.is_file()]
    names = ["-n.png", "=1+1.png", "'=2.png", "plain.png"]
    for name, file in zip(names, files, strict=False):
        file.rename(tmp_path / name)
    names = names[: len(files)]
    table = io.StringIO(newline="")
    rows = [(name, 0, 0.5, False, False, -1, "@home", None) for name in names]
    columns = [pa.array(column, field.type) for column, field in zip(zip(*rows, strict=True), SCHEMA, strict=True)]
    write_csv([pa.record_batch(columns, schema=SCHEMA)], table)
    (tmp_path / "table.csv").write_text(table.getvalue(), encoding="utf-8", newline="")
    items = list(open_source([str(tmp_path / "table.csv")]).listed().items())
    assert [(item.path, item.problem) for item in items] == [(name, None) for name in names]
    head, *rows = manifest.table_rows(table.getvalue().encode())
    assert [row[head.index("name")] for row in rows] == ["@home"] * len(names)
    assert [row[5] for row in csv.reader(io.StringIO(table.getvalue()))][1:] == ["-1"] * len(names)


def test_tables_of_others_are_read_as_they_are() -> None:
    assert list(manifest.table_rows(b"path,label\n'=1.png,a\n")) == [["path", "label"], ["'=1.png", "a"]]
