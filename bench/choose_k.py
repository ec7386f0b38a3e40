"""How many clusters `auto` finds where the kinds are known, which other numbers it tells, and whether it doubts.

    python bench/choose_k.py cifar10=bench.out/cifar10/efficientnet_lite0-default/train.shoal tinyimagenet-20=…

Only runs of CIFAR-10's training images and of tinyimagenet-20 may be given, as for learned_parts.py.
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import numpy as np
import numpy.typing as npt

from machine import write_result
from shoal.cluster.number.choose_k import choose
from shoal.cluster.space import fit_space, points_of
from shoal.config import ClusterCounts
from shoal.embeddings import EmbeddingStore
from subsets import LabelledRun, even, long_tail

PARTS: dict[str, dict[str, tuple[npt.NDArray[np.int64], int]]] = {  # sizes of the kinds, and how many draws
    "tinyimagenet-20": {
        "20 kinds": (even(20, 10_000), 1),
        "10 kinds": (even(10, 5_000), 4),
        "5 kinds": (even(5, 2_500), 4),
        "20 kinds, 500 to 10": (long_tail(20, 500, 10), 3),
    },
    "cifar10": {
        "10 kinds": (even(10, 10_000), 1),
        "5 kinds": (even(5, 6_000), 3),
        "2 kinds": (even(2, 4_000), 2),
        "10 kinds, 5,000 to 50": (long_tail(10, 5_000, 50), 3),
    },
}
WITHIN = 0.25


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", metavar="NAME=RUN")
    asked = parser.parse_args()
    rows: list[dict[str, Any]] = []
    print("| set | kinds | chosen | also told | no one number | a number told within a quarter | s |")
    print("|---|---:|---:|---|---|---|---:|")
    for name, folder in (text.split("=", 1) for text in asked.runs):
        run = LabelledRun(folder)
        for part, (sizes, draws) in PARTS[name].items():
            for draw in range(draws):
                rows.append({"set": f"{name}, {part}", "draw": draw, **looked_at(run, sizes, draw)})
                print(line(rows[-1]), flush=True)
    write_result("choose_k", {"rows": rows})


def looked_at(run: LabelledRun, sizes: npt.NDArray[np.int64], draw: int) -> dict[str, Any]:
    ids, _ = run.part(sizes, draw)
    store = EmbeddingStore.open(run.run.embeddings)
    space = fit_space(store, ids, "cosine", np.random.default_rng([0, 3]))
    points, _ = points_of(space, store, ids)
    began = time.perf_counter()
    found = choose(points, ClusterCounts(), 0)
    return {
        "kinds": len(sizes),
        "chosen": found.chosen.k,
        "told": list(found.runners_up),
        "doubts": "no one number" in found.sentence,
        "seconds": time.perf_counter() - began,
        "curve": [[one.k, one.silhouette, one.stability.rand, one.coding_length] for one in found.candidates],
    }


def line(row: dict[str, Any]) -> str:
    covered = any(abs(k / row["kinds"] - 1) <= WITHIN for k in (row["chosen"], *row["told"]))
    told, doubts = ", ".join(map(str, row["told"])) or "–", "yes" if row["doubts"] else ""
    return (
        f"| {row['set']} | {row['kinds']} | {row['chosen']} | {told} | {doubts} | {'yes' if covered else 'no'} "
        f"| {row['seconds']:.0f} |"
    )


if __name__ == "__main__":
    main()
