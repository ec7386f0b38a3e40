"""Where a Ray cluster is: what a person may say, and whether one answers there."""

from __future__ import annotations

import os
import re
from importlib.util import find_spec
from typing import Final

from shoal.errors import ConfigError, WorkError
from shoal.wording import command

LOCAL: Final = "local"  # a cluster of this machine alone, for as long as the command lasts
AUTO: Final = "auto"
CLIENT: Final = "ray://"
HOW_TO_INSTALL: Final = command("pip", "install", "ray[client]")
PLACE: Final = "RAY_ADDRESS"  # what auto means, if it is set
TLS: Final = "RAY_USE_TLS"
SECONDS: Final = 5.0
_ADDRESS: Final = re.compile(
    r"(?P<client>ray://)?(?P<place>(?:[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\]):[0-9]{1,5})", re.ASCII
)
# A question that each kind of server answers at once: a cluster's own, and the one for drivers that are elsewhere.
_QUESTIONS: Final = {"": "/ray.rpc.NodeInfoGcsService/CheckAlive", CLIENT: "/ray.rpc.RayletDriver/ClusterInfo"}


def check(address: str) -> None:
    """Raise ConfigError unless `address` can be one of a cluster, and Ray is installed."""
    if address not in (LOCAL, AUTO) and not _ADDRESS.fullmatch(address):
        raise ConfigError(
            f"--ray has value {address!r}; expected none, {AUTO}, HOST:PORT or {CLIENT}HOST:PORT (without a value it "
            "stands last, or before another option)"
        )
    absent = missing()
    if absent:
        verb = "is" if len(absent) == 1 else "are"
        raise ConfigError(f"--ray needs {', '.join(absent)}, which {verb} not installed: {HOW_TO_INSTALL}")


def missing() -> list[str]:
    """Packages that `--ray` needs and that are not installed."""
    return [package for package, module in (("ray", "ray"), ("grpcio", "grpc")) if find_spec(module) is None]


def require_answer(address: str) -> None:
    """Raise WorkError, within some seconds, unless a Ray cluster answers there.

    Ray itself tries for a minute or two, and then may end the process.
    """
    match = _ADDRESS.fullmatch(os.environ.get(PLACE, "") if address == AUTO else address)
    if match is None or os.environ.get(TLS, "0") != "0":
        return  # this machine's own, which Ray finds at once or not at all; or one that answers to certificates only
    import grpc  # noqa: PLC0415  (an extra)

    with grpc.insecure_channel(match["place"]) as channel:
        try:
            channel.unary_unary(_QUESTIONS[match["client"] or ""])(b"", timeout=SECONDS)
        except grpc.RpcError as error:
            silent = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.UNIMPLEMENTED)
            if error.code() in silent:  # others are of a cluster that wants to be asked otherwise
                raise WorkError(
                    f"no Ray cluster answers at {match[0]} ({_words(error.details())}); expected the address that "
                    "`ray start --head` tells"
                ) from error


def _words(details: str | None) -> str:
    return " ".join((details or "no answer").split())[:200]
