"""Images that a mode of export cannot take, because they are no files of their own."""

from __future__ import annotations

from shoal.errors import RequestError
from shoal.export.placement import Placement, Plan


def require_own_files(plan: Plan, mode: str, *, breaks_links: bool) -> None:
    """Raise RequestError, which tells how many, if images are no files on this machine or would be broken links.

    Args:
        breaks_links: would the mode break symbolic links?
    """
    packed, links = [], []
    for placement in plan:
        if placement.source is None:
            packed.append(placement)
        elif breaks_links and placement.source.is_symlink():
            links.append(placement)
    if packed:
        raise RequestError(
            f"--mode {mode} needs images that are files on this machine; {_some(packed, len(plan))} "
            f"({packed[0].row.uri}) in a table, a tar or a bucket: use --mode copy"
        )
    if links:
        first = links[0].source
        others = f" and {len(links) - 1:,} more" if len(links) > 1 else ""
        are = "which are symbolic links" if others else "which is a symbolic link"
        raise RequestError(f"--mode {mode} would break {first}{others}, {are}: use --mode copy or link")


def _some(packed: list[Placement], images: int) -> str:
    path = packed[0].row.path
    if len(packed) == 1:
        return f"{path} lies"
    return f"{len(packed):,} of {images:,} lie, {path} for one,"
