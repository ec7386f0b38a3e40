"""What a network from anywhere may cost: memory, operators, numbers, time. More of one is told in a sentence."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import numpy as np
import pytest

from onnx_files import CONVOLUTION, DIM, FLATTEN, POOL, RELU, graph, kernel, model, node, put, tensor, value
from shoal.encoder import making, memory, onnx_network
from shoal.encoder.making import Wanted
from shoal.errors import WeightsError, WorkError
from shoal.rundir import digest_file

NUMBERS = {"many": [1 << 27], "lots": [1, 1, 500, 500], "one": [1], "times": [1 << 33], "huge": [1 << 33]}
limited = pytest.mark.skipif(sys.platform != "linux", reason="only Linux refuses a process address space")


def ended(*nodes: bytes, output: str = "end") -> bytes:
    """The small network with other ends than its own."""
    tensors = [tensor("kernel", kernel()), *(tensor(name, np.array(one)) for name, one in NUMBERS.items())]
    ends = [value("pixels", ["n", 3, 32, 32])], [value(output, ["n", DIM])]
    return model(graph([CONVOLUTION, RELU, POOL, FLATTEN, *nodes], *ends, tensors))


def wanted(path: Path) -> Wanted:
    said = {"input_mean": [0.5] * 3, "input_std": [0.5] * 3}
    return Wanted(path.name, "default", "crop", str(path), said=said, digest=digest_file(path))


ONES = put(5, put(1, 1) + put(2, 7) + put(9, np.array([1]).tobytes())) + put(20, 4)


@limited
@pytest.mark.parametrize(
    "made",
    [
        [node("ConstantOfShape", "huge", "big", value=ONES), node("ReduceSum", "big", "shape", keepdims=1)],
        [node("Tile", "one times", "shape")],
        [node("Expand", "one times", "big"), node("ReduceSum", "big", "shape", keepdims=1)],
    ],
)
def test_memory_that_is_asked_for_before_any_size_is_known_is_refused(made: list[bytes], tmp_path: Path) -> None:
    """Some hundred bytes that ask for 64 GiB, to learn the shape of something."""
    path = tmp_path / "a.onnx"
    path.write_bytes(ended(*made, node("Reshape", "features shape", "end")))
    with pytest.raises(WeightsError, match=r"a\.onnx cannot be read by OpenVINO: it takes more memory than a network"):
        making.make(wanted(path), tmp_path / "cache")


def test_constants_are_made_of_what_is_there(tmp_path: Path) -> None:
    made = [node("ConstantOfShape", "many", "a"), node("Sin", "a", "b"), node("Sin", "b", "c")]
    sums = [node("ReduceSum", name, f"{name}_sum", keepdims=0) for name in ("a", "b", "c")]
    added = [node("Add", "features a_sum", "x"), node("Add", "x b_sum", "y"), node("Add", "y c_sum", "end")]
    with pytest.raises(WeightsError, match=r"a\.onnx makes 1,610,[\d,]+ bytes of its own [\d,]+, without images"):
        onnx_network.read(tmp_path / "a.onnx", ended(*made, *sums, *added), None, None)
    assert onnx_network.read(tmp_path / "a.onnx", ended(made[0], sums[0], added[0], output="x"), None, None).dim == DIM


def test_the_numbers_of_a_network_are_bounded_in_all(tmp_path: Path) -> None:
    wide = [node("Tile", "map lots", "wide0"), *(node("Sin", f"wide{n}", f"wide{n + 1}") for n in range(200))]
    last = node("ReduceMean", "wide200", "end", axes=[2, 3], keepdims=0)
    with pytest.raises(WeightsError, match=r"a\.onnx makes tensors of 90,4\d\d,.* numbers; expected at most 68,719,"):
        onnx_network.read(tmp_path / "a.onnx", ended(*wide, last), None, None)


@limited
def test_no_more_memory_is_given_than_was_said_and_then_as_before() -> None:
    with memory.at_most(1 << 28):
        assert len(bytearray(1 << 20)) == 1 << 20
        with pytest.raises(MemoryError):
            bytearray(1 << 30)
    assert len(bytearray(1 << 30)) == 1 << 30


def program(path: Path, text: str) -> str:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return str(path)


@pytest.mark.skipif(os.name == "nt", reason="no signals, no shell")
@pytest.mark.parametrize(
    ("does", "told"),
    [
        ("exit 3", r"failed \(exit code 3\)"),
        ("kill -ABRT $$", r"failed \(its process ended by SIGABRT; it may have taken too much memory\)"),
        ("kill -ILL $$", r"failed \(its process ended by SIGILL\)"),
        ("exec tail -f /dev/null", r"took over 0\.2 seconds and was stopped; expected a network that this machine"),
    ],
)
def test_a_reader_that_dies_or_never_ends_is_told(
    does: str, told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever a file does to its reader, it does in a process of its own."""
    monkeypatch.setattr(sys, "executable", program(tmp_path / "reader", does))
    monkeypatch.setattr(making, "LONGEST", 0.2)
    with pytest.raises(WorkError, match=rf"^preparing a\.onnx {told}"):
        making.make(Wanted("a.onnx", "default", "crop", str(tmp_path / "a.onnx"), said={}), tmp_path / "cache")
    assert not (tmp_path / "cache").exists()
