"""How long an epoch took, though it may have been worked on by several processes one after another."""

from __future__ import annotations

import time


class Stopwatch:
    """Seconds and seconds of processor time since it was made, added to those that were spent before."""

    def __init__(self, seconds: float = 0.0, processor: float = 0.0) -> None:
        self._began = time.perf_counter() - seconds
        self._processor_began = time.process_time() - processor

    def spent(self) -> tuple[float, float]:
        """Seconds, and seconds of processor time."""
        return time.perf_counter() - self._began, time.process_time() - self._processor_began
