"""ONNX files are looked through before OpenVINO reads them: what is refused, and that nothing damaged gets by."""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onnx_files import (
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
from shoal.encoder import file_bytes, onnx_file, onnx_network
from shoal.encoder.file_bytes import AT_ONCE, FileBytes
from shoal.encoder.onnx_file import Contents
from shoal.encoder.protobuf import MOST_FIELDS, DamagedError, Walker
from shoal.errors import WeightsError

EXTERNAL = put(13, put(1, "location") + put(2, "../../etc/passwd")) + put(14, 1)
FOREIGN = node("Gelu", "pixels", "features", domain="com.microsoft")
GRAPH, GRAPHS, TENSOR, SPARSE = 6, 11, 5, 22  # fields of an attribute


def looked_through(path: Path, data: bytes) -> Contents:
    path.write_bytes(data)
    with onnx_file.opened(path) as view:
        found = onnx_file.look_through(path, view)
    assert onnx_file.look_through(path, memoryview(data)) == found
    return found


def holding(*nodes: bytes, tensors: tuple[bytes, ...] = (), sparse: tuple[bytes, ...] = (), more: bytes = b"") -> bytes:
    ends = [value("pixels", ["n", 3, 32, 32])], [value("features", ["n", DIM])]
    inner = graph([FLATTEN, *nodes], *ends, tensors) + b"".join(put(15, one) for one in sparse)
    return model(inner, more=more)


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
        holding(sparse=(put(1, tensor("t", [1.0], EXTERNAL)),)),
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
        (b"\x0a" + varint((1 << 64) - 1), "a length is longer than any"),
        (b"\x0a" + varint(1000), "ends amid a field"),
        (b"\xff" * 11, "over 64 bits"),
        (b"\x08", "ends amid a number"),
        (b"\x00\x00", "number 0"),
        (put(1, 8), "no operators"),
        (nested(17), "nested over 16 deep"),
        *((holding(tensors=(shape,)), "a tensor has over 16 axes") for shape in (put(1, b"\1" * 17), put(1, 1) * 17)),
        (holding(tensors=(put(1, (1 << 63) + 1) * 100_000,)), "a tensor has an axis that is too long"),
        (holding(tensors=(put(1, -1),)), "of a length below 0"),
        (holding(tensors=(put(1, 1 << 16) + put(1, 1 << 16) + put(9, b"0000"),)), "fewer numbers than its shape says"),
        (holding(sparse=(put(3, 1 << 16) + put(3, 1 << 16),)), "fewer numbers than its shape says"),
        # What protobuf joins, or takes the last of.
        (holding() + put(7, graph([FOREIGN], [], [])), "is there twice"),
        (holding(inside(TENSOR, tensor("t", [1.0])) + put(4, "Loop")), "is there twice"),
        (holding(FLATTEN + put(4, "Loop")), "is there twice"),
        (holding(FOREIGN + put(7, "")), "is there twice"),
        (holding(node("Identity", "a", "b", body=put(TENSOR, tensor("t", [1.0])) * 2)), "is there twice"),
        (holding(inside(SPARSE, put(1, tensor("t", [1.0])) * 2)), "is there twice"),
        # What C++ reads otherwise than Python, or not at all.
        (holding() + varint((14 << 3 | 2) | 1 << 32) + varint(0), "a tag is longer than any"),
        (holding() + b"\xf2\x80\x80\x80\x80\x00\x00", "a tag is longer than any"),
        (holding() + varint(14 << 3 | 2) + b"\x80\x80\x80\x80\x80\x00", "a length is longer than any"),
        (holding() + varint(14 << 3 | 3) + varint(14 << 3 | 4), "unknown kind 3"),
    ],
)
def test_what_is_no_onnx_file_is_told_so(data: bytes, told: str, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"a\.onnx is damaged, or no ONNX file") as caught:
        looked_through(tmp_path / "a.onnx", data)
    assert told in str(caught.value)


def test_the_fields_of_a_file_are_counted_in_all_its_messages_together() -> None:
    walker = Walker(most=10)
    assert len(list(walker.fields(memoryview(put(1, 0) * 6)))) == 6
    assert len(list(walker.fields(memoryview(put(1, 0) * 4)))) == 4
    with pytest.raises(DamagedError, match="it has over 10 fields"):
        next(walker.fields(memoryview(put(1, 0))))


def test_a_file_of_more_fields_than_any_network_is_refused(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=f"it has over {MOST_FIELDS:,} fields"):
        looked_through(tmp_path / "a.onnx", put(1, 0) * (MOST_FIELDS + 1))


