"""Draw how memory goes while `shoal cluster` works, from results/scale.json: docs/images/memory.png.

python bench/scale_figure.py
"""

from __future__ import annotations

from pathlib import Path

import matplotlib as mpl
import matplotlib.pyplot as plt

from scale import IN_ORDER, curve_of, read_results

TARGET = Path(__file__).parent.parent / "docs/images/memory.png"
LEAST_SECONDS = 8.0  # of a stage whose name is written


def main() -> None:
    mpl.use("agg")
    sizes = read_results()
    figure, all_axes = plt.subplots(len(sizes), 1, figsize=(9, 2.6 * len(sizes)), layout="constrained")
    for axes, (size, kept) in zip(all_axes, sizes.items(), strict=True):
        found = kept["cluster"]
        curve = curve_of(found["curve"])
        axes.fill_between(*zip(*curve, strict=True), color="#1f6f8b", alpha=0.85, linewidth=0)
        axes.axhline(2000, color="#99400d", linewidth=0.8, linestyle="--")
        stages = [(name, found["stages"][name]) for name in IN_ORDER if name in found["stages"]]
        at = found["seconds"] - sum(seconds for _, seconds in stages)
        for name, seconds in stages:
            axes.axvline(at, color="black", linewidth=0.4)
            if seconds > max(LEAST_SECONDS, found["seconds"] / 22):
                axes.text(at + seconds / 2, 2080, name, ha="center", fontsize=8)
            at += seconds
        axes.set(
            xlim=(0, found["seconds"]), ylim=(0, 2300), ylabel="MB", title=f"{int(size):,} images", xlabel="seconds"
        )
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(TARGET, dpi=130)
    print(TARGET)


if __name__ == "__main__":
    main()
