"""The images of `shoal demo`: 2,000 of Fashion-MNIST (Zalando Research, MIT licence), shipped with the package."""

from __future__ import annotations

from importlib import resources
from pathlib import Path


def demo_images() -> Path:
    """The Parquet table of demo images: columns path, image (PNG bytes), label."""
    return Path(str(resources.files("shoal"))) / "data" / "fashion-mnist-2000.parquet"