def test_operators_are_counted_wherever_they_are(tmp_path: Path) -> None:
    half = onnx_file.MOST_OPERATORS // 2
    inner = inside(GRAPH, graph([FLATTEN] * half, [], []))
    assert looked_through(tmp_path / "a.onnx", holding(inner)).operators == half + 2
    with pytest.raises(WeightsError, match=r"over 20,000 operators; expected an image network, of fewer"):
        looked_through(tmp_path / "a.onnx", holding(inner, *[FLATTEN] * half))


def test_numbers_are_those_of_the_main_graphs_tensors(tmp_path: Path) -> None:
    other = inside(GRAPH, graph([], [], [], [tensor("t", [1.0, 2.0])])), inside(TENSOR, tensor("t", [1.0]))
    data = holding(*other, tensors=(tensor("a", np.ones((2, 3))), tensor("b", np.ones((0, 3)))))
    assert looked_through(tmp_path / "a.onnx", data).numbers == 6


# Tags as no exporter writes them: C++ cuts them to 32 bits, and then sees the field itself.
def wide(tag: int) -> bytes:
    return varint(tag | 1 << 32)


def wider(tag: int) -> bytes:
    return varint(tag | 1 << 35)


def long(tag: int) -> bytes:
    return bytes([tag & 0x7F | 0x80, tag >> 7 | 0x80, *b"\x80" * 3, 0])


@pytest.mark.parametrize("tag", [wide, wider, long])
@pytest.mark.parametrize(
    "hidden",
    [
        lambda field: holding(tensors=(tensor("t", [1.0], field(13, put(1, "location") + put(2, "/etc/passwd"))),)),
        lambda field: holding(tensors=(tensor("t", [1.0], field(14, 1)),)),
        lambda field: holding(node("Relu", "pixels", "features") + field(4, "Loop")),
        lambda field: holding(node("Relu", "pixels", "features") + field(7, "com.microsoft")),
        lambda field: holding() + field(7, graph([FOREIGN], [], [])),
        lambda field: holding(node("Relu", "pixels", "features") + field(5, attribute("a", put(6, b"")))),
        lambda field: holding() + field(25, put(7, FOREIGN)),
    ],
)  # fmt: skip
def test_nothing_is_hidden_by_a_tag_that_only_others_read(
    tag: Callable[[int], bytes], hidden: Callable[[Callable[[int, int | str | bytes], bytes]], bytes], tmp_path: Path
) -> None:
    def field(number: int, value: int | str | bytes) -> bytes:
        plain = put(number, value)
        kind = 0 if isinstance(value, int) else 2
        return tag(number << 3 | kind) + plain[len(varint(number << 3 | kind)) :]

    with pytest.raises(WeightsError, match="a tag is longer than any"):
        looked_through(tmp_path / "a.onnx", hidden(field))


def test_a_file_that_is_cut_off_while_it_is_read_is_told(tmp_path: Path) -> None:
    """As an export that begins anew does. Mapped into memory, it would kill the process."""
    path = tmp_path / "a.onnx"
    path.write_bytes(small(metadata={"script": "x" * (AT_ONCE + 1)}) * 2)
    with (
        pytest.raises(WeightsError, match=r"a\.onnx is damaged.*it was cut off while it was read"),
        onnx_file.opened(path) as view,
    ):
        os.truncate(path, 100)
        onnx_file.look_through(path, view)


@given(data=st.binary(min_size=1, max_size=100), cuts=st.tuples(*[st.integers(0, 100)] * 2), block=st.integers(1, 9))
def test_bytes_of_a_file_are_those_that_are_in_it(data: bytes, cuts: tuple[int, int], block: int) -> None:
    with mock.patch.multiple(file_bytes, BLOCK=block, AT_ONCE=block):
        found = FileBytes(io.BytesIO(b"ab" + data), 2, len(data) + 2)
        assert (len(found), bytes(found), [found[place] for place in range(len(data))]) == (len(data), data, list(data))
        part = found[min(cuts) : max(cuts)]
        assert bytes(part) == data[min(cuts) : max(cuts)]
        assert [part[place] for place in reversed(range(len(part)))] == list(bytes(part))[::-1]


@pytest.mark.parametrize("size", [0, onnx_file.LARGEST + 1])
def test_a_file_of_no_fitting_size_is_refused(size: int, tmp_path: Path) -> None:
    path = tmp_path / "a.onnx"
    path.touch()
    os.truncate(path, size)  # sparse: it takes no room
    with pytest.raises(WeightsError, match=rf"has {size:,} bytes; expected an ONNX file of 1 to 2,147,483,647"):
        onnx_file.metadata(path)


def test_no_device_is_read() -> None:
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
        assert onnx_network.read(path, path.read_bytes(), 32, None).dim > 0
