"""A few images beside views of them, as the recipe makes them, in one figure."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image, ImageDraw
from torch import Tensor

from shoal import atomic
from shoal.rundir import RunDir
from shoal.train import draws
from shoal.train.config import TrainConfig, ViewConfig
from shoal.train.pixels import Pixels
from shoal.train.views import Views

ROWS, COLUMNS = 5, 9
LEAST_SIDE = 72  # small images are enlarged to this, pixel by pixel
GAP, TITLE = 4, 22


def write(run_dir: RunDir, config: TrainConfig, pixels: Pixels, seed: int) -> Path:
    """Write RUN/report/views.png: for each set of views a block, in it a row an image, the image itself first."""
    which = torch.randperm(len(pixels), generator=draws.generator("cpu", seed, "shown"))[:ROWS]
    chosen = pixels.take(which)
    blocks = [
        (title, _grid(chosen, Views(views, config.data.size, *pixels.colours()), seed))
        for title, views in _sets(config)
    ]
    target = run_dir.report / "views.png"
    atomic.write_bytes(target, _figure(blocks))
    return target


def _sets(config: TrainConfig) -> list[tuple[str, ViewConfig]]:
    """The sets of views that the recipe uses, each once."""
    named = []
    if config.pretext.epochs:
        named.append(("pretext", config.pretext.views))
    if config.scan.epochs:
        named.append(("scan", config.scan.views))
        if config.selflabel.epochs:
            named += [("selflabel, weak", config.selflabel.weak), ("selflabel, strong", config.selflabel.strong)]
    titles: dict[ViewConfig, list[str]] = {}
    for title, views in named:
        titles.setdefault(views, []).append(title)
    return [(f"{' and '.join(words)}: {views.kind}", views) for views, words in titles.items()]


def _grid(images: Tensor, views: Views, seed: int) -> npt.NDArray[np.uint8]:
    """uint8 [rows, 1 + COLUMNS, s, s, 3]."""
    columns = [Views(ViewConfig(kind="centre"), views.size, (0, 0, 0), (1, 1, 1)).shown(images, torch.Generator())]
    for number in range(COLUMNS):
        columns.append(views.shown(images, draws.generator("cpu", seed, "shown", number)))
    stacked = torch.stack([column.permute(0, 2, 3, 1) for column in columns], dim=1)
    found: npt.NDArray[np.uint8] = (stacked * 255).round().to(torch.uint8).numpy()
    return found


def _figure(blocks: list[tuple[str, npt.NDArray[np.uint8]]]) -> bytes:
    side = blocks[0][1].shape[2]
    shown = side * max(1, -(-LEAST_SIDE // side))
    step = shown + GAP
    height = sum(TITLE + len(grid) * step for _, grid in blocks)
    figure = Image.new("RGB", ((1 + COLUMNS) * step + GAP + GAP, height + GAP), "white")
    draw = ImageDraw.Draw(figure)
    top = 0
    for title, grid in blocks:
        draw.text((GAP, top + 5), f"{title} (first column: the image itself)", fill=(34, 38, 43))
        top += TITLE
        for row in grid:
            for column, picture in enumerate(row):
                left = GAP + column * step + (GAP if column else 0)
                figure.paste(Image.fromarray(picture).resize((shown, shown), Image.Resampling.NEAREST), (left, top))
            top += step
    stream = io.BytesIO()
    figure.save(stream, "PNG", optimize=True)
    return stream.getvalue()
