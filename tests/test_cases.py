"""Pictures that people's programs write, as the backbone sees them: close to the same picture in a plain PNG."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image, ImageCms, ImageDraw
from sklearn.datasets import load_sample_image

from messy import encode
from profiles import rgb_profile
from shoal import pipeline
from shoal.config import DEFAULT_BACKBONE, ClusterConfig
from shoal.embed.newcomers import embed_picture
from shoal.encoder.engines import Engine
from shoal.encoder.prepared import prepare
from shoal.encoder.spec import EncoderSpec
from shoal.evaluate.metrics import clustering_accuracy
from shoal.images.sources import open_source
from shoal.progress import Progress
from shoal.rundir import RunDir
from tiffs import tiff

PHOTO = Image.fromarray(load_sample_image("china.jpg")[:, 100:527]).resize((256, 256), Image.Resampling.LANCZOS)
RGB, GREY = np.asarray(PHOTO), np.asarray(PHOTO.convert("L"))
DEEP = GREY.astype(np.uint16)
PNG = encode(PHOTO, "PNG")
BMP = encode(PHOTO, "BMP")
TEXT = b"zTXtworkflow\0\0" + zlib.compress(b'{"n":1},' * 250_000)
BLANK = Image.new("RGB", (256, 256))

COLOURED: dict[str, Callable[[], bytes]] = {
    "planes of 16 bits": lambda: tiff(
        np.ascontiguousarray(RGB.transpose(2, 0, 1)).astype(np.uint16) * 257, photometric="rgb", planarconfig="separate"
    ),
    "long text": lambda: (
        PNG[:33] + struct.pack(">I", len(TEXT) - 4) + TEXT + struct.pack(">I", zlib.crc32(TEXT)) + PNG[33:]
    ),
    "reserved bytes": lambda: BMP[:6] + b"GR32" + BMP[10:],
    "no end marker": lambda: encode(PHOTO, "JPEG", quality=95)[:-2],
    "200 megapixels": lambda: encode(PHOTO.resize((14132, 14132)), "JPEG", quality=95),
    "fades in": lambda: encode(BLANK, "GIF", save_all=True, append_images=[PHOTO]),
    "float colours": lambda: tiff(RGB.astype(np.float32) / 255, photometric="rgb"),
    "AdobeRGB": lambda: encode(_stored("AdobeRGB", 2.2), "JPEG", quality=98, icc_profile=rgb_profile("AdobeRGB", 2.2)),
    "ProPhoto": lambda: encode(_stored("ProPhoto", 1.8), "PNG", icc_profile=rgb_profile("ProPhoto", 1.8)),
    "linear": lambda: encode(_stored("sRGB", 1.0), "PNG", icc_profile=rgb_profile("sRGB", 1.0)),
}
GREYS: dict[str, Callable[[], bytes]] = {
    "white is zero": lambda: tiff(65535 - DEEP * 257, photometric="miniswhite"),
    "12 bits in 16": lambda: tiff(DEEP * 16, photometric="minisblack"),
    "32 bits": lambda: tiff(GREY.astype(np.uint32) * 16843009, photometric="minisblack"),
    "first planes empty": lambda: tiff(
        np.stack([GREY * 0, GREY * 0, GREY, GREY]), imagej=True, metadata={"axes": "ZYX"}, photometric="minisblack"
    ),
}


@pytest.fixture(scope="module")
def encoder() -> tuple[Engine, EncoderSpec]:
    prepared = prepare(DEFAULT_BACKBONE, None, "default", "crop", Progress())
    return prepared.engine("cpu"), prepared.spec


@pytest.mark.parametrize("case", [*COLOURED, *GREYS])
def test_a_picture_embeds_as_the_plain_one_does(case: str, encoder: tuple[Engine, EncoderSpec]) -> None:
    plain = PNG if case in COLOURED else encode(PHOTO.convert("L"), "PNG")
    wanted, found = (embed_picture(*encoder, data)[0] for data in (plain, {**COLOURED, **GREYS}[case]()))
    assert _cosine(wanted, found) >= 0.98


def test_kinds_of_white_icons_are_told_apart(tmp_path: Path) -> None:
    source = tmp_path / "icons"
    source.mkdir()
    kinds = white_icons(source)
    config = ClusterConfig((str(source),), clusters="3")
    pipeline.run(config, RunDir(tmp_path / "run"), pipeline.clustering_stages(open_source(config.source)), Progress())
    found = RunDir.open(tmp_path / "run").read_clusters(["path", "cluster"]).to_pydict()
    assert clustering_accuracy(np.array([kinds[path] for path in found["path"]]), np.array(found["cluster"])) >= 0.95


def white_icons(folder: Path) -> dict[str, int]:
    """White discs, triangles and bars on transparency; their kind by name."""
    random, kinds = np.random.default_rng(0), {}
    for number in range(45):
        image = Image.new("RGBA", (128, 128), (0, 0, 0, 0))
        draw = ImageDraw.Draw(image)
        left, top, right, bottom = (int(value) for value in (*random.integers(8, 30, 2), *random.integers(98, 120, 2)))
        if number % 3 == 0:
            draw.ellipse((left, top, right, bottom), fill="white")
        elif number % 3 == 1:
            draw.polygon([(64, top), (right, bottom), (left, bottom)], fill="white")
        else:
            for line in range(top, bottom, 16):
                draw.rectangle((left, line, right, line + 6), fill="white")
        image.save(folder / f"{number:02d}.png")
        kinds[f"{number:02d}.png"] = number % 3
    return kinds


def _stored(primaries: str, gamma: float) -> Image.Image:
    """The photograph's colours as numbers of another space."""
    profile = io.BytesIO(rgb_profile(primaries, gamma))
    converted = ImageCms.profileToProfile(PHOTO, ImageCms.createProfile("sRGB"), profile)
    assert converted is not None
    return converted


def _cosine(one: npt.NDArray[np.float32], other: npt.NDArray[np.float32]) -> float:
    return float(one @ other / np.linalg.norm(one) / np.linalg.norm(other))
