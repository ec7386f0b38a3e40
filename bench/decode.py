"""How fast a photograph becomes a backbone's input on one core, by several ways, and how far from the plain one.

    python bench/decode.py

The photographs are the two that scikit-learn carries, scaled to each size and saved as JPEG of quality 90. The plain
way is Pillow's full decode, bicubic resize of the shorter side to 256 and centre crop of 224.
"""

from __future__ import annotations

import io
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import simplejpeg
import sklearn.datasets
from PIL import Image

from machine import describe, machine_line, write_result
from shoal.images.views import model_input

SIZES = ((500, 375), (640, 480), (800, 600), (1200, 900), (4000, 3000))
SIZE, SHORTER = 224, 256
SECONDS = 4.0  # for each way and size

Pixels = npt.NDArray[np.uint8]
Way = Callable[[bytes], Pixels]


def shoal_view(data: bytes) -> Pixels:
    return model_input(data, size=SIZE, crop_fraction=SIZE / SHORTER, interpolation="bicubic", resize="crop").pixels


def plain(data: bytes) -> Pixels:
    return resize_and_crop(Image.open(io.BytesIO(data)).convert("RGB"))


def pillow_draft(data: bytes) -> Pixels:
    image = Image.open(io.BytesIO(data))
    image.draft("RGB", (SHORTER, SHORTER))
    return resize_and_crop(image.convert("RGB"))


def turbo_closest_scale(data: bytes) -> Pixels:
    """Any scale of eighths, the least that still covers the resize."""
    return resize_and_crop(Image.fromarray(simplejpeg.decode_jpeg(data, min_height=SHORTER, min_width=SHORTER)))


def resize_and_crop(image: Image.Image) -> Pixels:
    scale = SHORTER / min(image.size)
    resized = image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.BICUBIC)
    left, top = round((resized.width - SIZE) / 2), round((resized.height - SIZE) / 2)
    return np.asarray(resized.crop((left, top, left + SIZE, top + SIZE)))


WAYS: dict[str, Way] = {
    "plain": plain,
    "Pillow with draft": pillow_draft,
    "libjpeg-turbo, closest scale": turbo_closest_scale,
    "shoal": shoal_view,
}


def photographs(width: int, height: int) -> list[bytes]:
    files = []
    for name in ("china.jpg", "flower.jpg"):
        pixels = sklearn.datasets.load_sample_image(name)
        image = Image.fromarray(pixels[:, 35:605]).resize((width, height), Image.Resampling.LANCZOS)
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", quality=90)
        files.append(buffer.getvalue())
    return files


def measure_way(way: Way, files: list[bytes]) -> dict[str, float]:
    """Milliseconds of the thread's CPU time an image, least and median of rounds; the difference in grey levels."""
    rounds: list[float] = []
    end = time.perf_counter() + SECONDS
    while time.perf_counter() < end or len(rounds) < 5:
        began = time.thread_time()
        for data in files:
            way(data)
        rounds.append((time.thread_time() - began) / len(files) * 1e3)
    differences = [np.abs(way(data).astype(int) - plain(data)).mean() for data in files]
    return {
        "least_ms": min(rounds),
        "median_ms": float(np.median(rounds)),
        "mean_difference": float(np.mean(differences)),
        "most_difference": float(np.max(differences)),
    }


def main() -> None:
    results: dict[str, Any] = {}
    print("| size | way | median ms | least ms | mean difference |\n|---|---|---:|---:|---:|")
    for width, height in SIZES:
        files = photographs(width, height)
        for name, way in WAYS.items():
            found = results.setdefault(f"{width}x{height}", {})[name] = measure_way(way, files)
            figures = f"{found['median_ms']:.2f} | {found['least_ms']:.2f} | {found['mean_difference']:.2f}"
            print(f"| {width}×{height} | {name} | {figures} |", flush=True)
    print(machine_line(describe()))
    print(f"kept in {write_result(Path(__file__).stem, {'sizes': results})}")


if __name__ == "__main__":
    main()
