"""What decoding ordinary photographs costs beside an earlier version of Shoal, in one process, turn by turn.

    git worktree add ../shoal-before COMMIT
    python bench/decoding.py --before ../shoal-before/src [--rounds 12]

Photographs of 500 × 375, without and with a profile, and of 4000 × 3000: each is decoded in chunks, by one version and
then by the other, which begin in turn, so that both meet the same machine. Told is processor time: the least of all
rounds, and the median of the rounds' ratios. Both use the same libraries.
"""

from __future__ import annotations

import argparse
import importlib
import io
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from PIL import Image, ImageCms

from machine import describe, machine_line, write_result
from photos import photo_folder

CHUNK = 50
LARGE = (4000, 3000)
LARGE_COUNT = 60
Way = Callable[[bytes], object]


def imported(folder: Path | None) -> ModuleType:
    """The module `shoal.images.views` of the package in `folder`, or the one that is installed."""
    for name in [name for name in sys.modules if name == "shoal" or name.startswith("shoal.")]:
        del sys.modules[name]
    if folder is None:
        return importlib.import_module("shoal.images.views")
    sys.path.insert(0, str(folder))
    try:
        found = importlib.import_module("shoal.images.views")
        assert found.__file__ is not None
        assert Path(found.__file__).is_relative_to(folder.resolve()), f"{folder} has no package shoal"
        return found
    finally:
        sys.path.remove(str(folder))


def view(module: ModuleType) -> Way:
    def way(data: bytes) -> object:
        return module.model_input(data, size=224, crop_fraction=0.875, interpolation="bicubic", resize="crop")

    return way


def header(module: ModuleType) -> Way:
    return module.probe  # type: ignore[no-any-return]


def compare(before: Way, now: Way, files: list[bytes], rounds: int) -> dict[str, float]:
    """Milliseconds a file by each, and how many times as long the present one takes."""
    ways = {"before": before, "now": now}
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    ratios = []
    for way in ways.values():
        for data in files[:CHUNK]:
            way(data)
    for turn in range(rounds):
        total = dict.fromkeys(ways, 0.0)
        for number, start in enumerate(range(0, len(files), CHUNK)):
            for name in sorted(ways, reverse=(turn + number) % 2 == 0):
                began = time.thread_time()
                for data in files[start : start + CHUNK]:
                    ways[name](data)
                total[name] += time.thread_time() - began
        for name in ways:
            seconds[name].append(total[name])
        ratios.append(total["now"] / total["before"])
    least = {name: min(found) / len(files) * 1e3 for name, found in seconds.items()}
    return {
        "before_ms": least["before"],
        "now_ms": least["now"],
        "ratio_of_least": least["now"] / least["before"],
        "median_ratio": statistics.median(ratios),
        "least_ratio": min(ratios),
        "most_ratio": max(ratios),
    }


def large_photographs(small: list[bytes]) -> list[bytes]:
    made = []
    for data in small[:LARGE_COUNT]:
        buffer = io.BytesIO()
        Image.open(io.BytesIO(data)).resize(LARGE, Image.Resampling.BICUBIC).save(buffer, "JPEG", quality=90)
        made.append(buffer.getvalue())
    return made


def with_profile(files: list[bytes]) -> list[bytes]:
    """The same, each with a profile of sRGB, as cameras write them."""
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    segment = b"\xff\xe2" + (len(profile) + 16).to_bytes(2, "big") + b"ICC_PROFILE\0\x01\x01" + profile
    return [data[:20] + segment + data[20:] for data in files]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--before", type=Path, required=True, help="the folder src of an earlier version")
    parser.add_argument("--rounds", type=int, default=12)
    asked = parser.parse_args()
    small = [path.read_bytes() for path in sorted(photo_folder(1000).glob("*.jpg"))]
    sets = {
        "1,000 of 500 × 375": small,
        "the same with a profile of sRGB": with_profile(small),
        f"{LARGE_COUNT} of 4000 × 3000": large_photographs(small),
    }
    before, now = imported(asked.before.resolve()), imported(None)
    results: dict[str, Any] = {}
    print("| photographs | what | before ms | now ms | ratio | of all rounds |\n|---|---|---:|---:|---:|---:|")
    for name, files in sets.items():
        for what, of in (("backbone's input", view), ("header", header)):
            found = results.setdefault(name, {})[what] = compare(of(before), of(now), files, asked.rounds)
            figures = f"{found['before_ms']:.4g} | {found['now_ms']:.4g} | {found['median_ratio']:.3f}"
            print(
                f"| {name} | {what} | {figures} | {found['least_ratio']:.3f} to {found['most_ratio']:.3f} |", flush=True
            )
    print(machine_line(describe()))
    print(f"kept in {write_result(Path(__file__).stem, {'sets': results})}")


if __name__ == "__main__":
    main()
