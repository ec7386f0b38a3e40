"""What the extras `torch` and `text` bring, and what is said where it is missing."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from typing import Final

from shoal.errors import ConfigError

PACKAGES: Final = ("torch", "torchvision", "timm")
OPEN_CLIP: Final = "open_clip_torch"  # which brings those too
TRANSFORMERS: Final = "transformers"
MODULES: Final = {OPEN_CLIP: "open_clip"}  # of packages that are called otherwise


def is_there(package: str) -> bool:
    """Is a package installed? Nothing is imported."""
    return find_spec(MODULES.get(package, package.replace("-", "_"))) is not None


def missing() -> list[str]:
    """Which of PACKAGES are not installed."""
    return [name for name in PACKAGES if not is_there(name)]


def require_torch(what: str) -> None:
    """Raise ConfigError if `what` (`shoal train`, `--device cuda`, …) needs packages that are not installed."""
    _require(what, PACKAGES)


def require_open_clip(what: str) -> None:
    """As `require_torch`, for what needs a text tower, or the image tower beside one."""
    _require(what, (OPEN_CLIP,))


def require_transformers(what: str) -> None:
    """As `require_torch`, for what needs a tokenizer that is not open_clip's own."""
    _require(what, (TRANSFORMERS,))


def _require(what: str, packages: Sequence[str]) -> None:
    absent = [name for name in packages if not is_there(name)]
    if absent:  # by the packages' own names: Shoal's may be somebody else's on an index
        verb = "is" if len(absent) == 1 else "are"
        raise ConfigError(
            f"{what} needs {', '.join(absent)}, which {verb} not installed: pip install {' '.join(packages)}"
        )
