"""Paths of somebody's machine in the notes of an ONNX file are found wherever they are, and nothing else is."""

from __future__ import annotations

from pathlib import Path

import pytest

from onnx_files import FLATTEN, graph, model, node, put, small, tensor, value
from shoal.encoder import onnx_texts

TRACE = 'File "/home/ada/net.py", line 3, in forward'
ENTRY = put(1, "trace") + put(2, TRACE)


def holding(inner: bytes = b"", more: bytes = b"") -> bytes:
    return model(graph([FLATTEN], [value("pixels", ["n", 8])], [value("features", ["n", 8])]) + inner, more=more)


@pytest.mark.parametrize(
    "data",
    [
        small(metadata={"trace": TRACE}),
        holding(more=put(6, TRACE)),
        holding(put(10, TRACE)),
        holding(put(16, ENTRY)),
        holding(put(1, FLATTEN + put(6, TRACE))),
        holding(put(1, FLATTEN + put(9, ENTRY))),
        holding(put(1, node("Identity", "a", "b", note=put(4, TRACE)))),
        holding(put(1, node("If", "a", "b", body=put(6, put(1, FLATTEN + put(9, ENTRY)))))),
        holding(put(5, tensor("t", [1.0], put(12, TRACE)))),
        holding(put(13, put(1, "v") + put(4, ENTRY))),
        holding(more=put(25, put(7, FLATTEN + put(6, TRACE)))),
    ],
)
def test_a_path_is_found_wherever_it_is_noted(data: bytes, tmp_path: Path) -> None:
    path = tmp_path / "a.onnx"
    path.write_bytes(data)
    assert onnx_texts.absolute_path(path) == "/home/ada/net.py"


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("C:\\Users\\ada\\net.py:3", "C:\\Users\\ada\\net.py:3"),
        ("\\\\server\\nets\\net.py", "\\\\server\\nets\\net.py"),
        ("file:///srv/nets/net.py", "/srv/nets/net.py"),
        ("a, '/data/nets'", "/data/nets"),
        (": torch.nn.Sequential/0: torch.nn.Conv2d/conv2d: aten.conv2d.default", None),
        ("https://example.org/nets/net", None),
        ("images / second, [n, 3]/255, and/or", None),
    ],
)
def test_only_paths_of_a_machine_are_paths(text: str, found: str | None, tmp_path: Path) -> None:
    path = tmp_path / "a.onnx"
    path.write_bytes(small(metadata={"note": text}))
    assert onnx_texts.absolute_path(path) == found
