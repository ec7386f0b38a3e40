"""A few images beside views of them, as the recipe makes them, in one figure."""

from __future__ import annotations

import io

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image, ImageDraw
from torch import Tensor

from shoal.train import draws
from shoal.train.config import PLAIN, TrainConfig, ViewConfig
from shoal.train.pixels import Pixels
from shoal.train.pretext import size_at
from shoal.train.views import Views

FILE = "views.png"
ROWS, COLUMNS = 5, 9
LEAST_SIDE = 72  # small images are enlarged to this, pixel by pixel
GAP, TITLE = 4, 22

Pictures = npt.NDArray[np.uint8]


def picture(config: TrainConfig, pixels: Pixels, seed: int) -> bytes:
    """A PNG: for each set of views a block, in it a row an image, the image itself first."""
    which = torch.randperm(len(pixels), generator=draws.generator("cpu", seed, "shown"))[:ROWS]
    chosen = pixels.take(which)
    whole = Views(PLAIN, config.data.size, (0, 0, 0), (1, 1, 1)).shown(chosen, torch.Generator())
    blocks = [
        (title, [_pictures(whole), *_columns(chosen, Views(views, side, *pixels.colours()), seed)])
        for title, views, side in _sets(config)
    ]
    if not blocks:
        blocks = [("nothing is trained, so that there are no views", [_pictures(whole)])]
    return _figure(blocks, config.data.size)


def _sets(config: TrainConfig) -> list[tuple[str, ViewConfig, int]]:
    """The sets of views that the recipe uses, each once at each side that it is first and last used at."""
    task, size = config.pretext, config.data.size
    named = []
    if task.epochs:
        first, last = size_at(0, task, size), size_at(task.epochs - 1, task, size)
        words = ("pretext, first epoch", "pretext, last epoch") if first != last else ("pretext",)
        named += [(word, task.views, side) for word, side in zip(words, (first, last), strict=False)]
    if config.scan.epochs:
        named.append(("scan", config.scan.views, size))
    if config.selflabel.epochs:
        weak, strong = config.selflabel.weak, config.selflabel.strong
        if config.scan.epochs:
            named.append(("selflabel, weak", weak, size))
        named.append(("selflabel, strong", strong, size))
    titles: dict[tuple[ViewConfig, int], list[str]] = {}
    for title, views, side in named:
        titles.setdefault((views, side), []).append(title)
    return [
        (f"{' and '.join(words)}: {views.kind}, sides of {side} pixels", views, side)
        for (views, side), words in titles.items()
    ]


def _columns(images: Tensor, views: Views, seed: int) -> list[Pictures]:
    return [_pictures(views.shown(images, draws.generator("cpu", seed, "shown", number))) for number in range(COLUMNS)]


def _pictures(images: Tensor) -> Pictures:
    """uint8 [rows, s, s, 3]"""
    found: Pictures = (images.permute(0, 2, 3, 1) * 255).round().to(torch.uint8).numpy()
    return found


def _figure(blocks: list[tuple[str, list[Pictures]]], side: int) -> bytes:
    shown = side * max(1, -(-LEAST_SIDE // side))
    step = shown + GAP
    height = sum(TITLE + len(columns[0]) * step for _, columns in blocks)
    figure = Image.new("RGB", ((1 + COLUMNS) * step + GAP + GAP, height + GAP), "white")
    draw = ImageDraw.Draw(figure)
    top = 0
    for title, columns in blocks:
        draw.text((GAP, top + 5), f"{title} (first column: the image itself)", fill=(34, 38, 43))
        top += TITLE
        for row in zip(*columns, strict=True):
            for column, picture in enumerate(row):
                left = GAP + column * step + (GAP if column else 0)
                figure.paste(Image.fromarray(picture).resize((shown, shown), Image.Resampling.NEAREST), (left, top))
            top += step
    stream = io.BytesIO()
    figure.save(stream, "PNG", optimize=True)
    return stream.getvalue()
