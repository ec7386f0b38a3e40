"""Cells of CSV that a spreadsheet would run as formulas, written so that it shows them, and read back as they were.

Excel, LibreOffice and Google Sheets take a cell that begins with `=`, `+`, `-` or `@` (or their full-width forms) for a
formula, some of them after blanks or marks that nobody sees; OWASP ("CSV Injection") names tab, carriage return and
line feed too. Texts that begin so get an apostrophe before them, which a spreadsheet takes for "this is text"; so do
those that begin so after apostrophes: taking one away gives every text back. Numbers stay as they are.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

GUARD: Final = "'"
OWN: Final = ("path", "cluster", "confidence")  # how the header of every table begins that Shoal writes
# Blanks, controls, quotes and marks without width may come before what a spreadsheet looks at.
_FORMULA: Final = re.compile(
    r"""'*(?:[\t\r\n]|[\s\x00-\x1f\x7f"\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff]*[=+\-@\uff1d\uff0b\uff0d\uff20])"""
)


def guarded(text: str) -> str:
    """A text as a cell of CSV."""
    return GUARD + text if _FORMULA.match(text) else text


def unguarded(cell: str) -> str:
    """The text that `guarded` made this cell of."""
    return cell[1:] if cell.startswith(GUARD) and _FORMULA.match(cell) else cell


def csv_line(cells: Sequence[object]) -> str:
    """A line of CSV, its cells quoted so that none of them ends it: Python's writer leaves a lone CR as it is."""
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\r\n").writerow(cells)
    return text.getvalue().removesuffix("\r\n") + "\n"


def rows_as_written(rows: Iterable[list[str]]) -> Iterator[list[str]]:
    """The rows of a table in text, its header first, with what Shoal guarded as it was."""
    is_guarded: bool | None = None
    for row in rows:
        is_guarded = is_own(row) if is_guarded is None else is_guarded
        yield [unguarded(cell) for cell in row] if is_guarded else row


def is_own(header: Sequence[str]) -> bool:
    """Is this the header of a table that Shoal wrote?"""
    return tuple(header[: len(OWN)]) == OWN
