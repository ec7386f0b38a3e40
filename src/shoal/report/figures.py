"""The report's figures as PNG, for slides and papers. Drawn on matplotlib's canvas directly: pyplot is slow to load."""

from __future__ import annotations

import io
from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from shoal.embeddings import Float32
from shoal.report.explorer import Look
from shoal.report.plotting import (
    Axes,
    Figure,
    FigureCanvasAgg,
    FixedLocator,
    FuncFormatter,
    MaxNLocator,
    NullLocator,
    rc_context,
)

INK: Final = "#22262b"
SOFT: Final = "#6b7480"
RULE: Final = "#d9dde2"
ACCENT: Final = "#b4472f"
PAPER: Final = "#ffffff"
DPI: Final = 132
LEAST_SPAN: Final = 0.02  # of the silhouettes that a curve shows
MOST_DOTS: Final = 20_000
KNIFE_ROWS: Final = 1500  # more rows than the figure has pixels say nothing more
MOST_NUMBERS: Final = 120  # of clusters written into a scatter
MOST_BLADES: Final = 200  # of a knife; more clusters are drawn row by row
MOST_BARS: Final = 200
MOST_CELLS: Final = 900  # of a confusion matrix that are written into
LABEL: Final = 7  # points: the size of a cluster's number in a scatter
ROUND: Final = np.linspace(0, 2 * np.pi, 16, endpoint=False)  # where around its place a number that is in the way goes
RINGS: Final = 60  # how far, in steps of half its size

Float64 = npt.NDArray[np.float64]
Box = tuple[float, float, float, float]  # left, bottom, width, height, in inches

_STYLE: Final[Any] = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],  # comes with matplotlib: the same figure on every machine
    "font.size": 9,
    "text.color": INK,
    "axes.edgecolor": RULE,
    "axes.labelcolor": SOFT,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.color": SOFT,
    "ytick.color": SOFT,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "figure.facecolor": PAPER,
    "savefig.facecolor": PAPER,
    "path.simplify": True,
}


def style() -> AbstractContextManager[None]:
    """The look of all figures; each function here is called within it."""
    return rc_context(_STYLE)


def evidence(rows: Sequence[dict[str, Any]], chosen: int) -> bytes:
    """Mean silhouette, and stability where it was measured, over the numbers of clusters looked at."""
    stable = [row for row in rows if row.get("stability") is not None]
    height = 4.9 if stable else 3.3
    upper: Box = (0.65, height - 2.75, 6.35, 2.2)
    figure, panels = canvas(7.2, height, *([upper, (0.65, 0.55, 6.35, 1.0)] if stable else [upper]))
    ks = [row["k"] for row in rows]
    for panel in panels:
        _count_axis(panel, ks)
    curve = panels[0]
    curve.plot(ks, [_number(row.get("silhouette")) for row in rows], color=INK, linewidth=1.4)
    curve.plot(ks, [_number(row.get("silhouette")) for row in rows], ".", color=INK, markersize=4)
    title(curve, "How well separated, by number of clusters", "mean silhouette; higher is better")
    low, high = curve.get_ylim()
    if high - low < LEAST_SPAN:  # a flat curve is to look flat
        low, high = (low + high - LEAST_SPAN) / 2, (low + high + LEAST_SPAN) / 2
    curve.set_ylim(low, high + 0.14 * (high - low))  # room for words above the curve
    best = next((_number(row.get("silhouette")) for row in rows if row["k"] == chosen), None)
    if best is not None:
        curve.plot([chosen], [best], "o", color=ACCENT, markersize=8)
        _name_line(curve, chosen, f"{chosen:,} cluster" + "s" * (chosen != 1))
    if stable:
        panels[1].plot([row["k"] for row in stable], [row["stability"] for row in stable], color=SOFT, linewidth=1.2)
        panels[1].set_ylim(0, 1.04)
        title(panels[1], "", "stability over resamples; 1 is the same clusters every time")
    for panel in panels:
        panel.grid(axis="y", color=RULE, linewidth=0.6)
        panel.axvline(chosen, color=ACCENT, linewidth=0.8, alpha=0.5)
    panels[-1].set_xlabel("number of clusters")
    return png(figure)


