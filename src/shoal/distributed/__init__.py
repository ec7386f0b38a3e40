"""Work done by the machines of a Ray cluster. The only room that knows Ray; stages know `shoal.executor` alone."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from shoal.distributed import address as addresses
from shoal.errors import ConfigError
from shoal.executor import HERE, Executor
from shoal.progress import Progress


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
    from shoal.distributed.cluster import connected  # noqa: PLC0415  (an extra)

    with connected(address, mixed, device, progress) as cluster:
        yield cluster
