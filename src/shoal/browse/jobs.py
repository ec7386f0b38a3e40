"""Long work that the page asks for: refits and exports, one after another, followed by polling."""

from __future__ import annotations

import logging
import secrets
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from shoal.errors import ShoalError
from shoal.progress import Progress, Task

KEPT: Final = 20
RUNNING: Final = "running"
DONE: Final = "done"
FAILED: Final = "failed"


@dataclass(eq=False)
class Job:
    """One piece of work. `progress` runs from 0 to 1; `message` is one line; `file` is there to be downloaded."""

    id: str
    kind: str
    state: str = RUNNING
    progress: float = 0.0
    message: str = ""
    file: Path | None = None
    file_name: str = ""


class JobProgress(Progress):
    """Shows progress on a job."""

    def __init__(self, job: Job) -> None:
        self._job = job

    @contextmanager
    def task(self, name: str, total: int, unit: str = "images") -> Iterator[Task]:
        self._job.message = name
        yield _JobTask(self._job, max(total, 1))

    def say(self, line: str) -> None:
        self._job.message = line


class _JobTask:
    def __init__(self, job: Job, total: int) -> None:
        self._job, self._total, self._done = job, total, 0

    def advance(self, count: int = 1) -> None:
        self._done += count
        self._job.progress = min(1.0, self._done / self._total)


class Jobs:
    """Runs jobs one at a time, and forgets the oldest finished ones with their files."""

    def __init__(self) -> None:
        self._jobs: OrderedDict[str, Job] = OrderedDict()
        self._pool = ThreadPoolExecutor(1, "job")
        self._lock = threading.Lock()

    def start(self, kind: str, work: Callable[[Job], str]) -> Job:
        """Start `work`; what it returns is the job's last message."""
        job = Job(secrets.token_hex(8), kind)
        with self._lock:
            self._jobs[job.id] = job
            finished = [old for old in self._jobs.values() if old.state != RUNNING]
            for old in finished[: max(0, len(self._jobs) - KEPT)]:
                self._forget(old)
        self._pool.submit(_run, job, work)
        return job

    def find(self, job: str) -> Job:
        """Raises KeyError if there is no such job."""
        with self._lock:
            return self._jobs[job]

    def close(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)
        with self._lock:
            for job in list(self._jobs.values()):
                self._forget(job)

    def _forget(self, job: Job) -> None:
        del self._jobs[job.id]
        if job.file is not None:
            job.file.unlink(missing_ok=True)


def _run(job: Job, work: Callable[[Job], str]) -> None:
    try:
        job.message = work(job)
        job.progress, job.state = 1.0, DONE
    except (ShoalError, OSError) as error:
        job.message, job.state = " ".join(str(error).split()), FAILED
    except Exception as error:  # the page must hear of it, whatever it is
        logging.getLogger(__name__).exception("job %s failed", job.kind)
        job.message, job.state = f"unexpected {type(error).__name__}: {error} (please report it)", FAILED