def knife(look: Look, features: Float32, colours: Sequence[str], note: str = "") -> bytes:
    """The silhouette of every image by cluster, with its mean dashed, beside the first two features and the centres."""
    figure, (left, right) = canvas(10.4, 5.4, (0.4, 0.5, 4.6, 4.3), (5.6, 0.5, 4.6, 4.3))
    _draw_knife(left, look, colours)
    _draw_scatter(right, look, features, colours)
    title(left, f"{look.k:,} clusters: mean silhouette {look.mean:.3f}", "silhouette of every image, by cluster")
    title(right, "The first two features", note or "numbers stand at the clusters' centres")
    return png(figure)


def map_of(
    places: Float32, labels: npt.NDArray[np.int32], colours: Sequence[str], unsure: npt.NDArray[np.bool_]
) -> bytes:
    """All images in the plane, coloured by cluster; unsure ones pale."""
    figure, (panel,) = canvas(8.4, 6.6, (0.2, 0.1, 8.0, 5.9))
    some = _some(len(places))
    shades = np.array(colours)[labels[some]]
    size = float(np.clip(9000 / max(len(some), 1), 1.2, 40))
    for which, alpha in ((unsure[some], 0.3), (~unsure[some], 0.85)):  # the sure ones on top
        x, y = places[some][which].T
        panel.scatter(x, y, s=size, c=list(shades[which]), alpha=alpha, linewidths=0)
    counts = np.bincount(labels, minlength=len(colours))
    largest = np.argsort(-counts, kind="stable")[: min(MOST_NUMBERS, np.count_nonzero(counts))]
    panel.set_axis_off()
    panel.set_aspect("equal", "datalim")
    panel.apply_aspect()
    middles = {cluster: np.median(places[labels == cluster], axis=0) for cluster in largest.tolist()}
    _number_places(panel, middles, colours)
    numbers = "number" if len(largest) == np.count_nonzero(counts) else f"numbers of the {len(largest)} largest"
    title(panel, "Map of the images", f"near each other: alike; colour and {numbers}: cluster")
    return png(figure)


def sizes(counts: npt.NDArray[np.int64], order: Sequence[int], colours: Sequence[str]) -> bytes:
    """Images in each cluster, largest first."""
    figure, (panel,) = canvas(7.2, 3.4, (0.65, 0.5, 6.35, 2.3))
    if len(order) <= MOST_BARS:
        panel.bar(range(len(order)), counts[list(order)], color=[colours[cluster] for cluster in order], width=0.86)
    else:
        panel.fill_between(range(len(order)), counts[list(order)], color=INK, alpha=0.75, linewidth=0, step="mid")
    named = len(order) <= 40
    panel.xaxis.set_major_locator(FixedLocator(range(len(order))) if named else NullLocator())
    if named:
        panel.set_xticklabels([str(cluster) for cluster in order], fontsize=8 if len(order) <= 25 else 6)
    panel.set_xlabel("cluster" if named else "clusters, largest first")
    panel.yaxis.set_major_locator(MaxNLocator(5, integer=True))
    panel.grid(axis="y", color=RULE, linewidth=0.6)
    panel.set_axisbelow(True)
    title(panel, "Sizes", "images in each cluster")
    return png(figure)


