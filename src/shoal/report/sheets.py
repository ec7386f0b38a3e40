"""Sheets of images as PNG: every cluster's prototypes, and random anchors with their neighbours."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from typing import Final

from PIL import Image, ImageDraw, ImageFont

from shoal.report.selection import PROTOTYPES, AnchorShown, ClusterShown
from shoal.report.thumbnails import Picture

CELL: Final = 96  # pixels of an image's square
GAP: Final = 8
MARGIN: Final = 28
MARGIN_LEFT: Final = 150
INK: Final = "#22262b"
SOFT: Final = "#6b7480"
FAINT: Final = "#9aa3ad"
EMPTY: Final = "#eceff2"
MISSING: Final = "picture not\navailable"
MOST_ROWS: Final = 80
MOST_LETTERS: Final = 14

Row = tuple[str, str, list[int], list[str]]  # heading, line below it, ids, a caption for each


def prototypes_sheet(
    clusters: Sequence[ClusterShown], pictures: dict[int, Picture], title: Callable[[int], str]
) -> bytes:
    """A row of prototypes a cluster, largest first; at most MOST_ROWS rows. `title` says what a cluster is called."""
    rows: list[Row] = [
        (_short(title(shown.cluster)), _images(shown.size), shown.prototypes, []) for shown in clusters[:MOST_ROWS]
    ]
    return _sheet(rows, pictures, PROTOTYPES, caption_height=0)


def _short(text: str) -> str:
    return text if len(text) <= MOST_LETTERS else f"{text[: MOST_LETTERS - 1]}…"


def anchors_sheet(
    anchors: Sequence[AnchorShown], pictures: dict[int, Picture], cluster_of: Callable[[int], int]
) -> bytes:
    """A row an anchor: the image, then its nearest neighbours with their similarity."""
    rows: list[Row] = []
    for shown in anchors:
        ids = [shown.anchor, *(number for number, _ in shown.neighbours)]
        captions = ["", *(f"{score:.2f}" for _, score in shown.neighbours)]
        rows.append(("Anchor", f"cluster {cluster_of(shown.anchor)}", ids, captions))
    return _sheet(rows, pictures, 1 + max((len(shown.neighbours) for shown in anchors), default=0), caption_height=18)


def _sheet(rows: Sequence[Row], pictures: dict[int, Picture], columns: int, caption_height: int) -> bytes:
    height = CELL + GAP + caption_height
    sheet = Image.new(
        "RGB", (MARGIN_LEFT + columns * (CELL + GAP) + MARGIN, max(1, len(rows)) * height + 2 * MARGIN), "white"
    )
    draw = ImageDraw.Draw(sheet)
    large, small = ImageFont.load_default(16), ImageFont.load_default(13)
    for number, (heading, below, ids, captions) in enumerate(rows):
        top = MARGIN + number * height
        draw.text((MARGIN, top + CELL // 2 - 20), heading, INK, font=large)
        draw.text((MARGIN, top + CELL // 2 + 2), below, SOFT, font=small)
        for column, image in enumerate(ids):
            left = MARGIN_LEFT + column * (CELL + GAP)
            _paste(sheet, draw, pictures.get(image), left, top)
            if captions and captions[column]:
                draw.text((left, top + CELL + 2), captions[column], SOFT, font=small)
    buffer = io.BytesIO()
    sheet.save(buffer, "PNG", compress_level=3)
    return buffer.getvalue()


def _paste(sheet: Image.Image, draw: ImageDraw.ImageDraw, picture: Picture | None, left: int, top: int) -> None:
    draw.rectangle((left, top, left + CELL - 1, top + CELL - 1), fill=EMPTY)
    if picture is None or picture.jpeg is None:
        _draw_missing(draw, left + CELL / 2, top + CELL / 2 + 4)
        return
    with picture.open() as image:
        scale = CELL / max(image.size)
        size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
        shown = image.resize(size, Image.Resampling.LANCZOS)
    sheet.paste(shown, (left + (CELL - shown.width) // 2, top + (CELL - shown.height) // 2))


def _draw_missing(draw: ImageDraw.ImageDraw, x: float, y: float) -> None:
    """In the middle of a cell: the outline of a picture, struck through, and what that means."""
    draw.rounded_rectangle((x - 14, y - 30, x + 14, y - 10), 3, outline=FAINT, width=2)
    draw.line((x - 11, y - 13, x - 4, y - 21, x + 2, y - 15, x + 5, y - 18, x + 11, y - 13), fill=FAINT, width=2)
    draw.line((x - 17, y - 7, x + 17, y - 33), fill=FAINT, width=2)
    draw.multiline_text((x, y + 12), MISSING, SOFT, font=ImageFont.load_default(11), anchor="mm", align="center")


def _images(count: int) -> str:
    return f"{count:,} image" + ("" if count == 1 else "s")
