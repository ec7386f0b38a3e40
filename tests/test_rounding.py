"""What must not depend on how a matrix product rounds, with the products of processors other than this one."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

KERNELS = ("Haswell", "Nehalem")  # of OpenBLAS: AVX2, whose rows at a block's edge round otherwise, and SSE4.2


@pytest.mark.parametrize("kernel", KERNELS)
def test_equal_rows_are_treated_alike_with_the_products_of(kernel: str, tmp_path: Path) -> None:
    tests = [Path(__file__).with_name(name) for name in ("test_cluster.py", "test_neighbours.py")]
    options = ["-q", "-p", "no:cacheprovider", "-p", "no:xdist", f"--basetemp={tmp_path / 'own'}", "-m", "rounding"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options, *tests],
        env={**os.environ, "OPENBLAS_CORETYPE": kernel},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
