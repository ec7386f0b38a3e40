"""Colour profiles (ICC, version 2) from their definitions."""

from __future__ import annotations

import itertools
import struct

import numpy as np
from PIL import Image, ImageCms

D65, D50 = (0.3127, 0.3290), (0.34567, 0.35850)
PRIMARIES = {  # x and y of red, green and blue, and of white
    "sRGB": ((0.64, 0.33), (0.30, 0.60), (0.15, 0.06), D65),
    "AdobeRGB": ((0.64, 0.33), (0.21, 0.71), (0.15, 0.06), D65),
    "Display P3": ((0.68, 0.32), (0.265, 0.69), (0.15, 0.06), D65),
    "ProPhoto": ((0.7347, 0.2653), (0.1596, 0.8404), (0.0366, 0.0001), D50),
}
_BRADFORD = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]])


def rgb_profile(primaries: str, gamma: float | None, name: str = "") -> bytes:
    """A display profile; `gamma` None is the curve of sRGB."""
    colours = to_xyz(primaries)
    curve = _curve(gamma)
    tags = {b"wtpt": _xyz(white_of(D50)), b"desc": _text(name or primaries), b"cprt": b"text\0\0\0\0none\0"}
    for number, band in enumerate("rgb"):
        tags[f"{band}XYZ".encode()] = _xyz(colours[:, number])
        tags[f"{band}TRC".encode()] = curve
    return _profile(b"mntr", b"RGB ", b"XYZ ", tags)


def grey_profile(gamma: float) -> bytes:
    tags = {
        b"wtpt": _xyz(white_of(D50)),
        b"desc": _text("grey"),
        b"cprt": b"text\0\0\0\0none\0",
        b"kTRC": _curve(gamma),
    }
    return _profile(b"mntr", b"GRAY", b"XYZ ", tags)


def ink_profile() -> bytes:
    """Four inks on a yellowish paper, by a table of all corners."""
    corners = np.array(list(itertools.product((0, 1), repeat=4)))
    rgb = (1 - corners[:, :3]) * (1 - corners[:, 3:]) * np.array([250, 240, 200]) + 5
    srgb, lab = ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")
    image = ImageCms.applyTransform(
        Image.fromarray(rgb.astype(np.uint8)[None]), ImageCms.buildTransform(srgb, lab, "RGB", "LAB")
    )
    assert image is not None
    table = np.stack([np.asarray(image.getchannel(band))[0] for band in range(3)], axis=-1).astype(np.uint8)
    identity = struct.pack(">9i", *(65536 * (row == column) for row in range(3) for column in range(3)))
    ramp = bytes(range(256))
    lut = b"mft1\0\0\0\0" + bytes((4, 3, 2, 0)) + identity + ramp * 4 + table.tobytes() + ramp * 3
    tags = {b"wtpt": _xyz(white_of(D50)), b"desc": _text("inks"), b"cprt": b"text\0\0\0\0none\0", b"A2B0": lut}
    return _profile(b"prtr", b"CMYK", b"Lab ", tags)


def to_xyz(primaries: str) -> np.ndarray:
    """The matrix from linear RGB to XYZ under D50: [3, 3]."""
    *points, white = PRIMARIES[primaries]
    columns = np.array([white_of(point) for point in points]).T
    matrix = columns * np.linalg.solve(columns, white_of(white))
    cones = _BRADFORD @ white_of(D50) / (_BRADFORD @ white_of(white))
    return np.linalg.inv(_BRADFORD) @ np.diag(cones) @ _BRADFORD @ matrix


def white_of(point: tuple[float, float]) -> np.ndarray:
    return np.array([point[0] / point[1], 1.0, (1 - point[0] - point[1]) / point[1]])


def srgb_curve(linear: np.ndarray) -> np.ndarray:
    linear = np.clip(linear, 0, 1)
    return np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)


def in_srgb(levels: np.ndarray, primaries: str, gamma: float) -> np.ndarray:
    """Levels of a space with these primaries as levels of sRGB, by the formulas: [..., 3]."""
    linear = (levels / 255.0) ** gamma
    return 255 * srgb_curve(linear @ (np.linalg.inv(to_xyz("sRGB")) @ to_xyz(primaries)).T)


def _curve(gamma: float | None) -> bytes:
    if gamma is not None:
        return b"curv\0\0\0\0" + struct.pack(">IH", 1, round(gamma * 256)) + b"\0\0"
    steps = np.linspace(0, 1, 1024)
    linear = np.where(steps <= 0.04045, steps / 12.92, ((steps + 0.055) / 1.055) ** 2.4)
    return b"curv\0\0\0\0" + struct.pack(">I1024H", 1024, *np.round(linear * 65535).astype(int))


def _xyz(values: np.ndarray) -> bytes:
    return b"XYZ \0\0\0\0" + struct.pack(">3i", *(round(float(value) * 65536) for value in values))


def _text(text: str) -> bytes:
    content = text.encode() + b"\0"
    return (b"desc\0\0\0\0" + struct.pack(">I", len(content)) + content + bytes(78)).ljust(128, b"\0")


def _profile(kind: bytes, colours: bytes, between: bytes, tags: dict[bytes, bytes]) -> bytes:
    table, body = struct.pack(">I", len(tags)), b""
    start = 128 + 4 + 12 * len(tags)
    for name, content in tags.items():
        table += name + struct.pack(">II", start + len(body), len(content))
        body += content.ljust(-(-len(content) // 4) * 4, b"\0")
    white = struct.pack(">3i", *(round(float(value) * 65536) for value in white_of(D50)))
    header = struct.pack(
        ">I4sI4s4s4s12s4s",
        128 + len(table) + len(body),
        b"none",
        0x02100000,
        kind,
        colours,
        between,
        bytes(12),
        b"acsp",
    )
    return header.ljust(68, b"\0") + white.ljust(60, b"\0") + table + body
