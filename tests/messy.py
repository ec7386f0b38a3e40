"""Builds a folder of good, odd and bad files, each with what is to become of it."""

from __future__ import annotations

import io
import os
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pillow_heif
from PIL import Image

OK = "ok"
_EXIF_ORIENTATION = 0x0112

Build = Callable[[], bytes]


def make_messy_folder(folder: Path) -> dict[str, str]:
    """Fill `folder` with one file of each kind; returns path (as Shoal shows it) -> "ok" or a part of the reason.

    Every good image has a content of its own. Kinds that this system cannot hold are left out.
    """
    folder = folder.resolve()  # links in it have to lead somewhere
    folder.mkdir(parents=True, exist_ok=True)
    expected: dict[str, str] = {}
    for name, (outcome, build) in {**_good_files(), **_bad_files()}.items():
        (folder / name).write_bytes(build())
        expected[name] = outcome
    for add in (_add_odd_names, _add_links, _add_special_files, _add_junk, _add_unreadable):
        expected.update(add(folder))
    return expected


def pixels(seed: int, height: int = 48, width: int = 64) -> npt.NDArray[np.uint8]:
    """A smooth coloured picture, [height, width, 3], of its own for every seed."""
    rng = np.random.default_rng(seed)
    small = rng.integers(0, 256, (4, 5, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC))


def picture(seed: int, mode: str = "RGB", height: int = 48, width: int = 64) -> Image.Image:
    return Image.fromarray(pixels(seed, height, width)).convert(mode)


