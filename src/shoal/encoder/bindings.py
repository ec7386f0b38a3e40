"""OpenVINO's Python bindings, loaded without what they would do unasked."""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

import numpy as np

TELEMETRY = "openvino_telemetry"


def load_openvino() -> Any:
    """The module `openvino`, silent and safe to use from several threads.

    Imported the plain way, it tells Google Analytics that it was imported, from a process that it forks, and keeps a
    number for this machine in ~/intel. Without its telemetry package it does none of that.
    """
    hidden: dict[str, ModuleType | None] = sys.modules  # type: ignore[assignment]
    hide = TELEMETRY not in hidden
    if hide:
        hidden[TELEMETRY] = None  # an import of it fails, as if it were not installed
    try:
        import openvino  # noqa: PLC0415  (a tenth of a second that torch's engine need not pay)
    finally:
        if hide:
            del hidden[TELEMETRY]
    # The bindings make their table of dtypes when they meet the first array, holding a C++ guard while they ask for the
    # GIL: two threads with their first arrays at once would wait for each other for ever. So one comes here.
    np.asarray(openvino.Tensor(np.zeros(1, dtype=np.uint8)).data)
    return openvino
