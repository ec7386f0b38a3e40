"""Damaged and hostile inputs, made of sound ones: each is read, or refused in words.

    python bench/fuzz.py --count 2000                              # all sections
    python bench/fuzz.py images --count 20000 --seed 1
    python bench/fuzz.py recipes --only 117 --seed 1               # one input again, with its traceback

Anything but a result or a ShoalError is a fault: another exception, a warning, no answer in 10 s, over 2 GB of memory.

Inputs are sound files with a few bytes, lines or values changed, drawn from the seed and the input's number alone. That
is plain mutation, not hypothesis: what is wanted are whole files of many formats, any of which can be made again by its
number, in a process of its own whose time and memory somebody else watches; shrinking is done by hand. The property
tests of the suite use hypothesis where a text or a value is the whole input.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import resource
import select
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fuzz_sections import SECTIONS

HERE = Path(__file__).resolve()
sys.path.insert(0, str(HERE.parent.parent / "tests"))  # what makes small runs there makes the sound ones here

SECONDS, MEGABYTES = 10.0, 2048
START_SECONDS = 300.0  # imports, and the making of sound inputs
ADDRESS_SPACE = 24 << 30  # so that a bomb ends the worker, not the machine


def work(name: str, seed: int, start: int, stop: int, is_debug: bool) -> None:
    """Read inputs `start` to `stop` and tell of each on standard output, a line of JSON each."""
    answer, sys.stdout = sys.stdout, sys.stderr
    resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_SPACE, ADDRESS_SPACE))
    with tempfile.TemporaryDirectory(prefix="shoal-fuzz-") as place:
        os.environ["SHOAL_STATE"] = place
        section = SECTIONS[name](Path(place, "inputs"))
        section.folder.mkdir()
        section.prepare()
        _tell(answer, {"ready": True})
        for number in range(start, stop):
            what, read = section.make(random.Random(f"{name} {seed} {number}"))
            _tell(answer, {"begun": number, "what": what})
            _tell(answer, {"done": number, "what": what, **_outcome(read, is_debug)})


def _outcome(read: Callable[[], object], is_debug: bool) -> dict[str, Any]:
    from shoal.errors import ShoalError

    _forget_peak()
    began = time.perf_counter()
    fault = None
    try:
        with warnings.catch_warnings(record=True) as told:  # as errors they would be caught, and hide what comes after
            warnings.simplefilter("always")
            read()
        outcome = "read"
        fault = f"a warning: {' '.join(str(told[0].message).split())[:200]}" if told else None
    except ShoalError as error:
        outcome = type(error).__name__
        if "\n" in str(error) or len(str(error)) > 2000:
            fault = f"an error of more than one line or 2,000 characters: {str(error)[:300]!r}"
    except BaseException as error:  # a fault, whatever it is
        outcome = "fault"
        fault = "".join(traceback.format_exception(error)) if is_debug else _short(error)
    return {"outcome": outcome, "fault": fault, "seconds": time.perf_counter() - began, "megabytes": _peak()}


def _short(error: BaseException) -> str:
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if "/shoal/" in frame.filename]
    where = f"{Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else "?"
    return f"{type(error).__name__} at {where}: {' '.join(str(error).split())[:160]}"


def _forget_peak() -> None:
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def _peak() -> int:
    """Most memory in use since then, MB."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) // 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


def _tell(answer: Any, line: dict[str, Any]) -> None:
    answer.write(json.dumps(line) + "\n")
    answer.flush()


# -- who watches it ----------------------------------------------------------------------------------------------------


@dataclass
class Tally:
    outcomes: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)
    slowest: float = 0.0
    largest: int = 0


def watch(name: str, seed: int, start: int, count: int, is_debug: bool) -> Tally:
    """Have inputs read by a process of its own; one that dies or does not answer is a fault, and another goes on."""
    tally, number = Tally(), start
    while number < start + count:
        number = _watch_one(name, seed, number, start + count, tally, is_debug)
    return tally


def _watch_one(name: str, seed: int, number: int, stop: int, tally: Tally, is_debug: bool) -> int:
    command = [sys.executable, str(HERE), name, "--seed", str(seed), "--worker", str(number), str(stop)]
    what, limit = "", START_SECONDS
    with subprocess.Popen(
        command + ["--debug"] * is_debug,
        stdout=subprocess.PIPE,
        stderr=None if is_debug else subprocess.DEVNULL,
        text=True,
        bufsize=1,
    ) as worker:
        assert worker.stdout is not None
        while number < stop:
            if not select.select([worker.stdout], [], [], limit)[0]:
                worker.kill()
                tally.faults.append(f"{name} {number} ({what}): no answer in {limit:.0f} s")
                tally.outcomes["hang"] += 1
                return number + 1
            text = worker.stdout.readline()
            if not text:
                tally.faults.append(f"{name} {number} ({what}): the process died, code {worker.wait()}")
                tally.outcomes["death"] += 1
                return number + 1
            line = json.loads(text)
            limit = SECONDS
            if "begun" in line:
                what = line["what"]
            elif "done" in line:
                _count(line, name, tally)
                number = line["done"] + 1
    return number


def _count(line: dict[str, Any], name: str, tally: Tally) -> None:
    tally.outcomes[line["outcome"]] += 1
    tally.slowest = max(tally.slowest, line["seconds"])
    tally.largest = max(tally.largest, line["megabytes"])
    where = f"{name} {line['done']} ({line['what']})"
    if line["fault"]:
        tally.faults.append(f"{where}: {line['fault']}")
    if line["megabytes"] > MEGABYTES:
        tally.faults.append(f"{where}: {line['megabytes']:,} MB of memory")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sections", nargs="*", choices=[[], *SECTIONS], metavar="SECTION", help=", ".join(SECTIONS))
    parser.add_argument("--count", type=int, default=2000, help="inputs of each section")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", type=int, help="this input alone, with its traceback")
    parser.add_argument("--worker", type=int, nargs=2, help=argparse.SUPPRESS)
    parser.add_argument("--debug", action="store_true", help="tracebacks, and what libraries print")
    asked = parser.parse_args()
    if asked.worker:
        start, stop = asked.worker
        work(asked.sections[0], asked.seed, start, stop, asked.debug)
        return
    start, count = (0, asked.count) if asked.only is None else (asked.only, 1)
    print(
        "| section | inputs | read | refused | faults | slowest, s | most memory, MB |\n|---|---|---|---|---|---|---|",
        flush=True,
    )
    faults = []
    for name in asked.sections or list(SECTIONS):
        tally = watch(name, asked.seed, start, count, asked.debug or asked.only is not None)
        refused = sum(times for outcome, times in tally.outcomes.items() if outcome.endswith("Error"))
        row = (
            name,
            count,
            tally.outcomes["read"],
            refused,
            len(tally.faults),
            f"{tally.slowest:.2f}",
            f"{tally.largest:,}",
        )
        print("| " + " | ".join(map(str, row)) + " |", flush=True)
        faults += tally.faults
    print("\n".join(faults[:200]))
    raise SystemExit(1 if faults else 0)


if __name__ == "__main__":
    main()
