"""Bring what `shoal bench` measured into this folder: results/clustering.jsonl, and the tables of README.md.

    shoal bench cifar10 fashion-mnist tinyimagenet-20 cifar10-lt stamps --data DATASETS --out bench.out
    python bench/clustering.py bench.out

Without a folder the tables are written again from the results kept here.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from machine import RESULTS, describe, machine_line
from shoal.bench import results, table, transfer
from shoal.bench.results import Absence
from shoal.bench.transfer import Curve

README = Path(__file__).with_name("README.md")
KEPT = RESULTS / "clustering.jsonl"
BEGIN, END = "<!-- begin: made by bench/clustering.py -->", "<!-- end -->"
DIGITS = 6
RESULT, ABSENCE, CURVE, MACHINE = "result", "absence", "curve", "machine"
TABLED = ("task", "images", "classes", "neighbour_purity", "seconds", "facts", "fitted", "reported")
FACTS = ("k", "method", "noise", "runners_up")


def main() -> None:
    parser = argparse.ArgumentParser(description="Write the measured tables of bench/README.md.")
    parser.add_argument("out", type=Path, nargs="?", help="what --out of shoal bench was")
    out = parser.parse_args().out
    if out is not None:
        keep(out, KEPT)
    text = README.read_text(encoding="utf-8")
    README.write_text(replace_section(text, section(KEPT)), encoding="utf-8")
    print(f"{README}: {sum(1 for _ in KEPT.open(encoding='utf-8')) - 1} results, absences and curves")


def keep(out: Path, target: Path) -> None:
    """Keep what tables are made of, one JSON value a line, the machine first."""
    found: list[tuple[str, Any]] = [(MACHINE, describe((*table_packages(), "evoc", "hdbscan")))]
    found += [(RESULT, _shortened(result)) for result in results.read_all(out)]
    found += [(ABSENCE, asdict(absence)) for absence in results.read_absences(out)]
    found += [(CURVE, asdict(curve)) for curve in transfer.read_curves(out)]
    if len(found) == 1:
        raise SystemExit(f"{out} holds no results; expected what --out of shoal bench was")
    target.parent.mkdir(exist_ok=True)
    lines = [json.dumps({"kind": kind, **_rounded(value)}, ensure_ascii=False) for kind, value in found]
    target.write_text("\n".join(lines) + "\n", encoding="utf-8")


def table_packages() -> tuple[str, ...]:
    return ("shoal", "numpy", "scikit-learn", "torch", "timm", "openvino")


def section(kept: Path) -> str:
    """The tables, and the machine that they were measured on."""
    rows = [json.loads(line) for line in kept.read_text(encoding="utf-8").splitlines()]
    by_kind: dict[str, list[dict[str, Any]]] = {kind: [] for kind in (RESULT, ABSENCE, CURVE, MACHINE)}
    for row in rows:
        by_kind[row.pop("kind")].append(row)
    curves = [
        Curve(**{**row, "ks": tuple(row["ks"]), "silhouettes": tuple(row["silhouettes"])}) for row in by_kind[CURVE]
    ]
    absences = [Absence(**row) for row in by_kind[ABSENCE]]
    text = table.markdown(table.lines(by_kind[RESULT]), absences, curves, level=3)
    return f"{text}\n{machine_line(by_kind[MACHINE][0])}\n"


def replace_section(text: str, made: str) -> str:
    """`text` with what lies between the two marks replaced."""
    before, mark, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not mark or not end:
        raise SystemExit(f"{README} has no {BEGIN} … {END} to write between")
    return f"{before}{BEGIN}\n\n{made}\n{END}{after}"


def _shortened(result: dict[str, Any]) -> dict[str, Any]:
    kept = {name: result[name] for name in TABLED}
    kept["facts"] = {name: value for name, value in result["facts"].items() if name in FACTS}
    return kept


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return round(value, DIGITS)
    if isinstance(value, dict):
        return {name: _rounded(one) for name, one in value.items()}
    return [_rounded(one) for one in value] if isinstance(value, (list, tuple)) else value


if __name__ == "__main__":
    main()
