"""What exporters note in an ONNX file beside the network: torch, which line of which file made each operator."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from shoal.encoder import onnx_file
from shoal.encoder.protobuf import Bytes, Walker

LONGEST: Final = 1 << 20  # bytes of one text that are looked at
PATH: Final = re.compile(
    rb"(?:^|[\s\"'(=,\[]|file://)"  # not amid a name such as torch.nn.Module/conv1
    rb"((?:/[\w.~+@-]+){2,}|[A-Za-z]:[\\/][^\s\"'<>|]+|\\\\[\w.-]+\\[^\s\"'<>|]+)"
)
_TEXT: Final = "text"
# Of each message the doc_string, the metadata_props, texts, and messages that have some; numbers as in onnx_file.
_FIELDS: Final[dict[str, dict[int, str]]] = {
    "model": {6: _TEXT, 7: "graph", 14: "entry", 25: "function"},
    "graph": {1: "node", 5: "tensor", 10: _TEXT, 11: "value", 12: "value", 13: "value", 16: "entry"},
    "node": {5: "attribute", 6: _TEXT, 9: "entry"},
    "attribute": {4: _TEXT, 5: "tensor", 6: "graph", 9: _TEXT, 10: "tensor", 11: "graph", 13: _TEXT},
    "tensor": {12: _TEXT, 16: "entry"},
    "value": {3: _TEXT, 4: "entry"},
    "function": {7: "node", 8: _TEXT, 12: "value", 14: "entry"},
    "entry": {1: _TEXT, 2: _TEXT},
}


def absolute_path(file: Path) -> str | None:
    """The first path of somebody's machine that the notes in an ONNX file name, which was looked through before.

    Raises:
        WeightsError: see `onnx_file.opened`.
    """
    with onnx_file.opened(file) as view:
        for text in _texts(Walker(), view, "model"):
            found = PATH.search(bytes(text[:LONGEST]))
            if found is not None:
                return found[1].decode(errors="replace")
    return None


def _texts(walker: Walker, message: Bytes, kind: str) -> Iterator[Bytes]:
    for number, value in walker.fields(message):
        inner = _FIELDS[kind].get(number)
        if inner is None or isinstance(value, int):
            continue
        if inner == _TEXT:
            yield value
        else:
            yield from _texts(walker, value, inner)
