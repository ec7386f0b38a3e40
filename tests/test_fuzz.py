"""A short form of bench/fuzz.py: what is damaged is read or refused in words, in bounded time and memory."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from patience import PATIENCE

SCRIPT = Path(__file__).parent.parent / "bench" / "fuzz.py"


@pytest.mark.skipif(sys.platform == "win32", reason="the script limits memory as POSIX has it")
@pytest.mark.parametrize(
    ("sections", "count"), [(("images", "manifests", "journals", "recipes"), 100), (("run-files",), 50)]
)
def test_damaged_inputs_are_read_or_refused_in_words(sections: tuple[str, ...], count: int) -> None:
    done = subprocess.run(
        [sys.executable, str(SCRIPT), *sections, "--count", str(count)],
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE,
    )
    assert done.returncode == 0, done.stdout + done.stderr