def encode(image: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def encode_heic(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    pillow_heif.from_pillow(image).save(buffer, quality=90)
    return buffer.getvalue()


def rotated_jpeg(seed: int, orientation: int) -> bytes:
    exif = Image.Exif()
    exif[_EXIF_ORIENTATION] = orientation
    return encode(picture(seed), "JPEG", exif=exif)


def png(width: int, height: int, depth: int, colour: int, rows: bytes) -> bytes:
    """A PNG from its parts: `rows` are the filtered scanlines, not yet compressed."""
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(_png_chunk(kind, body) for kind, body in chunks)


def deep_png(seed: int) -> bytes:
    """16 bits in each of three channels."""
    values = pixels(seed).astype(">u2") * 257
    return png(64, 48, 16, 2, b"".join(b"\0" + row.tobytes() for row in values))


def bomb_png() -> bytes:
    """A header that promises 400 million pixels."""
    return png(20_000, 20_000, 8, 2, b"\0" * 100)


def transparent_palette() -> Image.Image:
    image = picture(31).quantize(16)
    image.info["transparency"] = 0
    return image


def _png_chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def _good_files() -> dict[str, tuple[str, Build]]:
    grey16 = (np.asarray(picture(12, "L")).astype(np.uint16)) * 257
    return {
        "baseline.jpg": (OK, lambda: encode(picture(1), "JPEG")),
        "progressive.jpg": (OK, lambda: encode(picture(2), "JPEG", progressive=True)),
        "grey.jpg": (OK, lambda: encode(picture(3, "L"), "JPEG")),
        "cmyk.jpg": (OK, lambda: encode(picture(4, "CMYK"), "JPEG")),
        "rotated.jpg": (OK, lambda: rotated_jpeg(5, 6)),
        "trailing-bytes.jpg": (OK, lambda: encode(picture(6), "JPEG") + b"more" * 99),
        "plain.png": (OK, lambda: encode(picture(7), "PNG")),
        "transparent.png": (OK, lambda: encode(picture(8, "RGBA"), "PNG")),
        "grey-alpha.png": (OK, lambda: encode(picture(9, "LA"), "PNG")),
        "palette.png": (OK, lambda: encode(transparent_palette(), "PNG")),
        "one-bit.png": (OK, lambda: encode(picture(11, "1"), "PNG")),
        "grey16.png": (OK, lambda: encode(Image.fromarray(grey16), "PNG")),
        "rgb16.png": (OK, lambda: deep_png(13)),
        "animated.gif": (OK, lambda: encode(picture(14), "GIF", save_all=True, append_images=[picture(15)])),
        "animated.webp": (OK, lambda: encode(picture(16), "WEBP", save_all=True, append_images=[picture(17)])),
        "lossy.webp": (OK, lambda: encode(picture(18), "WEBP")),
        "plain.bmp": (OK, lambda: encode(picture(19), "BMP")),
        "plain.tiff": (OK, lambda: encode(picture(20), "TIFF", compression="tiff_lzw")),
        "float.tiff": (OK, lambda: encode(picture(21, "F"), "TIFF")),
        "pages.tiff": (OK, lambda: encode(picture(22), "TIFF", save_all=True, append_images=[picture(23)])),
        "cmyk.tiff": (OK, lambda: encode(picture(24, "CMYK"), "TIFF")),
        "photo.heic": (OK, lambda: encode_heic(picture(25))),
        "photo.avif": (OK, lambda: encode(picture(26), "AVIF")),
        "icon.ico": (OK, lambda: encode(picture(27), "ICO")),
        "plain.ppm": (OK, lambda: encode(picture(28), "PPM")),
        "plain.jp2": (OK, lambda: encode(picture(29), "JPEG2000")),
        "one-pixel.png": (OK, lambda: encode(picture(30, height=1, width=1), "PNG")),
        "very-wide.png": (OK, lambda: encode(picture(32, height=1, width=3000), "PNG")),
        "png-inside.jpg": (OK, lambda: encode(picture(33), "PNG")),
        "no-extension": (OK, lambda: encode(picture(34), "JPEG")),
    }


def _bad_files() -> dict[str, tuple[str, Build]]:
    jpeg = encode(picture(50), "JPEG")
    broken_png = bytearray(encode(picture(51), "PNG"))
    broken_png[60:90] = bytes(30)
    return {
        "empty.jpg": ("empty file", lambda: b""),
        "truncated.jpg": ("truncated JPEG", lambda: jpeg[: len(jpeg) // 2]),
        "truncated-progressive.jpg": (
            "truncated JPEG",
            lambda: encode(picture(52), "JPEG", progressive=True)[:-200],
        ),
        "header-only.jpg": ("JPEG", lambda: jpeg[:20]),
        "magic-only.jpg": ("JPEG", lambda: b"\xff\xd8\xff"),
        "truncated.png": ("truncated PNG", lambda: encode(picture(53), "PNG")[:-60]),
        "broken.png": ("corrupt PNG", lambda: bytes(broken_png)),
        "truncated.gif": ("GIF", lambda: encode(picture(54), "GIF")[:200]),
        "truncated.webp": ("WebP", lambda: encode(picture(55), "WEBP")[:100]),
        "truncated.bmp": ("truncated BMP", lambda: encode(picture(56), "BMP")[:-900]),
        "truncated.tiff": ("TIFF", lambda: encode(picture(57), "TIFF")[:400]),
        "truncated.heic": ("HEIF", lambda: encode_heic(picture(58))[:300]),
        "truncated.avif": ("AVIF", lambda: encode(picture(59), "AVIF")[:200]),
        "bomb.png": ("too many pixels", bomb_png),
        "text.jpg": ("not an image (text)", lambda: b"this is not a picture\n" * 20),
        "page.jpg": ("not an image (HTML page)", lambda: b"<!DOCTYPE html><title>404</title>"),
        "zeros.jpg": ("zero bytes only", lambda: bytes(5000)),
        "notes.txt": ("not an image (.txt)", lambda: b"notes"),
        "table.csv": ("not an image (.csv)", lambda: b"a,b\n1,2\n"),
        "drawing.svg": ("SVG drawing", lambda: b'<?xml version="1.0"?>\n<svg xmlns="http://www.w3.org/2000/svg"/>'),
        "paper.pdf": ("PDF document", lambda: b"%PDF-1.7\n"),
        "film.avi": ("not an image (video)", lambda: b"RIFF\0\0\0\0AVI LIST"),
        "more.zip": ("not an image (zip file)", lambda: b"PK\x03\x04 and so on"),
        "clip.mp4": ("video", lambda: b"\0\0\0\x18ftypmp42\0\0\0\0mp42isom"),
        "picture.jxl": ("JPEG XL", lambda: b"\xff\x0a" + bytes(range(50))),
    }


def _add_odd_names(folder: Path) -> dict[str, str]:
    names = ["-leading-dash.jpg", "sp ace & äöü 猫 🐟.jpg", "hash#1%20?.jpg", "x" * 200 + ".jpg", ".hidden.jpg"]
    if os.name != "nt":
        names += ["new\nline.jpg", "tab\tquote'\".jpg"]
    else:
        names.remove("hash#1%20?.jpg")
    for number, name in enumerate(names):
        (folder / name).write_bytes(encode(picture(100 + number), "JPEG"))
    expected = dict.fromkeys(names, OK)
    deep = folder / "deep" / "er" / "und tief"
    deep.mkdir(parents=True)
    (deep / "image.jpg").write_bytes(encode(picture(120), "JPEG"))
    expected["deep/er/und tief/image.jpg"] = OK
    if os.name == "posix" and _takes_any_bytes(folder):
        Path(os.fsdecode(os.fsencode(folder) + b"/caf\xe9.jpg")).write_bytes(encode(picture(121), "JPEG"))
        expected["caf%E9.jpg"] = OK
    return expected


def _takes_any_bytes(folder: Path) -> bool:
    probe = Path(os.fsdecode(os.fsencode(folder) + b"/\xff"))
    try:
        probe.touch()
        probe.unlink()
    except OSError:  # macOS takes UTF-8 only
        return False
    return True


def _add_links(folder: Path) -> dict[str, str]:
    try:
        (folder / "dangling.jpg").symlink_to("nowhere.jpg")
    except OSError:  # Windows without the right to make links
        return {}
    (folder / "loop-a.jpg").symlink_to("loop-b.jpg")
    (folder / "loop-b.jpg").symlink_to("loop-a.jpg")
    (folder / "deep" / "up").symlink_to("..", target_is_directory=True)
    outside = folder.parent / f"{folder.name}-outside"
    outside.mkdir()
    (outside / "linked.jpg").write_bytes(encode(picture(130), "JPEG"))
    (folder / "linked-folder").symlink_to(outside, target_is_directory=True)
    (folder / "linked-file.jpg").symlink_to(_other_file(outside))
    return {
        "dangling.jpg": "dangling link",
        "loop-a.jpg": "link loop",
        "loop-b.jpg": "link loop",
        "deep/up": "link loop",
        "linked-folder/linked.jpg": OK,
        "linked-file.jpg": OK,
    }


def _other_file(outside: Path) -> Path:
    hidden = outside / ".kept"  # a hidden folder, so that the file is listed only by its link
    hidden.mkdir()
    (hidden / "file.jpg").write_bytes(encode(picture(131), "JPEG"))
    return hidden / "file.jpg"


def _add_special_files(folder: Path) -> dict[str, str]:
    with (folder / "huge.tiff").open("wb") as file:
        file.write(b"II*\0")
        file.truncate((1 << 30) + 1)  # sparse: takes no room
    expected = {"huge.tiff": "file too large"}
    if hasattr(os, "mkfifo"):
        os.mkfifo(folder / "pipe.jpg")
        expected["pipe.jpg"] = "FIFO"
    return expected


def _add_junk(folder: Path) -> dict[str, str]:
    """What the systems leave behind is not listed at all."""
    for name in (".DS_Store", "Thumbs.db", "desktop.ini", "._baseline.jpg", ".git/x.jpg", "__MACOSX/x.jpg"):
        path = folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"junk")
    run = folder / "earlier.shoal"
    run.mkdir()
    (run / "run.json").write_text('{"format_version": 1, "stages": {}}')
    (run / "figure.png").write_bytes(encode(picture(140), "PNG"))
    return {}


def _add_unreadable(folder: Path) -> dict[str, str]:
    if os.name != "posix" or os.geteuid() == 0:  # root reads everything
        return {}
    (folder / "secret.jpg").write_bytes(encode(picture(150), "JPEG"))
    (folder / "secret.jpg").chmod(0)
    (folder / "closed").mkdir()
    (folder / "closed").chmod(0)
    return {"secret.jpg": "cannot be read", "closed": "cannot be read"}
