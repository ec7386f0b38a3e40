"""How far what Shoal decodes is from what was written, format by format and kind by kind.

    python bench/formats.py

Written is a photograph that scikit-learn carries, at 320 × 240, in colours or grey. Told is the mean and the most
absolute difference in grey levels of 255 from what was written; lossy formats are asked for high quality. Needs the
package imagecodecs, as a writer too.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import numpy.typing as npt
import pillow_heif
import sklearn.datasets
import tifffile
from PIL import Image

from machine import describe, machine_line, write_result
from shoal.images.decode import decode_scaled

PHOTO = Image.fromarray(sklearn.datasets.load_sample_image("china.jpg")).resize((320, 240), Image.Resampling.LANCZOS)
RGB = np.asarray(PHOTO)
GREY = np.asarray(PHOTO.convert("L"))
INKS = np.asarray(PHOTO.convert("CMYK"))
Numbers = npt.NDArray[Any]
Case = tuple[str, str, Callable[[], bytes], Numbers]  # format, kind, the file, the levels that are right


def cases() -> Iterator[Case]:
    for name, kind, options in (
        ("JPEG", "8 bits, quality 95", {"quality": 95, "subsampling": 0}),
        ("JPEG", "progressive, quality 95", {"quality": 95, "subsampling": 0, "progressive": True}),
        ("PNG", "8 bits", {}),
        ("BMP", "24 bits", {}),
        ("WebP", "lossless", {"lossless": True}),
        ("AVIF", "8 bits, quality 95", {"quality": 95, "subsampling": "4:4:4"}),
        ("JPEG 2000", "8 bits", {}),
        ("PPM", "8 bits", {}),
        ("QOI", "8 bits", {}),
        ("ICO", "PNG inside", {"sizes": [(256, 192)]}),
    ):
        image = PHOTO.resize((256, 192)) if name == "ICO" else PHOTO
        yield name, kind, saved(image, name, options), np.asarray(image)
    yield "JPEG", "four inks, quality 95", saved(PHOTO.convert("CMYK"), "JPEG", {"quality": 95, "subsampling": 0}), RGB
    for bits in (12, 16):
        values = deep(RGB, bits)
        lossless = {"lossless": True, "predictor": 1} if bits == 16 else {"level": 95}
        kind = f"{bits} bits{', lossless' if bits == 16 else ', quality 95'}"
        yield "JPEG", kind, encoded(imagecodecs.jpeg_encode, values, bitspersample=bits, **lossless), RGB
    for bits in (10, 12, 16):
        yield "PNG", f"{bits} bits in 16", encoded(imagecodecs.png_encode, deep(RGB, bits)), RGB
        yield "PGM", f"{bits} bits in 16", pgm(deep(GREY, bits)), GREY
        values, options = deep(RGB, bits), {"level": 0, "codecformat": "jp2", "bitspersample": bits, "reversible": True}
        yield "JPEG 2000", f"{bits} bits", encoded(imagecodecs.jpeg2k_encode, values, **options), RGB
    for bits in (10, 12):
        yield (
            "AVIF",
            f"{bits} bits, quality 95",
            encoded(imagecodecs.avif_encode, deep(RGB, bits), level=95, bitspersample=bits),
            RGB,
        )
    for mode, values in (("RGB", RGB), ("RGB;16", RGB.astype(np.uint16) * 257)):
        yield "HEIC", f"{'10' if '16' in mode else '8'} bits, quality 95", heic(mode, values), RGB
    palette = PHOTO.quantize(256)
    yield "GIF", "palette", saved(palette, "GIF", {}), np.asarray(palette.convert("RGB"))
    yield from tiffs()


def tiffs() -> Iterator[Case]:
    for dtype in ("u1", "u2", "u4", "i1", "i2", "i4", "f2", "f4", "f8"):
        for name, values in (("grey", GREY), ("colours", RGB)):
            kind = f"{name}, {np.dtype(dtype).name}"
            photometric = "minisblack" if name == "grey" else "rgb"
            yield "TIFF", kind, tiff(spread(values, dtype), photometric=photometric), stretched(values, dtype)
    for bits in (10, 12, 14):
        yield "TIFF", f"grey, {bits} bits in 16", tiff(deep(GREY, bits), photometric="minisblack"), GREY
    yield "TIFF", "grey, white is zero, uint16", tiff(65535 - deep(GREY, 16), photometric="miniswhite"), GREY
    planes = np.ascontiguousarray(deep(RGB, 16).transpose(2, 0, 1))
    yield "TIFF", "planes, uint16", tiff(planes, photometric="rgb", planarconfig="separate"), RGB
    yield "TIFF", "tiles, LZW, uint16", tiff(deep(RGB, 16), photometric="rgb", tile=(64, 64), compression="lzw"), RGB
    yield "TIFF", "four inks, uint8", tiff(INKS, photometric="separated"), RGB
    yield "TIFF", "four inks, uint16", tiff(INKS.astype(np.uint16) * 257, photometric="separated"), RGB
    for compression in ("packbits", "zlib", "lzma", "zstd", "jpeg2000", "png"):
        yield "TIFF", f"colours, {compression}", tiff(RGB, photometric="rgb", compression=compression), RGB


def deep(values: Numbers, bits: int) -> Numbers:
    return (values.astype(np.uint32) * (2**bits - 1) // 255).astype(np.uint16)


def spread(values: Numbers, dtype: str) -> Numbers:
    """Levels over the whole range of a type; floats from 0 to 1."""
    kind = np.dtype(dtype)
    if kind.kind == "f":
        return (values / 255).astype(kind)
    whole = np.iinfo(kind)
    return np.round(values / 255 * (float(whole.max) - float(whole.min)) + float(whole.min)).astype(kind)


def stretched(values: Numbers, dtype: str) -> Numbers:
    """Numbers with signs are shown from their least to their greatest."""
    if np.dtype(dtype).kind != "i":
        return values
    least, most = int(values.min()), int(values.max())
    return (values.astype(float) - least) * 255 / (most - least)


def saved(image: Image.Image, name: str, options: dict[str, Any]) -> Callable[[], bytes]:
    def made() -> bytes:
        buffer = io.BytesIO()
        image.save(buffer, name.replace(" ", ""), **options)
        return buffer.getvalue()

    return made


def encoded(encode: Callable[..., bytes], values: Numbers, **options: Any) -> Callable[[], bytes]:
    return lambda: bytes(encode(values, **options))


def pgm(values: Numbers) -> Callable[[], bytes]:
    return lambda: f"P5 {values.shape[1]} {values.shape[0]} 65535\n".encode() + values.astype(">u2").tobytes()


def heic(mode: str, values: Numbers) -> Callable[[], bytes]:
    def made() -> bytes:
        buffer = io.BytesIO()
        image = pillow_heif.from_bytes(mode, (values.shape[1], values.shape[0]), values.tobytes())
        image.save(buffer, quality=95, chroma=444)
        return buffer.getvalue()

    return made


def tiff(values: Numbers, **options: Any) -> Callable[[], bytes]:
    def made() -> bytes:
        buffer = io.BytesIO()
        tifffile.imwrite(buffer, values, metadata=None, **options)
        return buffer.getvalue()

    return made


def main() -> None:
    results = []
    print("| format | kind | mean | most | note |\n|---|---|---:|---:|---|")
    for name, kind, make, wanted in sorted(cases(), key=lambda case: case[0]):
        decoded = decode_scaled(make())
        apart = np.abs(np.asarray(decoded.image).astype(float) - (wanted if wanted.ndim == 3 else wanted[..., None]))
        found = {"mean": round(float(apart.mean()), 2), "most": round(float(apart.max()), 1)}
        results.append({"format": name, "kind": kind, **found, "note": decoded.note})
        print(f"| {name} | {kind} | {found['mean']:.2f} | {found['most']:.0f} | {decoded.note or ''} |", flush=True)
    print(machine_line(describe()))
    print(f"kept in {write_result(Path(__file__).stem, {'kinds': results})}")


if __name__ == "__main__":
    main()