def confusion(counts: npt.NDArray[np.int64], clusters: Sequence[Any], classes: Sequence[Any]) -> bytes:
    """Images of each cluster by label, coloured by share: a row a cluster, a column a label, both as they are given."""
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    width, height = max(min(0.34 * len(classes), 11), 2.4), min(0.28 * len(clusters), 10)
    names = [_short(name) for name in classes]
    below = 0.25 + 0.06 * max(len(name) for name in names)  # room for names at 60 degrees
    scale: Box = (0.8 + width + 0.15, below, 0.13, height)
    figure, (panel, beside) = canvas(width + 1.75, height + below + 0.75, (0.8, below, width, height), scale)
    image = panel.imshow(shares, aspect="auto", cmap="Blues", vmin=0, vmax=1, interpolation="nearest")
    if len(classes) <= 60:
        panel.set_xticks(range(len(classes)), names, rotation=60, ha="right", rotation_mode="anchor", fontsize=7)
    if len(clusters) <= 60:
        panel.set_yticks(range(len(clusters)), [str(cluster) for cluster in clusters], fontsize=7)
    if is_written := counts.size <= MOST_CELLS:
        for row, column in zip(*np.nonzero(counts), strict=True):
            shade = PAPER if shares[row, column] > 0.55 else INK
            panel.text(column, row, f"{counts[row, column]:,}", ha="center", va="center", fontsize=6.5, color=shade)
    panel.set_ylabel("cluster")
    ticks = [0, 0.5, 1] if height > 1 else [0, 1]
    figure.colorbar(image, beside, ticks=ticks, format=lambda share, _: f"{share * 100:.0f} %")
    beside.tick_params(labelsize=7)
    title(panel, "Clusters and labels", f"{'images; ' * is_written}colour: share of the cluster's images")
    return png(figure)


