"""Work done by the machines of a Ray cluster. The only room that knows Ray; stages know `shoal.executor` alone."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from shoal.distributed import address as addresses
from shoal.errors import ConfigError
from shoal.executor import HERE, Executor
from shoal.progress import Progress

# Lines that Ray leaves out, by its own setting, which is read as it is imported: where a machine dies it would print
# pages of what that one did into the output of the command.
SILENT: Final = "RAY_DEDUP_LOGS_SKIP_REGEX"


@contextmanager
def executing(address: str | None, mixed: bool, device: str, progress: Progress) -> Iterator[Executor]:
    """Who does work in pieces: the Ray cluster at `address`, or, if that is None, this process.

    Args:
        mixed: machines of several kinds may take part.
        device: that is asked for; a cluster that has it not is refused at once.

    Raises:
        ConfigError: Ray is not installed, or there cannot be such an address. WorkError: no cluster can be used there.
    """
    if address is None:
        if mixed:
            raise ConfigError("--mixed goes with --ray, and that is not given")
        yield HERE
        return
    addresses.check(address)
    os.environ.setdefault(SILENT, ".")
    from shoal.distributed.cluster import connected  # noqa: PLC0415  (an extra)

    with connected(address, mixed, device, progress) as cluster:
        yield cluster
