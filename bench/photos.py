"""Photographs for the bench: 1,000 distinct JPEGs of 500 × 375, made from scikit-learn's two sample photographs.

Each is a seeded crop of one of them, turned, mirrored, stretched and recoloured, with a little sensor noise, so that
decoding costs what a photograph costs and features are spread as those of similar pictures are.
"""

from __future__ import annotations

import io
import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image
from sklearn.datasets import load_sample_images

WORK = Path(__file__).parent / "work"
WIDTH, HEIGHT = 500, 375
QUALITY = 90
POOL = 200
MOST_TURN = math.radians(10)
NOISE = 2.0  # standard deviation, of 255: enlarging a crop smooths away what a sensor would have left there

Pixels = npt.NDArray[np.uint8]


def photo_folder(count: int = 1000, seed: int = 0) -> Path:
    """The folder bench/work/photos-COUNT-SEED, made on first use."""
    folder = WORK / f"photos-{count}-{seed}"
    if folder.is_dir():
        return folder
    made = folder.with_name(f"{folder.name}.part")
    made.mkdir(parents=True, exist_ok=True)
    for number, photo in enumerate(photos(count, seed)):
        photo.save(made / f"photo-{number:05d}.jpg", "JPEG", quality=QUALITY)
    made.rename(folder)
    return folder


def photos(count: int, seed: int) -> Iterator[Image.Image]:
    """`count` distinct photographs; the same seed gives the same ones."""
    generator = np.random.default_rng(seed)
    originals = [Image.fromarray(pixels) for pixels in load_sample_images().images]
    for number in range(count):
        yield _photo(originals[number % len(originals)], generator)


def small_jpegs(count: int, side: int, seed: int) -> Iterator[bytes]:
    """`count` JPEGs of `side` × `side` pixels, each another piece of one of POOL photographs."""
    generator = np.random.default_rng(seed)
    pool = list(photos(POOL, seed))
    for number in range(count):
        width = generator.uniform(HEIGHT / 4, HEIGHT)
        left, top = generator.uniform(0, WIDTH - width), generator.uniform(0, HEIGHT - width)
        piece = pool[number % POOL].resize(
            (side, side), Image.Resampling.BILINEAR, box=(left, top, left + width, top + width)
        )
        buffer = io.BytesIO()
        piece.save(buffer, "JPEG", quality=QUALITY)
        yield buffer.getvalue()


def _photo(original: Image.Image, generator: np.random.Generator) -> Image.Image:
    pixels = np.asarray(_crop(original, generator), dtype=np.float32) / 255.0
    if generator.random() < 0.5:
        pixels = pixels[:, ::-1]
    gain = generator.uniform(0.8, 1.2, size=3)
    gamma = generator.uniform(0.7, 1.4)
    noise = generator.normal(0.0, NOISE / 255.0, size=pixels.shape)
    coloured = np.clip(pixels, 1e-3, 1.0) ** gamma * gain + noise
    return Image.fromarray((np.clip(coloured, 0.0, 1.0) * 255.0).astype(np.uint8))


def _crop(original: Image.Image, generator: np.random.Generator) -> Image.Image:
    """A turned rectangle from inside the original, of a third of its width to nearly all of it."""
    turn = generator.uniform(-MOST_TURN, MOST_TURN)
    cosine, sine = math.cos(turn), math.sin(turn)
    # The turned rectangle's bounding box, for a rectangle one unit wide, must fit into the original.
    across, down = cosine + abs(sine) * HEIGHT / WIDTH, abs(sine) + cosine * HEIGHT / WIDTH
    widest = min(original.width / across, original.height / down)
    width = generator.uniform(original.width / 3, widest)
    step = width / WIDTH
    centre_x = generator.uniform(width * across / 2, original.width - width * across / 2)
    centre_y = generator.uniform(width * down / 2, original.height - width * down / 2)
    left = centre_x - step * (cosine * WIDTH - sine * HEIGHT) / 2
    top = centre_y - step * (sine * WIDTH + cosine * HEIGHT) / 2
    affine = (step * cosine, -step * sine, left, step * sine, step * cosine, top)
    return original.transform((WIDTH, HEIGHT), Image.Transform.AFFINE, affine, Image.Resampling.BICUBIC)
