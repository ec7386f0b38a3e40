"""Small charts drawn as inline SVG: they take the page's colours, light or dark, and cost no script."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from markupsafe import Markup

from shoal.embeddings import Float32

WIDTH: Final = 560
LEFT: Final = 44
RIGHT: Final = 16
TOP: Final = 26
CURVE_HEIGHT: Final = 190
STABILITY_HEIGHT: Final = 70
BETWEEN: Final = 40
WIDE_RANGE: Final = 150  # beyond this K the axis is logarithmic
ROUND_KS: Final = (2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000)
BLADE_WIDTH: Final = 120
BLADE_HEIGHT: Final = 26
BLADE_STEPS: Final = 30


def evidence(rows: Sequence[dict[str, Any]], chosen: int) -> Markup:
    """Mean silhouette over K, with stability in a panel of its own below, where there is any. Empty below two rows."""
    curve = [(row["k"], row["silhouette"]) for row in rows if row.get("silhouette") is not None]
    stable = [(row["k"], row["stability"]) for row in rows if row.get("stability") is not None]
    if len(curve) < 2:
        return Markup()
    axis = _Axis.of([k for k, _ in curve], chosen)
    bottom = TOP + CURVE_HEIGHT
    parts = [_panel(curve, axis, TOP, CURVE_HEIGHT, "mean silhouette", "curve")]
    if len(stable) > 1:
        parts.append(_panel(stable, axis, bottom + BETWEEN, STABILITY_HEIGHT, "stability", "stable"))
        bottom += BETWEEN + STABILITY_HEIGHT
    parts.append(axis.ticks(bottom + 18))
    label = f"Mean silhouette for {curve[0][0]:,} to {curve[-1][0]:,} clusters; {chosen:,} was chosen."
    return Markup('<svg class="chart" viewBox="0 0 {} {}" role="img" aria-label="{}">{}</svg>').format(
        WIDTH, bottom + 44, label, Markup().join(parts)
    )


def blade(silhouettes: Float32, least: float, most: float, mean: float) -> Markup:
    """A cluster's silhouettes, sorted, as a small knife; a line at the mean of all.

    Args:
        least, most: the axis, the same for all clusters.
    """
    span = max(most - least, 1e-6)

    def x(value: float) -> float:
        return (min(max(value, least), most) - least) / span * BLADE_WIDTH

    step = BLADE_HEIGHT / BLADE_STEPS
    values = [x(value) for value in np.quantile(silhouettes, np.linspace(1, 0, BLADE_STEPS))]
    edge = " ".join(f"{at:.1f},{row * step:.1f} {at:.1f},{(row + 1) * step:.1f}" for row, at in enumerate(values))
    return Markup(
        '<svg class="blade" viewBox="0 0 {w} {h}" preserveAspectRatio="none" aria-hidden="true">'
        '<polygon points="{zero:.1f},0 {edge} {zero:.1f},{h}"/><path d="M{zero:.1f} 0V{h}" class="zero"/>'
        '<path d="M{mean:.1f} 0V{h}" class="mean"/></svg>'
    ).format(w=BLADE_WIDTH, h=BLADE_HEIGHT, zero=x(0.0), edge=edge, mean=x(mean))


@dataclass(frozen=True, slots=True)
class _Axis:
    """The numbers of clusters along the chart; logarithmic where the largest dwarfs the smallest."""

    least: int
    most: int
    chosen: int
    scale: Callable[[float], float]

    @classmethod
    def of(cls, ks: Sequence[int], chosen: int) -> _Axis:
        return cls(min(ks), max(ks), chosen, math.log if max(ks) > WIDE_RANGE else float)

    def x(self, k: int) -> float:
        first, last = self.scale(self.least), self.scale(self.most)
        return LEFT + 6 + (self.scale(k) - first) / max(last - first, 1e-9) * (WIDTH - LEFT - RIGHT - 12)

    def ticks(self, y: int) -> Markup:
        step = next((step for step in (1, 2, 5, 10) if self.most / step <= 12), 20)
        wanted = ROUND_KS if self.most > WIDE_RANGE else range(0, self.most + 1, step)
        shown = [k for k in wanted if self.least <= k <= self.most and abs(self.x(k) - self.x(self.chosen)) > 26]
        tick = Markup('<text class="tick k{}" x="{:.1f}" y="{}">{:,}</text>')
        name = Markup('<text class="tick" x="{}" y="{}">number of clusters</text>').format(WIDTH - RIGHT, y + 20)
        return Markup().join(
            [
                *(tick.format("", self.x(k), y, k) for k in shown),
                tick.format(" chosen", self.x(self.chosen), y, self.chosen),
                name,
            ]
        )


def _panel(points: Sequence[tuple[int, float]], axis: _Axis, top: int, height: int, name: str, kind: str) -> Markup:
    ticks = _round_values(points) if kind == "curve" else [0.0, 0.5, 1.0]
    low, high = ticks[0], ticks[-1]

    def y(value: float) -> float:
        return top + height * (1 - (value - low) / (high - low))

    grid = Markup('<path class="grid" d="M{} {:.1f}H{}"/><text class="tick" x="{}" y="{:.1f}">{:g}</text>')
    dot = Markup('<circle class="{}" data-k="{}" cx="{:.1f}" cy="{:.1f}" r="{}"><title>{}</title></circle>')
    parts = [Markup('<text class="name" x="{}" y="{}">{}</text>').format(LEFT, top - 12, name)]
    parts += [grid.format(LEFT, y(tick), WIDTH - RIGHT, LEFT - 8, y(tick) + 4, tick) for tick in ticks]
    parts.append(Markup('<path class="chosen-line" d="M{:.1f} {}V{}"/>').format(axis.x(axis.chosen), top, top + height))
    line = " ".join(f"{axis.x(k):.1f},{y(value):.1f}" for k, value in points)
    parts.append(Markup('<polyline class="{}" points="{}"/>').format(kind, line))
    for k, value in points:
        is_chosen = k == axis.chosen
        style, radius = (f"{kind} chosen", 5.5) if is_chosen else (kind, 2.2)
        parts.append(dot.format(style, k, axis.x(k), y(value), radius, f"{k:,} clusters: {name} {value:.3f}"))
    return Markup().join(parts)


def _round_values(points: Sequence[tuple[int, float]]) -> list[float]:
    """Two to seven round ticks around the values."""
    low, high = min(value for _, value in points), max(value for _, value in points)
    span = max(high - low, 0.02)
    step = next((step for step in (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2) if span / step <= 5), 0.5)
    first, last = math.floor(low / step), math.ceil(high / step)
    return [round(number * step, 6) for number in range(first, max(last, first + 1) + 1)]
