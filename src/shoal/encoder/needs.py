"""What the extra `torch` brings, and what is said where it is missing."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Final

from shoal.errors import ConfigError

PACKAGES: Final = ("torch", "torchvision", "timm")


def missing() -> list[str]:
    """Which of PACKAGES are not installed. Nothing is imported."""
    return [name for name in PACKAGES if find_spec(name) is None]


def require_torch(what: str) -> None:
    """Raise ConfigError if `what` (`shoal train`, `--device cuda`, …) needs packages that are not installed."""
    absent = missing()
    if absent:  # by the packages' own names: Shoal's may be somebody else's on an index
        verb = "is" if len(absent) == 1 else "are"
        raise ConfigError(
            f"{what} needs {', '.join(absent)}, which {verb} not installed: pip install {' '.join(PACKAGES)}"
        )
