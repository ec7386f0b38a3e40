"""ONNX files are looked through before OpenVINO reads them: what is refused, and that nothing damaged gets by."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.onnx_files import (
    DIM,
    FLATTEN,
    attribute,
    graph,
    kernel,
    model,
    node,
    put,
    small,
    tensor,
    value,
    varint,
)

from shoal.encoder import onnx_file, onnx_network
from shoal.encoder.onnx_file import Contents
from shoal.encoder.protobuf import DamagedError, Walker
from shoal.errors import WeightsError

EXTERNAL = put(13, put(1, "location") + put(2, "../../etc/passwd")) + put(14, 1)
FOREIGN = node("Gelu", "pixels", "features", domain="com.microsoft")
GRAPH, GRAPHS, TENSOR, SPARSE = 6, 11, 5, 22  # fields of an attribute


def looked_through(path: Path, data: bytes) -> Contents:
    path.write_bytes(data)
    with onnx_file.opened(path) as view:
        return onnx_file.look_through(path, view)


def holding(*nodes: bytes, tensors: tuple[bytes, ...] = (), more: bytes = b"") -> bytes:
    ends = [value("pixels", ["n", 3, 32, 32])], [value("features", ["n", DIM])]
    return model(graph([FLATTEN, *nodes], *ends, tensors), more=more)


def inside(number: int, message: bytes) -> bytes:
    """A node with an attribute that holds a message."""
    return node("Identity", "pixels", "features", body=put(number, message))


def test_a_sound_one_is_counted(tmp_path: Path) -> None:
    assert looked_through(tmp_path / "a.onnx", small()) == Contents(operators=4, numbers=kernel().size)


@pytest.mark.parametrize(
    "data",
    [
        holding(tensors=(tensor("kernel", [1.0], EXTERNAL),)),
        holding(tensors=(tensor("kernel", [1.0], put(14, 1)),)),
        holding(tensors=(tensor("kernel", [1.0], EXTERNAL[: -len(put(14, 1))]),)),
        holding(inside(TENSOR, tensor("t", [1.0], EXTERNAL))),
        holding(inside(SPARSE, put(1, tensor("t", [1.0], EXTERNAL)))),
        holding(inside(SPARSE, put(2, tensor("t", [1.0], EXTERNAL)))),
        holding(inside(GRAPH, graph([], [], [], [tensor("t", [1.0], EXTERNAL)]))),
        holding(inside(GRAPHS, graph([inside(GRAPH, graph([], [], [], [tensor("t", [1.0], EXTERNAL)]))], [], []))),
        holding(more=put(25, put(7, inside(TENSOR, tensor("t", [1.0], EXTERNAL))))),
        holding(more=put(25, put(11, attribute("a", put(TENSOR, tensor("t", [1.0], EXTERNAL)))))),
        holding(more=put(20, put(1, graph([], [], [], [tensor("t", [1.0], EXTERNAL)])))),
        holding(more=put(7, graph([], [], [], [tensor("t", [1.0], EXTERNAL)]))),  # a second graph is part of the first
        holding() + put(7, put(15, put(1, tensor("t", [1.0], EXTERNAL)))),
    ],
)
def test_tensors_in_other_files_are_refused_wherever_they_are_named(data: bytes, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"a\.onnx keeps tensors in other files .*expected one file"):
        looked_through(tmp_path / "a.onnx", data)


@pytest.mark.parametrize(
    "data",
    [
        holding(FOREIGN),
        holding(inside(GRAPH, graph([FOREIGN], [], []))),
        holding(inside(GRAPH, graph([inside(GRAPHS, graph([FOREIGN], [], []))], [], []))),
        holding(more=put(25, put(1, "Own") + put(7, FOREIGN))),
        holding(more=put(25, put(7, inside(GRAPH, graph([FOREIGN], [], []))))),
    ],
)
def test_operators_of_other_domains_are_refused_wherever_they_are(data: bytes, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"the operator 'Gelu' of the domain 'com\.microsoft'; expected only ONNX's"):
        looked_through(tmp_path / "a.onnx", data)


@pytest.mark.parametrize("operator", ["Loop", "Scan"])
def test_a_network_whose_work_is_not_known_is_refused(operator: str, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=rf"the operator '{operator}'; expected a network without loops"):
        looked_through(tmp_path / "a.onnx", holding(node(operator, "pixels", "features")))


@pytest.mark.parametrize("domain", ["", "ai.onnx"])
def test_both_names_of_the_standard_are_its_own(domain: str, tmp_path: Path) -> None:
    looked_through(tmp_path / "a.onnx", holding(node("Identity", "pixels", "features", domain)))


def nested(depth: int) -> bytes:
    inner = graph([FLATTEN], [], [])
    for _ in range(depth):
        inner = graph([inside(GRAPH, inner)], [], [])
    return model(inner)


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (b"version https://git-lfs.github.com/spec/v1\n", "unknown kind 6"),
        (b"<!DOCTYPE html>", "damaged, or no ONNX file"),
        (small()[:-1], "ends amid a field"),
        (b"\x0a" + varint((1 << 64) - 1), "ends amid a field"),
        (b"\xff" * 11, "over 64 bits"),
        (b"\x08", "ends amid a number"),
        (b"\x00\x00", "number 0"),
        (put(1, 8), "no operators"),
        (nested(17), "nested over 16 deep"),
        (holding(tensors=(put(1, b"\x01" * 2000),)), "too many dimensions"),
    ],
)
def test_what_is_no_onnx_file_is_told_so(data: bytes, told: str, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"a\.onnx is damaged, or no ONNX file") as caught:
        looked_through(tmp_path / "a.onnx", data)
    assert told in str(caught.value)


def test_the_work_on_a_file_is_bounded() -> None:
    with pytest.raises(DamagedError, match="over 4,000,000 fields"):
        for _ in Walker(left=10).fields(memoryview(put(1, 0) * 11)):
            pass


@pytest.mark.parametrize("size", [0, onnx_file.LARGEST + 1])
def test_a_file_of_no_fitting_size_is_refused(size: int, tmp_path: Path) -> None:
    path = tmp_path / "a.onnx"
    path.touch()
    os.truncate(path, size)  # sparse: it takes no room
    with pytest.raises(WeightsError, match=rf"has {size:,} bytes; expected an ONNX file of 1 to 2,147,483,647"):
        onnx_file.metadata(path)


def test_no_device_is_read() -> None:
    with pytest.raises(WeightsError, match="expected an ONNX file that exists"):
        onnx_file.existing("/dev/zero")
    with pytest.raises(WeightsError, match="cannot be read"):
        onnx_file.metadata(Path("/dev/zero"))


def test_metadata_is_read_and_long_entries_are_left(tmp_path: Path) -> None:
    path = tmp_path / "a.onnx"
    path.write_bytes(small(metadata={"input_size": "32", "script": "x" * 100_000}))
    assert onnx_file.metadata(path) == {"input_size": "32"}


@given(st.binary(max_size=200))
def test_any_bytes_are_fields_or_damaged(data: bytes) -> None:
    try:
        for _, found in Walker().fields(memoryview(data)):
            assert isinstance(found, int) or len(found) <= len(data)
    except DamagedError:
        pass


@settings(max_examples=30)
@given(data=st.data())
def test_a_changed_file_is_read_or_told_of(data: st.DataObject, tmp_path_factory: pytest.TempPathFactory) -> None:
    """One byte, anywhere but in the numbers: never a crash, never another kind of error."""
    sound = small()
    raw = sound.index(kernel().tobytes())
    places = [*range(raw), *range(raw + kernel().nbytes, len(sound))]
    place, byte = data.draw(st.sampled_from(places)), data.draw(st.integers(0, 255))
    path = tmp_path_factory.getbasetemp() / "changed.onnx"
    path.write_bytes(sound[:place] + bytes([byte]) + sound[place + 1 :])
    with suppress(WeightsError):
        assert onnx_network.read(path, 32, None).dim > 0
