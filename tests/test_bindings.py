"""What importing OpenVINO must not do: report to anybody, or hang when two threads begin at once."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

SILENT = """
import sys
from shoal.embed.bindings import load_openvino
openvino = load_openvino()
assert callable(openvino.convert_model)
assert "openvino_telemetry" not in sys.modules
"""

TWO_THREADS = """
import os, sys, threading
import numpy as np
from shoal.embed.bindings import load_openvino

openvino = load_openvino()
pixels = openvino.opset13.parameter([1, 4], openvino.Type.u8)
model = openvino.Model([openvino.opset13.convert(pixels, "f32")], [pixels])
compiled = openvino.Core().compile_model(model, "CPU", {"NUM_STREAMS": "2"})
requests = [compiled.create_infer_request() for _ in range(2)]
together = threading.Barrier(2)
sys.setswitchinterval(1e-6)

def begin(request):
    together.wait()
    request.infer({0: np.zeros((1, 4), np.uint8)}, share_inputs=True)
    request.get_output_tensor().data

threads = [threading.Thread(target=begin, args=(request,)) for request in requests]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
"""


def test_openvino_is_loaded_without_its_telemetry(tmp_path: Path) -> None:
    _run(SILENT, tmp_path)
    assert list(tmp_path.iterdir()) == []  # its telemetry would keep a number for this machine here


@pytest.mark.parametrize("attempt", range(4))
def test_first_arrays_of_two_threads_do_not_deadlock(attempt: int, tmp_path: Path) -> None:
    """Without the table made beforehand, 14 of 30 such processes hung."""
    _run(TWO_THREADS, tmp_path)


def _run(program: str, home: Path) -> None:
    environment = {"HOME": str(home), "USERPROFILE": str(home), "LOCALAPPDATA": str(home), "PATH": ""}
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60, env=environment)
