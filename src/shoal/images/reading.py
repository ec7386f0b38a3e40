"""Reading an image's bytes by its URI alone, whatever kind of source it came from."""

from __future__ import annotations

from shoal.images.formats import sniff, why_not
from shoal.images.gate import Gate
from shoal.images.location import split_fragment
from shoal.images.members import MemberReader
from shoal.images.rows import RowReader
from shoal.spool import Spool


class ImageReader:
    """Reads image files, table rows, tar members and remote objects. Thread-safe; what it keeps in memory is bounded.

    URIs are those of `Item.uri`: `file:///a.jpg`, `file:///t.parquet#row=12`, `file:///s.tar#offset=512&size=900`,
    or any of these with another of the gate's protocols in place of `file:`.

    Args:
        spool: see `Gate`.
    """

    def __init__(self, spool: Spool | None = None) -> None:
        self._gate = Gate(spool)
        self._rows = RowReader(self._gate)
        self._members = MemberReader(self._gate)

    def read(self, uri: str) -> bytes:
        """All bytes of one image.

        Of a local file whose first bytes are no image's, no more is read.

        Raises:
            DecodeError: it is gone, unreadable, too large (over 1 GiB), no regular file, or no image.
        """
        base, place = split_fragment(uri)
        if "row" in place:
            return self._rows.read(base, place["row"])
        if "offset" in place:
            return self._members.read(base, place["offset"], place["size"])
        return self._gate.read(uri, _refuse)


def _refuse(head: bytes) -> str | None:
    return None if sniff(head) else why_not(head)