def _draw_knife(panel: Axes, look: Look, colours: Sequence[str]) -> None:
    gap = max(1, len(look.labels) // 150)
    step = max(1, len(look.labels) // KNIFE_ROWS)
    floor = 0
    # One value for each image, grouped by cluster, longest at the top of its blade.
    order = np.lexsort((look.silhouettes, look.labels))
    bounds = np.searchsorted(look.labels[order], np.arange(look.k + 1))
    middles = np.zeros(look.k)
    if look.k > MOST_BLADES:
        rows = np.arange(0, len(order), step)
        shades = np.array(colours)[look.labels[order[rows]]]
        panel.hlines(rows, 0, look.silhouettes[order[rows]], colors=list(shades), linewidth=0.4)
        floor = len(order)
    for cluster in range(look.k if look.k <= MOST_BLADES else 0):
        blade = look.silhouettes[order[bounds[cluster] : bounds[cluster + 1]]]
        heights = floor + np.arange(len(blade))
        panel.fill_betweenx(
            heights[::step], 0, blade[::step], color=colours[cluster], linewidth=0.4 if step == 1 else 0, step="mid"
        )
        middles[cluster] = floor + len(blade) / 2
        floor += len(blade) + gap
    least = min(-0.05, float(look.silhouettes.min(initial=0)))
    if look.k <= 60:
        points = 8 if look.k <= 30 else 5.5
        least_gap = points / (72 * panel.get_window_extent().height / DPI) * (floor + gap)
        last = -least_gap
        for cluster, middle in enumerate(middles):
            if middle - last >= least_gap:  # of blades thinner than a number some have none
                panel.text(least - 0.015, middle, str(cluster), ha="right", va="center", fontsize=points)
                last = middle
    panel.axvline(look.mean, color=ACCENT, linestyle=(0, (4, 3)), linewidth=1.1)
    panel.set_xlim(least, max(0.1, float(look.silhouettes.max(initial=0))) * 1.02)
    panel.set_ylim(-gap, max(floor, 1))
    panel.invert_yaxis()
    panel.yaxis.set_major_locator(NullLocator())
    panel.spines["left"].set_visible(False)
    panel.set_xlabel("silhouette")


def _draw_scatter(panel: Axes, look: Look, features: Float32, colours: Sequence[str]) -> None:
    some = _some(len(features))
    size = float(np.clip(6000 / max(len(some), 1), 1.0, 16))
    shades = np.array(colours)[look.labels[some]]
    panel.scatter(features[some, 0], features[some, 1], s=size, c=list(shades), alpha=0.7, linewidths=0)
    if look.k <= MOST_NUMBERS:
        known = {cluster: centre for cluster, centre in enumerate(look.centres) if np.isfinite(centre).all()}
        _number_places(panel, known, colours)
    panel.set_xlabel("feature 1")
    panel.set_ylabel("feature 2")


def _number_places(panel: Axes, places: dict[int, Float32], colours: Sequence[str]) -> None:
    """Write the number of each cluster at its place (x, y), or beside it, with a line to it, where another one is."""
    panel.autoscale_view()
    numbers = sorted(places)
    middles = np.array([places[number] for number in numbers], np.float64).reshape(-1, 2)
    points = panel.transData.transform(middles) * 72 / DPI
    halves = np.array([(0.36 * len(str(number)) + 0.4, 0.85) for number in numbers]).reshape(-1, 2) * LABEL
    for number, shift in zip(numbers, apart(points, halves), strict=True):
        at: Any = {"xy": tuple(places[number]), "xytext": tuple(shift), "textcoords": "offset points"}
        if shift.any():  # lines lie below all numbers
            panel.annotate("", **at, arrowprops={"arrowstyle": "-", "color": INK, "linewidth": 0.7}, zorder=2.5)
        box = {"boxstyle": "round,pad=0.25", "facecolor": PAPER, "edgecolor": colours[number], "linewidth": 1.1}
        words: Any = {"ha": "center", "va": "center", "fontsize": LABEL, "weight": "bold", "color": INK}
        panel.annotate(str(number), **at, **words, bbox=box | {"alpha": 0.92})


def apart(places: Float64, halves: Float64) -> Float64:
    """By how much labels are moved so that none lies on another, [n, 2]; the first ones stay where they are.

    Args:
        places: [n, 2] their middles; halves: [n, 2] half their widths and heights; all in one unit.
    """
    steps = np.arange(1, RINGS + 1)[:, None, None] * np.column_stack([np.cos(ROUND), np.sin(ROUND)])
    tried = np.vstack([np.zeros((1, 2)), steps.reshape(-1, 2)])  # nearest first
    shifts = np.zeros_like(places)
    for number, (place, half) in enumerate(zip(places, halves, strict=True)):
        middles = place + tried * half.min()
        gaps = np.abs(middles[:, None] - (places + shifts)[None, :number]) - (half + halves[None, :number])
        free = (gaps > 0).any(axis=2).all(axis=1)
        shifts[number] = tried[int(free.argmax())] * half.min()
    return shifts


def _name_line(panel: Axes, x: float, text: str) -> None:
    """Words at the top of a vertical line, on the side where there is room."""
    is_right = panel.transAxes.inverted().transform(panel.transData.transform((x, 0)))[0] > 0.8
    panel.annotate(
        text,
        (x, 1),
        (-8 if is_right else 8, -3),
        xycoords=("data", "axes fraction"),
        textcoords="offset points",
        ha="right" if is_right else "left",
        va="top",
        color=ACCENT,
        weight="bold",
    )


def canvas(width: float, height: float, *boxes: Box) -> tuple[Figure, list[Axes]]:
    """A figure of inches with a panel in each box. Boxes are fixed, since finding them takes as long as drawing."""
    figure = Figure(figsize=(width, height), dpi=DPI)
    FigureCanvasAgg(figure)
    panels = [figure.add_axes((x / width, y / height, w / width, h / height)) for x, y, w, h in boxes]
    return figure, panels


def title(panel: Axes, title: str, subtitle: str) -> None:
    panel.set_title(title, loc="left", fontsize=11, weight="bold", pad=20)
    panel.annotate(
        subtitle, (0, 1), (0, 6), xycoords="axes fraction", textcoords="offset points", fontsize=8.5, color=SOFT
    )


def _count_axis(panel: Axes, ks: Sequence[int]) -> None:
    """Whole numbers; logarithmic where the largest K dwarfs the smallest."""
    if ks and max(ks) > 150:
        panel.set_xscale("log")
        panel.xaxis.set_minor_locator(NullLocator())
        panel.xaxis.set_major_locator(
            FixedLocator([k for k in (2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000) if k <= max(ks)])
        )
        panel.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    else:
        panel.xaxis.set_major_locator(MaxNLocator(10, integer=True))


def _some(count: int) -> npt.NDArray[np.intp]:
    """Positions of evenly spread points, no more than can be told apart."""
    return np.arange(0, count, max(1, count // MOST_DOTS))


def _number(value: Any) -> float:
    return float("nan") if value is None else float(value)


def _short(name: Any) -> str:
    text = str(name).replace("$", r"\$")  # no mathematics in people's labels
    return text if len(text) <= 24 else text[:23] + "…"


def png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", pil_kwargs={"compress_level": 4})
    return buffer.getvalue()
