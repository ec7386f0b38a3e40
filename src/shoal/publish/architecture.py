"""The way from an image to its cluster, as a picture: the encoder's parts, the space, what stands for the clusters."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from shoal.cluster.kmeans import COSINE
from shoal.config import is_clip
from shoal.corrections.model import CorrectedModel
from shoal.encoder.parts import Part
from shoal.encoder.spec import EncoderSpec
from shoal.report import figures
from shoal.report.figures import ACCENT, INK, PAPER, RULE, SOFT
from shoal.report.plotting import Axes, FancyBboxPatch

WIDTH: Final = 8.2  # inches
MARGIN: Final = 0.25
ROW: Final = 0.32  # of a part of the encoder
BOX: Final = 0.62  # of the image, and of the answer
HEAD: Final = 0.42  # of a frame's title
ARROW: Final = 0.34
FEWEST_OMITTED: Final = 3
MOST_PARTS: Final = 22  # more are not told apart; those in the middle are left out
TINT: Final = "#f4f6f8"
LONGEST: Final = 64  # letters of a row's middle


@dataclass(frozen=True, slots=True)
class Frame:
    """A titled box of the picture: rows of (name, what, shape)."""

    title: str
    below: str
    rows: list[tuple[str, str, str]]


def draw(spec: EncoderSpec, parts: Sequence[Part], model: CorrectedModel, origin: str, is_head: bool) -> bytes:
    """The picture as PNG.

    Args:
        origin: in a few words, where the encoder comes from.
        is_head: the clusters were learned as a linear head, not as centroids.
    """
    space = Frame("Space", "where images are compared", words_of_space(spec, model))
    frames = [_encoder_frame(spec, parts, origin), space, _cluster_frame(model, is_head)]
    inner = [HEAD + ROW * len(frame.rows) + 0.1 for frame in frames]
    height = 2 * MARGIN + 2 * BOX + sum(inner) + ARROW * (len(frames) + 1)
    with figures.style():
        figure, (panel,) = figures.canvas(WIDTH, height, (0, 0, WIDTH, height))
        panel.set_xlim(0, WIDTH)
        panel.set_ylim(height, 0)
        panel.set_axis_off()
        top = MARGIN
        _box(panel, top, "An image", _preparation(spec), f"{spec.size} × {spec.size} × 3")
        top += BOX
        for frame, tall in zip(frames, inner, strict=True):
            _arrow(panel, top)
            top += ARROW
            _frame(panel, frame, top, tall)
            top += tall
        _arrow(panel, top)
        _box(panel, top + ARROW, "Cluster", "with confidence, the runner-up, and whether it is unknown", "")
        return figures.png(figure)


def words_of_space(spec: EncoderSpec, model: CorrectedModel) -> list[tuple[str, str, str]]:
    """What is done to features before they are compared: rows of (name, what, shape)."""
    space = model.model.space
    if space.basis is None:
        return [("Origin", "moved, so that distances are between the features themselves", f"{spec.dim:,}")]
    dims = space.basis.shape[1]
    whitened = "whole" if space.consensus is not None else "half"
    rows = [
        ("Scaling", "signed square root, unit length, centred", f"{spec.dim:,}"),
        ("Directions", f"{dims} principal ones, {whitened} whitened, unit length", f"{dims:,}"),
    ]
    if space.consensus is not None:
        _, heads, k = space.consensus.weights.shape
        rows[-1] = ("Directions", f"{dims} principal ones, {whitened} whitened", f"{dims:,}")
        rows.append(("Consensus", f"of {heads} learned heads of {k} clusters each, unit length", f"{space.dims:,}"))
    return rows


def number_of_clusters(model: CorrectedModel) -> int:
    return len(set(model.numbers.tolist()))


# -- the frames --------------------------------------------------------------------------------------------------------


def _encoder_frame(spec: EncoderSpec, parts: Sequence[Part], origin: str) -> Frame:
    shown = [(part.name, _what(part), _sides(part.shape)) for part in parts]
    if len(shown) > MOST_PARTS + FEWEST_OMITTED:
        half, left = MOST_PARTS // 2, len(shown) - MOST_PARTS
        between = sum(part.parameters for part in parts[half : len(parts) - half])
        shown = [*shown[:half], ("…", f"{left} more parts, {_count(between)}", ""), *shown[-half:]]
    total = sum(part.parameters for part in parts)
    gives = {
        "default": "its pooled features",
        "best": "its pooled features, mean of the image and its mirror image",
        "map": "its last map, flattened",
        "logits": "its classifier's output",
        "probabilities": "its classifier's probabilities",
    }[spec.features]
    if is_clip(spec.architecture):
        gives = "its output, in the space of texts"
    if spec.is_onnx:
        gives = "its output, a row an image"
    rows = [*shown, ("Features", gives, f"{spec.dim:,}")]
    return Frame(f"Encoder: {spec.backbone.removeprefix('shoal:')}", f"{_count(total)}; {origin}", rows)


def _cluster_frame(model: CorrectedModel, is_head: bool) -> Frame:
    clusters, centroids = number_of_clusters(model), len(model.numbers)
    near = "cosine to each" if model.model.space.metric == COSINE else "distance to each"
    if is_head:
        near += "; they divide the space as the learned head does"
    if centroids > clusters:
        near += f"; {clusters:,} clusters have them, merged ones several"
    rows = [
        ("Sites" if is_head else "Centroids", near, f"{centroids:,}"),
        ("Confidence", "softmax over them", f"{clusters:,}"),
        ("Unknown", "farther out than nearly all of the cluster's own images", ""),
    ]
    return Frame(f"{clusters:,} clusters", "what images are near to", rows)


def _what(part: Part) -> str:
    return f"{part.kind}, {_count(part.parameters)}" if part.parameters else part.kind


def _preparation(spec: EncoderSpec) -> str:
    if spec.resize == "squash":
        return "upright, squashed to a square, normalised"
    part = "" if spec.crop_fraction >= 1 else f" of {spec.crop_fraction:.0%}"
    return f"upright, shorter side scaled, centre crop{part}, normalised"


def _count(parameters: int) -> str:
    if parameters >= 1_000_000:
        return f"{parameters / 1e6:.1f} M parameters"
    return f"{parameters / 1e3:.0f} k parameters" if parameters >= 10_000 else f"{parameters:,} parameters"


def _sides(shape: Sequence[int]) -> str:
    if len(shape) == 2:
        return f"{shape[0]:,} tokens × {shape[1]:,}"
    return " × ".join(f"{side:,}" for side in shape)


# -- drawing -----------------------------------------------------------------------------------------------------------


def _box(panel: Axes, top: float, name: str, what: str, shape: str) -> None:
    _rounded(panel, top, BOX, PAPER, ACCENT)
    _line(panel, top + BOX / 2, (name, what, shape), bold=True)


def _frame(panel: Axes, frame: Frame, top: float, tall: float) -> None:
    _rounded(panel, top, tall, TINT, RULE)
    middle = top + HEAD / 2 + 0.03
    panel.text(MARGIN + 0.2, middle, frame.title, va="center", fontsize=10.5, weight="bold", color=INK)
    panel.text(WIDTH - MARGIN - 0.2, middle, frame.below, va="center", ha="right", fontsize=8.5, color=SOFT)
    for number, row in enumerate(frame.rows):
        centre = top + HEAD + ROW * (number + 0.5)
        panel.plot((MARGIN + 0.2, WIDTH - MARGIN - 0.2), [centre - ROW / 2] * 2, color=RULE, linewidth=0.6)
        _line(panel, centre, row, bold=False)


def _line(panel: Axes, centre: float, row: tuple[str, str, str], bold: bool) -> None:
    name, what, shape = row
    size, weight = (10.5, "bold") if bold else (8.5, "normal")
    panel.text(MARGIN + 0.2, centre, name, va="center", fontsize=size, weight=weight, color=INK)
    panel.text(MARGIN + 1.75, centre, _cut(what), va="center", fontsize=8.5, color=SOFT)
    panel.text(WIDTH - MARGIN - 0.2, centre, shape, va="center", ha="right", fontsize=8.5, color=INK)


def _rounded(panel: Axes, top: float, tall: float, face: str, edge: str) -> None:
    box = FancyBboxPatch(
        (MARGIN, top),
        WIDTH - 2 * MARGIN,
        tall,
        boxstyle="round,pad=0,rounding_size=0.09",
        facecolor=face,
        edgecolor=edge,
        linewidth=1.1,
    )
    panel.add_patch(box)


def _arrow(panel: Axes, top: float) -> None:
    style = {"arrowstyle": "-|>", "color": SOFT, "linewidth": 1.2, "shrinkA": 0, "shrinkB": 0}
    panel.annotate("", (WIDTH / 2, top + ARROW - 0.03), (WIDTH / 2, top + 0.03), arrowprops=style)


def _cut(text: str) -> str:
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 1]}…"
