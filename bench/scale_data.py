"""What bench/scale.py works on: a folder of N small distinct images, and N rows of real features repeated with noise.

Both come from the images of `shoal demo`: file and row i are image i modulo their number. Two files never have the same
bytes, since each has a comment of its own; two rows are never equal, since each is moved by a little noise.
"""

from __future__ import annotations

import io
import shutil
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor
from functools import cache
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq
from PIL import Image

from photos import WORK
from shoal.demo import demo_images
from shoal.embeddings import EmbeddingStore
from shoal.rundir import RunDir

IN_FOLDER = 1000
SIDE = 32
FILE_BYTES = 2000  # about
NOISE = 0.3  # of each feature's standard deviation
BLOCK = 10_000
PROCESSES = 2


def image_folder(count: int) -> Path:
    """bench/work/scale-COUNT, made on first use: JPEGs in subfolders of IN_FOLDER."""
    target = WORK / f"scale-{count}"
    if not target.is_dir():
        made = target.with_suffix(".part")
        shutil.rmtree(made, ignore_errors=True)
        with ProcessPoolExecutor(PROCESSES) as pool:
            starts = range(0, count, IN_FOLDER)
            list(pool.map(_write_folder, [made] * len(starts), starts, [count] * len(starts), chunksize=8))
        made.rename(target)
    return target


def feature_file(count: int) -> Path:
    """bench/work/scale-COUNT.npy, float16 [COUNT, 1280], made on first use."""
    target = WORK / f"scale-{count}.npy"
    if not target.is_file():
        base = _base_features()
        made = target.with_suffix(".part")
        rows = np.lib.format.open_memmap(made, mode="w+", dtype=np.float16, shape=(count, base.shape[1]))
        spread = NOISE * base.std(axis=0)
        for start in range(0, count, BLOCK):
            stop = min(start + BLOCK, count)
            noise = np.random.default_rng([0, start]).standard_normal((stop - start, base.shape[1]), dtype=np.float32)
            rows[start:stop] = np.maximum(base[np.arange(start, stop) % len(base)] + spread * noise, 0)
        rows.flush()
        made.rename(target)
    return target


def path_of(number: int) -> str:
    """Where image `number` lies in the folder."""
    return f"{number // IN_FOLDER:04d}/{number:08d}.jpg"


def _write_folder(target: Path, start: int, count: int) -> None:
    pictures = _pictures()
    (target / path_of(start)).parent.mkdir(parents=True, exist_ok=True)
    for number in range(start, min(start + IN_FOLDER, count)):
        picture = pictures[number % len(pictures)]
        own = np.random.default_rng(number).bytes(max(16, FILE_BYTES - len(picture)))
        comment = b"\xff\xfe" + (len(own) + 2).to_bytes(2, "big") + own
        (target / path_of(number)).write_bytes(picture[:2] + comment + picture[2:])


@cache
def _pictures() -> list[bytes]:
    """The demo's images as JPEGs of SIDE × SIDE pixels."""
    found = []
    for data in pq.read_table(demo_images(), columns=["image"])["image"].to_pylist():
        buffer = io.BytesIO()
        Image.open(io.BytesIO(data)).convert("RGB").resize((SIDE, SIDE)).save(buffer, "JPEG", quality=90)
        found.append(buffer.getvalue())
    return found


def _base_features() -> npt.NDArray[np.float32]:
    """Features of the demo's images, by the embedded backbone."""
    run = WORK / "scale-base.shoal"
    command = [sys.executable, "-m", "shoal", "cluster", str(demo_images()), "--out", str(run)]
    subprocess.run([*command, "--clusters", "10", "--no-report"], check=True)
    store = EmbeddingStore.open(RunDir.open(run).embeddings)
    return store.read(np.arange(store.rows))
