"""What computed bytes depend on besides what goes in: machines of the same kind compute the same."""

from __future__ import annotations

import platform
from importlib import metadata
from typing import Final

import numpy as np

# What decodes, resizes and computes; the runs' own list is of what people look at.
PACKAGES: Final = (
    *("shoal", "numpy", "openvino", "torch", "pillow", "pillow-heif", "simplejpeg", "tifffile", "imagecodecs"),
)


def kind_by(engine: str) -> dict[str, str]:
    """By name: the engine that computes, the processor's instructions, and versions."""
    return {"engine": engine, "processor": processor(), "system": platform.system(), **_versions()}


def processor() -> str:
    """Families of instructions, as numpy tells them: which there are decides how sums are rounded."""
    known = np.show_config(mode="dicts")
    extensions = known.get("SIMD Extensions", {}) if isinstance(known, dict) else {}
    return " ".join([platform.machine(), *extensions.get("found", ())])


def _versions() -> dict[str, str]:
    found = {}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "none"
    return found
