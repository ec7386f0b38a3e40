"""Pictures of a run's images: small ones made once and kept, large ones made on demand.

What is handed out is always encoded anew, so nothing of a file but its pixels leaves: no EXIF, no place where it was
taken. A picture that is kept was made from the image itself, at its size, so it does not matter which was made first.
"""

from __future__ import annotations

import hashlib
import io
import threading
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from PIL import Image

from shoal.cores import core_count
from shoal.errors import DecodeError
from shoal.images.decode import VERSION, decode, probe
from shoal.images.views import thumbnail
from shoal.pictures.originals import Original, Originals
from shoal.pictures.store import PictureStore
from shoal.rundir import RunDir

SIZES: Final = (96, 192, 384)  # pixels along the longer side
LARGEST: Final = 2048
MEDIA_TYPE: Final = "image/jpeg"
MOST_BYTES: Final = 1 << 29
SMALL_QUALITY: Final = 85  # made smaller and encoded once more for the report
LARGE_QUALITY: Final = 90


@dataclass(frozen=True, slots=True)
class SmallPicture:
    """A JPEG of the whole image; `is_sharp` is False where only a smaller one than asked for could be had."""

    jpeg: bytes
    is_sharp: bool


class Pictures:
    """Gives pictures, from those that are kept or else from the source; may be used from several threads."""

    def __init__(self, run_dir: RunDir, most_bytes: int = MOST_BYTES) -> None:
        self._store = PictureStore(run_dir.cache / "thumbnails", most_bytes)
        self._originals = Originals(run_dir)
        self._decoding = threading.BoundedSemaphore(core_count() + 1)

    def exact(self, original: Original, size: int) -> SmallPicture:
        """A picture of at least `size` pixels (at most SIZES[-1], fewer if the image is smaller) along its longer side.

        The same image and size give the same bytes, for as long as its source or that very picture is there. Otherwise
        it is the best that is kept.

        Raises:
            DecodeError: none is kept, and the image cannot be read; the text says why.
        """
        step = _step(original, size)
        kept = self._store.get(_key(original), step)
        if kept is not None:
            return SmallPicture(kept, True)
        try:
            return SmallPicture(self._make(original, step), True)
        except DecodeError:
            found = self._larger(original, step) or self._smaller(original, step)
            if found is None:
                raise
            return found

    def quick(self, original: Original, size: int) -> SmallPicture:
        """As `exact`, but made of a larger one that is kept, if there is one, rather than of the image.

        Raises:
            DecodeError: see `exact`.
        """
        return self._larger(original, _step(original, size)) or self.exact(original, size)

    def large(self, original: Original) -> bytes:
        """A JPEG of at most LARGEST pixels a side. Raises DecodeError."""
        data = self._originals.read(original)
        with self._decoding:
            return _jpeg(_fitted(data, LARGEST), LARGE_QUALITY)

    def _make(self, original: Original, step: int) -> bytes:
        data = self._originals.read(original)
        with self._decoding:
            made = _jpeg(_fitted(data, step), SMALL_QUALITY)
        self._store.put(_key(original), step, made)
        return made

    def _larger(self, original: Original, step: int) -> SmallPicture | None:
        """The smallest that is kept and large enough, at the size asked for."""
        for size in SIZES[SIZES.index(step) :]:
            kept = self._store.get(_key(original), size)
            if kept is not None:
                with suppress(DecodeError):  # damaged on disk
                    return SmallPicture(kept if size == step else self._reduced(kept, step), True)
        return None

    def _smaller(self, original: Original, step: int) -> SmallPicture | None:
        for size in reversed(SIZES[: SIZES.index(step)]):
            kept = self._store.get(_key(original), size)
            if kept is not None:
                return SmallPicture(kept, False)
        return None

    def _reduced(self, jpeg: bytes, step: int) -> bytes:
        with self._decoding:
            return _jpeg(_fitted(jpeg, step), SMALL_QUALITY)


def _key(original: Original) -> str | None:
    """What its pictures are kept under: the image, and the way in which it is decoded."""
    return None if original.sha256 is None else hashlib.sha256(f"{VERSION} {original.sha256}".encode()).hexdigest()


def _step(original: Original, size: int) -> int:
    """The least of SIZES that shows as much: a small image is kept once, whatever size is asked for."""
    enough = size if original.longest is None else min(size, original.longest)
    return next((step for step in SIZES if step >= enough), SIZES[-1])


def _fitted(data: bytes, size: int) -> Image.Image:
    """Upright RGB within `size` pixels a side; a smaller image keeps its size."""
    header = probe(data)
    return decode(data) if max(header.width, header.height) <= size else thumbnail(data, size)


def _jpeg(image: Image.Image, quality: int) -> bytes:
    buffer = io.BytesIO()
    image.info.clear()  # Pillow would write a file's comment again
    image.save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()
