"""What importing OpenVINO must not do: report to anybody, or hang when two threads begin at once."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from patience import PATIENCE

SILENT = """
import sys
from shoal.encoder.bindings import load_openvino
openvino = load_openvino()
assert callable(openvino.convert_model)
assert "openvino_telemetry" not in sys.modules
"""

# The bindings make their table with a call into numpy, NumpyVersion: whoever makes it here lets the other come first.
# The other, once it has come, keeps the GIL for itself.
TWO_THREADS = """
import sys, threading
import numpy as np
from shoal.encoder.bindings import load_openvino

openvino = load_openvino()
pixels = openvino.opset13.parameter([1, 4], openvino.Type.u8)
model = openvino.Model([openvino.opset13.convert(pixels, "f32")], [pixels])
compiled = openvino.Core().compile_model(model, "CPU", {"NUM_STREAMS": "2"})
comes = [threading.Event(), threading.Event()]
begin = np.lib.NumpyVersion.__init__

def let_the_other_come(self, version):
    for event in comes:
        event.wait()
    begin(self, version)

np.lib.NumpyVersion.__init__ = let_the_other_come
sys.setswitchinterval(1000)
found = []

def read(request, event):
    event.set()
    found.append(request.get_output_tensor().data.shape)

threads = [threading.Thread(target=read, args=(compiled.create_infer_request(), event)) for event in comes]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
assert found == [(1, 4), (1, 4)]
"""


def test_openvino_is_loaded_without_its_telemetry(tmp_path: Path) -> None:
    _run(SILENT, tmp_path)
    assert list(tmp_path.iterdir()) == []  # its telemetry would keep a number for this machine here


def test_first_arrays_of_two_threads_do_not_deadlock(tmp_path: Path) -> None:
    _run(TWO_THREADS, tmp_path)


def _run(program: str, home: Path) -> None:
    environment = {"HOME": str(home), "USERPROFILE": str(home), "LOCALAPPDATA": str(home), "PATH": ""}
    subprocess.run([sys.executable, "-c", program], check=True, timeout=PATIENCE, env=environment)
