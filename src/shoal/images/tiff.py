"""TIFF: every kind of sample that tifffile and libtiff read, each by what its tags say that it means."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import Any, Final

import tifffile

from shoal.images import orientation, pillow
from shoal.images.formats import TIFF
from shoal.images.layer import Rendered, to_srgb
from shoal.images.levels import Numbers
from shoal.images.limits import MOST_FRAMES, MOST_LOOKED_AT, check_size
from shoal.images.quiet import quiet_libtiff, quiet_pillow
from shoal.images.reasons import reason
from shoal.images.tiff_colours import check_kind, picture
from shoal.images.tiff_samples import check_compression, read_samples

_MOST_SKIPPED: Final = 16  # pages that are small versions or masks of a later one
_ORIENTATION, _PROFILE = 274, 34675
_YCBCR: Final = 6
_BITONAL: Final = frozenset({2, 3, 4, 32771})  # compressions that only libtiff itself reads, all right in Pillow
_JPEG: Final = frozenset({6, 7})


@dataclass(frozen=True, slots=True)
class TiffImage:
    """An opened TIFF; `number` is the page that its size is of."""

    data: bytes
    file: tifffile.TiffFile
    number: int

    @property
    def page(self) -> tifffile.TiffPage:
        return self._page(self.number)

    @property
    def size(self) -> tuple[int, int]:
        """Width and height as stored."""
        return self.page.imagewidth, self.page.imagelength

    @property
    def held(self) -> float:
        """Bytes a pixel that `render` holds."""
        return _held(self.page)

    def render(self) -> Rendered:
        """The upright picture of the first page that is not blank. Raises DecodeError."""
        try:
            with quiet_pillow():
                return self._not_blank()
        except Exception as error:  # broken files make tifffile raise what it likes
            raise reason(self.data, TIFF, error) from error

    def _not_blank(self) -> Rendered:
        first, is_blank = self._render(self.number)
        planes = self._planes()
        if planes > 1:
            first = first[0], (f"plane {self.number + 1} of {planes}", *first[1])
        if not is_blank:
            return first
        looked_at = self.size[0] * self.size[1]
        for number in range(self.number + 1, self.number + MOST_FRAMES):
            try:
                page = self._page(number)
                looked_at += page.imagewidth * page.imagelength
                if looked_at > MOST_LOOKED_AT:
                    break
                check_size(page.imagewidth, page.imagelength, _held(page), TIFF.name)
                (image, notes), is_blank = self._render(number)
            except Exception:  # no such page; or broken, which is no reason to lose the first
                break
            if not is_blank:
                return image, (f"plane {number + 1} of {planes}, the first that is not blank", *notes)
        return first

    def _render(self, number: int) -> tuple[Rendered, bool]:
        """The picture of one page, and whether it has one value everywhere."""
        page = self._page(number)
        _check(page)
        if _is_pillows(page):
            opened = pillow.open_file(self.data, TIFF)
            opened.source.seek(number)
            shown = opened.render_frame()
            return shown, pillow.is_blank(shown[0])
        samples = read_samples(page)
        image, notes = picture(page, samples)
        upright = orientation.turned(image, page.tags.valueof(_ORIENTATION))
        rgb, more = to_srgb(upright, page.tags.valueof(_PROFILE))
        return (rgb, (*notes, *more)), _is_constant(samples)

    def _planes(self) -> int:
        """How many pages there are; one where the others are small versions or masks of it."""
        count = len(self.file.pages)
        if count == self.number + 1:
            return 1
        after = self._page(self.number + 1)
        return 1 if after.is_reduced or after.is_mask else count

    def _page(self, number: int) -> tifffile.TiffPage:
        page = self.file.pages[number]
        assert isinstance(page, tifffile.TiffPage)
        return page


def open_file(data: bytes) -> TiffImage:
    """Read the tags. Raises DecodeError."""
    quiet_libtiff()
    try:
        with quiet_pillow():
            file = tifffile.TiffFile(io.BytesIO(data))
            image = TiffImage(data, file, _first_whole(file))
            _check(image.page)
            return image
    except Exception as error:  # as in `render`
        raise reason(data, TIFF, error) from error


def _first_whole(file: tifffile.TiffFile) -> int:
    """The first page that is neither a small version of another nor a mask; the first of all if there is none."""
    for number in range(_MOST_SKIPPED):
        try:
            page = file.pages[number]
            assert isinstance(page, tifffile.TiffPage)
        except IndexError:
            break
        if not (page.is_reduced or page.is_mask):
            return number
    return 0


def _check(page: tifffile.TiffPage) -> None:
    """Refuse by name what is not read. Raises DecodeError."""
    check_kind(page)
    if not _is_pillows(page):
        check_compression(page)


def _held(page: tifffile.TiffPage) -> float:
    """Bytes a pixel: the numbers and a strip of them, their levels, and the image twice."""
    if _is_pillows(page):
        return TIFF.held
    size = max(8, page.bitspersample) // 8
    levels = 0 if size == 1 else 1
    return page.samplesperpixel * (size * (1 + 1 / max(1, len(page.dataoffsets))) + levels) + 9.0


def _is_pillows(page: tifffile.TiffPage) -> bool:
    """Whether the page is one of those that libtiff turns into plain pixels itself."""
    if page.compression in _BITONAL:
        return True
    eight_bits = page.bitspersample == 8 and page.sampleformat == 1
    return eight_bits and (page.compression in _JPEG or page.photometric == _YCBCR)


def _is_constant(samples: Numbers) -> bool:
    first: Any = samples[:1, :1]
    return bool((samples[0] == first).all()) and bool((samples == first).all())
