"""A newcomer's first minutes: from a clone to clusters, Shoal beside tasnif, in turns on the same machine.

    python bench/first_minutes.py [--repeats 1]

Shoal: `git clone` of this repository (what is committed), then `make demo`. tasnif: a new virtual environment,
`pip install tasnif`, then its clustering of the same images into as many clusters, with the weights at hand, which its
users would have to fetch. pip's cache of wheels is off for both; the packages come from wherever pip is set to look.
The sizes of both environments are told too, and Shoal's after `pip install .` as anybody would type it.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

import pyarrow.parquet as pq

from end_to_end import TASNIF, timm_weights
from machine import describe, machine_line, write_result
from photos import WORK
from processes import elsewhere, run_process
from shoal.demo import demo_images

CLUSTERS = "10"
GOAL = 1 / 3  # of tasnif's time
REPOSITORY = Path(__file__).parents[1]
HERE = Path(__file__).parent


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=1)
    asked = parser.parse_args()
    WORK.mkdir(exist_ok=True)
    weights = elsewhere(timm_weights)
    found: dict[str, list[dict[str, float]]] = {"tasnif": [], "shoal": []}
    for _ in range(asked.repeats):
        for name, run in (("tasnif", lambda place: _tasnif(place, weights)), ("shoal", _shoal)):
            with tempfile.TemporaryDirectory(dir=WORK) as place:
                steps = run(Path(place))
            found[name].append({**steps, "seconds": round(sum(steps.values()), 1)})
            print(name, found[name][-1], flush=True)
    with tempfile.TemporaryDirectory(dir=WORK) as place:
        sizes = {"shoal": _installed_mb(Path(place), str(REPOSITORY))}
    with tempfile.TemporaryDirectory(dir=WORK) as place:
        sizes["tasnif"] = _installed_mb(Path(place), f"tasnif=={TASNIF}")
    parts = [own["seconds"] / peer["seconds"] for own, peer in zip(found["shoal"], found["tasnif"], strict=True)]
    told = {"part_of_tasnif": [round(part, 3) for part in parts], "goal": round(GOAL, 3), "installed_mb": sizes}
    write_result("first_minutes", {"steps": found, **told})
    print(f"{told}\n{machine_line(describe())}")


def _shoal(place: Path) -> dict[str, float]:
    clone = place / "shoal"
    steps = {"git clone": _seconds("git", "clone", "--quiet", str(REPOSITORY), str(clone))}
    return {**steps, "make demo": _seconds("make", "-C", str(clone), "demo", SHOAL_CACHE=str(place / "cache"))}


def _tasnif(place: Path, weights: Path) -> dict[str, float]:
    images, venv = place / "images", place / "venv"
    images.mkdir()
    for number, data in enumerate(pq.read_table(demo_images())["image"].to_pylist()):
        (images / f"{number:04d}.png").write_bytes(data)
    program, out = str(HERE / "tasnif_cluster.py"), str(place / "out")
    return {
        "venv": _seconds(sys.executable, "-m", "venv", str(venv)),
        "pip install": _seconds(str(venv / "bin" / "pip"), "install", "--quiet", f"tasnif=={TASNIF}"),
        "cluster": _seconds(str(venv / "bin" / "python"), program, str(weights), str(images), CLUSTERS, out),
    }


def _installed_mb(place: Path, what: str) -> int:
    """Of a new environment with `what` in it, in MB of 2^20 bytes, as `du -sm` counts them."""
    _seconds(sys.executable, "-m", "venv", str(place / "venv"))
    _seconds(str(place / "venv" / "bin" / "pip"), "install", "--quiet", what)
    listed = subprocess.run(["du", "-sm", str(place / "venv")], stdout=subprocess.PIPE, check=True)
    return int(listed.stdout.split()[0])


def _seconds(*command: str, **environment: str) -> float:
    return round(run_process(command, PIP_NO_CACHE_DIR="1", **environment).seconds, 1)


if __name__ == "__main__":
    main()
