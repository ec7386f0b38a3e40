"""Whole processes side by side: Shoal and tasnif cluster the same photographs into as many clusters.

    python bench/end_to_end.py [--photos FOLDER] [--repeats 3] [--clusters 20]

Both get EfficientNet-Lite0 with the same weights and the same versions of torch, timm, NumPy, Pillow and scikit-learn.
Runs alternate (tasnif, Shoal, Shoal with its report, tasnif, …), each from an empty output folder; the ratio is taken
between neighbours. Shoal's first run ever on a machine, which converts the model, is told apart as `cold`.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import subprocess
import sys
import tempfile
import venv
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

from machine import describe, machine_line, peak_memory_bytes, write_result
from photos import WORK, photo_folder
from processes import ProcessRun, elsewhere, run_process

TASNIF = "0.3.0"
SHARED_PACKAGES = ("torch", "torchvision", "timm", "numpy", "pillow", "scikit-learn")
WARM_UP_PHOTOS = 32
GOALS = {"shoal": 7.0, "shoal with report": 4.0}  # times faster than tasnif

Runs = dict[str, list[ProcessRun]]


def main() -> None:
    options = _options()
    photos = options.photos or elsewhere(photo_folder)
    tasnif, weights = _tasnif_python(), elsewhere(timm_weights)
    with tempfile.TemporaryDirectory(dir=WORK) as scratch:
        bench = _Bench(photos, options.clusters, tasnif, weights, Path(scratch))
        runs = bench.measure(options.repeats)
    images = len(list(photos.iterdir()))
    write_result(
        "end_to_end",
        {
            "images": images,
            "photos": "made by bench/photos.py" if options.photos is None else "a folder given by --photos",
            "clusters": options.clusters,
            "tasnif": TASNIF,
            "runs": {name: [run.to_json() for run in found] for name, found in runs.items()},
            "times_faster_than_tasnif": {name: _ratios(runs, name) for name in GOALS},
            "goals": GOALS,
            "memory_floor_bytes": peak_memory_bytes(),
        },
    )
    print(f"{_table(runs, images)}\n\n{machine_line(describe())}")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Shoal and tasnif, whole processes, on the same photographs.")
    parser.add_argument("--photos", type=Path, help="a folder of your own photographs, instead of the made ones")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--clusters", type=int, default=20)
    return parser.parse_args()


class _Bench:
    """The two programs, what they are given, and a scratch folder for what they write."""

    def __init__(self, photos: Path, clusters: int, tasnif: Path, weights: Path, scratch: Path) -> None:
        self._photos, self._clusters = photos, str(clusters)
        self._tasnif_python, self._weights = tasnif, weights
        self._scratch = scratch
        self._made = 0

    def measure(self, repeats: int) -> Runs:
        """Shoal cold, then everything once on a few photos (libraries come from the disk then), then in turns."""
        runs: Runs = {"tasnif": [], "shoal": [], "shoal with report": [], "shoal cold": [self._shoal(self._photos)]}
        few = self._scratch / "few"
        few.mkdir()
        for photo in sorted(self._photos.iterdir())[:WARM_UP_PHOTOS]:
            shutil.copy(photo, few)
        self._tasnif(few)
        self._shoal(few, report=True)
        for _ in range(repeats):
            runs["tasnif"].append(self._tasnif(self._photos))
            runs["shoal"].append(self._shoal(self._photos))
            runs["shoal with report"].append(self._shoal(self._photos, report=True))
        return runs

    def _tasnif(self, photos: Path) -> ProcessRun:
        program = str(Path(__file__).with_name("tasnif_cluster.py"))
        arguments = (str(self._weights), str(photos), self._clusters, self._empty_folder())
        return run_process((str(self._tasnif_python), program, *arguments))

    def _shoal(self, photos: Path, report: bool = False) -> ProcessRun:
        command = [sys.executable, "-m", "shoal", "cluster", str(photos), "--clusters", self._clusters]
        command += ["--out", self._empty_folder()] + ([] if report else ["--no-report"])
        return run_process(command, SHOAL_CACHE=str(self._scratch / "cache"))

    def _empty_folder(self) -> str:
        self._made += 1
        return str(self._scratch / f"out-{self._made}")


def _tasnif_python() -> Path:
    """The interpreter of tasnif's own environment, made on first use with the versions that Shoal has here."""
    folder = WORK / f"tasnif-{TASNIF}"
    python = folder / "bin" / "python"
    if not (folder / "done").exists():
        venv.create(folder, with_pip=True, clear=True)
        wanted = [f"{package}=={metadata.version(package)}" for package in SHARED_PACKAGES]
        subprocess.run([python, "-m", "pip", "install", "--quiet", f"tasnif=={TASNIF}", *wanted], check=True)
        (folder / "done").touch()
    return python


def timm_weights() -> Path:
    """The embedded backbone's weights under timm's names, the classifier with them, as timm reads them from a file."""
    from shoal.encoder import embedded  # noqa: PLC0415

    target = WORK / "tf_efficientnet_lite0.safetensors"
    embedded.find("logits", "crop", None).save(target)
    return target


def _ratios(runs: Runs, name: str) -> list[float]:
    """How many times faster than tasnif, pair by pair."""
    return [round(peer.seconds / own.seconds, 2) for peer, own in zip(runs["tasnif"], runs[name], strict=True)]


def _table(runs: Runs, images: int) -> str:
    lines = [
        f"| {images:,} photographs | wall s | images/s | CPU s | peak MB | times faster |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for name, found in runs.items():
        seconds = [run.seconds for run in found]
        cells = (
            _spread(seconds),
            f"{images / statistics.median(seconds):.0f}",
            _spread([run.cpu_seconds for run in found]),
            f"{max(run.peak_bytes for run in found) / 1e6:,.0f}",
            _spread(_ratios(runs, name)) if name in GOALS else "",
        )
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _spread(values: Sequence[float]) -> str:
    """The median, and in brackets the least and the most."""
    if len(values) == 1:
        return f"{values[0]:.1f}"
    return f"{statistics.median(values):.1f} ({min(values):.1f} to {max(values):.1f})"


if __name__ == "__main__":
    main()
