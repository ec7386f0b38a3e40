"""How an encoder was trained, as figures: the loss of each phase, the k-NN curve, the views, the network."""

from __future__ import annotations

import json
import math
from typing import Any, Final

from safetensors import SafetensorError, safe_open

from shoal.report import figures
from shoal.report.figures import ACCENT, INK, RULE, SOFT
from shoal.report.plotting import Axes, Figure, MaxNLocator
from shoal.rundir import RunDir
from shoal.runfiles import KNN, log_of

TITLES: Final = {
    "train-pretext": "Loss of the pretext task, and how even its features lie",
    "train-knn": "What the nearest neighbours' labels tell, by epoch; watched, not learned from",
    "train-scan": "Loss of clustering: consistency and entropy apart",
    "train-selflabel": "Self-labelling: loss, neighbours that agree, and images learned from or told anew",
    "train-views": "Views: what the encoder was shown",
    "train-architecture": "The encoder",
}
# For each phase its panels: a title, a subtitle, and the logged values drawn in it.
_PANELS: Final[dict[str, list[tuple[str, str, tuple[str, ...]]]]] = {
    "pretext": [
        ("Pretext loss", "mean of each epoch", ("loss",)),
        ("Features", "spread: 1 is all round, 0 is collapse; alignment: of two views", ("spread", "alignment")),
    ],
    "scan": [
        ("Consistency", "of an image and its neighbour; lower is better", ("consistency",)),
        ("Entropy of the mean assignment", "dashed: all clusters used alike", ("entropy",)),
    ],
    "selflabel": [
        ("Self-labelling loss", "mean of each epoch", ("loss",)),
        (
            "Neighbours that agree, and images",
            "parts of 1; confident: images learned from; renewed: images that got another cluster",
            ("confident", "renewed", "agreement"),
        ),
    ],
}


def draw(run_dir: RunDir) -> dict[str, bytes]:
    """PNG by name, in the order of TITLES; empty for a run whose encoder was borrowed. Within `figures.style()`."""
    lines = [line for phase in _PANELS for line in _lines(run_dir.path(log_of(phase)))]
    if not lines and run_dir.stage("recipe") is None:  # of a run of before generations, perhaps
        lines = _lines(run_dir.train / "log.jsonl")
    if not lines:
        return {}
    clusters = ((run_dir.stage("scan") or {}).get("facts") or {}).get("clusters")
    drawn = {f"train-{phase}": _phase(phase, found, clusters) for phase in _PANELS if (found := _of(lines, phase))}
    if curve := _lines(run_dir.path(KNN)):
        drawn["train-knn"] = _knn(curve)
    views = run_dir.report / "views.png"
    if views.is_file():
        drawn["train-views"] = views.read_bytes()
    parts = _parts(run_dir)
    if parts:
        drawn["train-architecture"] = _architecture(parts)
    return {name: drawn[name] for name in TITLES if name in drawn}


def _of(lines: list[dict[str, Any]], phase: str) -> list[dict[str, Any]]:
    return [line for line in lines if line.get("phase") == phase]


def _phase(phase: str, lines: list[dict[str, Any]], clusters: int | None) -> bytes:
    figure, panels = figures.canvas(7.2, 5.6, (0.65, 3.25, 6.35, 1.8), (0.65, 0.5, 6.35, 1.8))
    for panel, (title, subtitle, names) in zip(panels, _PANELS[phase], strict=True):
        _curves(panel, lines, names)
        figures.title(panel, title, subtitle)
    if phase == "scan" and clusters:
        panels[1].axhline(math.log(clusters), color=SOFT, linewidth=0.8, linestyle=(0, (4, 3)))
    panels[1].set_xlabel("epoch")
    return figures.png(figure)


def _curves(panel: Axes, lines: list[dict[str, Any]], known: tuple[str, ...]) -> None:
    names = [name for name in known if any(name in line for line in lines)]
    for name, colour in zip(names, (INK, ACCENT), strict=False):
        points = [(line["epoch"] + 1, line[name]) for line in lines if name in line]
        panel.plot(*zip(*points, strict=True), color=colour, linewidth=1.4, marker=".", markersize=4, label=name)
    if len(names) > 1:
        panel.legend(frameon=False, fontsize=8)
    panel.xaxis.set_major_locator(MaxNLocator(10, integer=True))
    panel.grid(axis="y", color=RULE, linewidth=0.6)


def _knn(curve: list[dict[str, Any]]) -> bytes:
    figure, (panel,) = figures.canvas(7.2, 3.4, (0.65, 0.5, 6.35, 2.3))
    panel.plot([line["epoch"] + 1 for line in curve], [line["accuracy"] for line in curve], color=INK, marker=".")
    panel.set_xlabel("epoch of the pretext task")
    panel.xaxis.set_major_locator(MaxNLocator(10, integer=True))
    panel.grid(axis="y", color=RULE, linewidth=0.6)
    figures.title(panel, "k-NN accuracy", f"weighted, k 100, τ 0.1, each of 2,000 among {curve[-1]['images']:,} images")
    return figures.png(figure)


def _parts(run_dir: RunDir) -> list[tuple[str, int]]:
    """Parts of the encoder in their order, with the numbers that each holds."""
    path = run_dir.path("train/encoder.safetensors")
    sizes: dict[str, int] = {}
    try:
        with safe_open(path, "numpy") as file:
            for name in file.keys():  # noqa: SIM118  (it is no dictionary)
                if name.startswith("encoder."):
                    words = name.removeprefix("encoder.").removeprefix("inner.").split(".")
                    part = ".".join(words[:2]) if len(words) > 2 and words[1].isdigit() else words[0]
                    sizes[part] = sizes.get(part, 0) + math.prod(file.get_slice(name).get_shape())
    except (OSError, SafetensorError):
        return []
    order = {"stem": 0, "conv1": 0, "bn1": 1, "whitening": 3}
    return sorted(sizes.items(), key=lambda part: (order.get(part[0].split(".")[0], 2), _natural(part[0])))


def _natural(name: str) -> tuple[Any, ...]:
    """`layer2` before `layer10`."""
    return tuple((0, int(word), "") if word.isdigit() else (1, 0, word) for word in name.split("."))


def _architecture(parts: list[tuple[str, int]]) -> bytes:
    """A row for each part, as long as it has parameters."""
    height = 1.0 + 0.24 * len(parts)
    figure: Figure
    figure, (panel,) = figures.canvas(7.2, height, (1.6, 0.2, 4.6, height - 0.9))
    sizes = [size for _, size in parts]
    panel.barh(range(len(parts)), sizes, color=SOFT, height=0.7)
    for row, size in enumerate(sizes):
        panel.annotate(f"{size:,}", (size, row), (4, 0), textcoords="offset points", va="center", fontsize=7.5)
    panel.set_yticks(range(len(parts)), [name for name, _ in parts], fontsize=8)
    panel.invert_yaxis()
    panel.xaxis.set_visible(False)
    panel.spines[["bottom"]].set_visible(False)
    figures.title(
        panel, "The encoder", f"its parts from the image on, and how many of its {sum(sizes):,} numbers each has"
    )
    return figures.png(figure)


def _lines(path: Any) -> list[dict[str, Any]]:
    """Lines of JSON; one that was cut off is left out."""
    found = []
    for text in path.read_text(encoding="utf-8").splitlines() if path.is_file() else []:
        try:
            line = json.loads(text)  # a loss may be NaN
        except (ValueError, RecursionError):
            continue
        if isinstance(line, dict):
            found.append(line)
    return found
