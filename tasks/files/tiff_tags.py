"""Read the tags of a TIFF, to choose the page that is the picture and refuse one that would come out wrong.

libvips takes every sample that it can unpack for RGB or grey, against the tags of colours, and the first
page for the picture. TIFF 6.0 (1992) names the tags. BigTIFF and Adobe's technical notes add to them.
"""

import struct
from dataclasses import dataclass
from typing import Any, BinaryIO

_SUBFILE, _OLD_SUBFILE, _BITS, _COMPRESSION, _PHOTOMETRIC = 254, 255, 258, 259, 262
_SAMPLES, _PLANAR, _SUB_IFDS, _INK_SET, _EXTRA, _SAMPLE_FORMAT = 277, 284, 330, 332, 338, 339
_TILE_WIDTH, _COEFFICIENTS, _SUBSAMPLING, _REFERENCE, _DNG_VERSION = 322, 529, 530, 532, 50706
_USED = {
    *(_SUBFILE, _OLD_SUBFILE, _BITS, _COMPRESSION, _PHOTOMETRIC, _SAMPLES, _PLANAR, _SUB_IFDS, _INK_SET),
    *(_EXTRA, _SAMPLE_FORMAT, _TILE_WIDTH, _COEFFICIENTS, _SUBSAMPLING, _REFERENCE, _DNG_VERSION),
}
#: Formats of values, by type: bytes, shorts, longs, rationals, and BigTIFF's longs.
_FORMATS = {1: "B", 3: "H", 4: "I", 5: "II", 13: "I", 16: "Q", 18: "Q"}
_MOST_PAGES = 1_000
_MOST_VALUES = 64

_REDUCED, _MASK = 1, 4
_OLD_JPEG, _JPEG = 6, 7
_RGB, _PALETTE, _CMYK, _YCBCR, _CIELAB = 2, 3, 5, 6, 8
#: The number of samples that are colours, by photometric interpretation. No other interpretation is read.
_COLOURS = {0: 1, 1: 1, _RGB: 3, _PALETTE: 1, _CMYK: 4, _YCBCR: 3, _CIELAB: 3}
_NAMES = {
    4: "a transparency mask",
    9: "ICC L*a*b* colours",
    10: "ITU L*a*b* colours",
    32803: "a camera's raw samples (CFA)",
    32844: "CIE Log L samples",
    32845: "CIE Log Luv samples",
    34892: "a camera's raw samples (linear raw)",
}


class Unsupported(Exception):
    """A TIFF that may be sound and would not come out right. The message names the reason."""


@dataclass(frozen=True)
class Page:
    """One page of a TIFF: its number from 0, and the values of its tags."""

    number: int
    tags: dict[int, tuple[float, ...]]

    def first_value(self, tag: int, otherwise: int) -> int:
        """Return the first value of a tag as an integer."""
        return int((self.tags.get(tag) or (otherwise,))[0])

    @property
    def is_whole_picture(self) -> bool:
        """True unless the page is marked as a mask, or as a smaller version of another page."""
        return (
            not self.first_value(_SUBFILE, 0) & (_REDUCED | _MASK) and self.first_value(_OLD_SUBFILE, 1) != 2
        )

    @property
    def is_tiled(self) -> bool:
        """True if the samples lie in tiles and not in strips."""
        return _TILE_WIDTH in self.tags

    @property
    def colour_count(self) -> int:
        """Return the number of samples of a pixel that are colours.

        A palette counts as three, as it is read.
        """
        photometric = self.first_value(_PHOTOMETRIC, 1)
        return 3 if photometric == _PALETTE else _COLOURS[photometric]

    @property
    def has_alpha(self) -> bool:
        """True if the sample after the colours is transparency, as it is if the file does not specify it."""
        return self.first_value(_EXTRA, 2) in (1, 2)

    @property
    def ycbcr(self) -> "YCbCr | None":
        """Return the constants that make RGB of the samples. Return None if the reader does that itself."""
        if self.first_value(_PHOTOMETRIC, 1) != _YCBCR or self.first_value(_COMPRESSION, 1) == _JPEG:
            return None
        return YCbCr(
            self.tags.get(_COEFFICIENTS, (0.299, 0.587, 0.114)),
            self.tags.get(_REFERENCE, (0.0, 255.0, 128.0, 255.0, 128.0, 255.0)),
        )


@dataclass(frozen=True)
class YCbCr:
    """The constants by which a TIFF's Y, Cb and Cr become RGB (TIFF 6.0, section 21)."""

    coefficients: tuple[float, ...]
    reference: tuple[float, ...]

    @property
    def scale_and_offset(self) -> tuple[list[float], list[float]]:
        """Return the scale and offset that bring samples to Y of 0 to 255, and Cb and Cr of -127 to 127."""
        black, white = self.reference[0::2], self.reference[1::2]
        scales = [
            whole / (high - low) for whole, low, high in zip((255, 127, 127), black, white, strict=True)
        ]
        return scales, [-low * scale for low, scale in zip(black, scales, strict=True)]

    @property
    def matrix(self) -> list[list[float]]:
        """Return the matrix that makes RGB of Y, Cb and Cr."""
        red, green, blue = self.coefficients
        for_red, for_blue = 2 - 2 * red, 2 - 2 * blue
        return [
            [1, 0, for_red],
            [1, -blue * for_blue / green, -red * for_red / green],
            [1, for_blue, 0],
        ]


def choose_page(file: BinaryIO) -> Page:
    """Return the page that is the picture. Raises `Unsupported` if none can be read right.

    Raises `EOFError` for a file that is damaged or cut short.
    """
    pages = _read_pages(file)
    page = next((each for each in pages if each.is_whole_picture), pages[0])
    if _DNG_VERSION in pages[0].tags or (not page.is_whole_picture and _SUB_IFDS in page.tags):
        raise Unsupported("its picture is a camera's raw one, beside a preview")
    if reason := _unsupported_reason(page):
        raise Unsupported(reason)
    return page


def _unsupported_reason(page: Page) -> str | None:
    """Return why a page cannot be read right. Return None if it can be read."""
    photometric, compression = page.first_value(_PHOTOMETRIC, 1), page.first_value(_COMPRESSION, 1)
    bits = set(page.tags.get(_BITS, (1,)))
    samples = page.first_value(_SAMPLES, 1)
    if photometric not in _COLOURS:
        return f"it holds {_NAMES.get(photometric, f'samples of kind {photometric}')}"
    if compression == _OLD_JPEG:
        return "it is compressed by the JPEG of TIFF 6.0, which is long withdrawn"
    if set(page.tags.get(_SAMPLE_FORMAT, (1,))) - {1, 4}:
        return "its samples are floating-point or signed numbers, without a colour of their own"
    if not bits <= ({1, 2, 4, 8, 16} if samples == 1 else {8, 16}) or len(bits) > 1:
        return f"its samples have {', '.join(str(int(each)) for each in sorted(bits))} bits"
    if samples > _COLOURS[photometric] and photometric == _PALETTE:
        return "it has a palette and transparency"
    if photometric == _CMYK and (page.first_value(_INK_SET, 1) != 1 or samples < 4):
        return "its inks are not cyan, magenta, yellow and black"
    if photometric == _CIELAB and max(bits) != 16:
        return "it holds CIE L*a*b* colours of 8 bits"
    return _unsupported_ycbcr_reason(page) if page.ycbcr else None


def _unsupported_ycbcr_reason(page: Page) -> str | None:
    """Return why a page in Y, Cb and Cr cannot be read right. Return None if it can."""
    # Where the tag is missing TIFF has the colours at half the width and height.
    if page.tags.get(_SUBSAMPLING, (2, 2)) != (1, 1):
        return "its colours (Cb, Cr) have fewer samples than its brightness, and are not in JPEG"
    if page.first_value(_PLANAR, 1) != 1 or page.tags.get(_BITS, (1,)) != (8, 8, 8):
        return "its samples (Y, Cb, Cr) lie in planes, or have not 8 bits"
    sound = page.ycbcr
    assert sound is not None
    wide = all(low < high for low, high in zip(sound.reference[0::2], sound.reference[1::2], strict=True))
    if len(sound.reference) != 6 or len(sound.coefficients) != 3 or not sound.coefficients[1] or not wide:
        return "its colours (Y, Cb, Cr) are defined in a way that makes no sense"
    return None


def _read_pages(file: BinaryIO) -> list[Page]:
    """Return the pages of the main chain, at least one. Raises `EOFError` if it leads out of the file."""
    try:
        reader = _open_reader(file)
        pages: list[Page] = []
        offset, offsets = reader.first_offset(), set[int]()
        while offset and offset not in offsets and len(pages) < _MOST_PAGES:
            offsets.add(offset)
            tags, offset = reader.read_directory(offset)
            pages.append(Page(len(pages), tags))
    except (struct.error, ArithmeticError, ValueError, OSError) as error:
        raise EOFError("a TIFF directory lies outside the file") from error
    if not pages:
        raise EOFError("it has no TIFF directory")
    return pages


def _open_reader(file: BinaryIO) -> "_TagReader":
    """Return a reader for the byte order and the version in a TIFF's header."""
    file.seek(0)
    head = file.read(4)
    order = "<" if head[:1] == b"I" else ">"
    big = b"+" in head
    return _TagReader(file, order, big)


@dataclass(frozen=True)
class _TagReader:
    """Reads the directories of a TIFF, in its byte order, classic or BigTIFF."""

    file: BinaryIO
    order: str
    big: bool

    def first_offset(self) -> int:
        """Return the offset of the first directory."""
        self.file.seek(8 if self.big else 4)
        return int(self._unpack_next("Q" if self.big else "I")[0])

    def read_directory(self, offset: int) -> tuple[dict[int, tuple[float, ...]], int]:
        """Return the values of a directory's tags that are used here, and the next directory's offset."""
        self.file.seek(offset)
        (entries,) = self._unpack_next("Q" if self.big else "H")
        size = 20 if self.big else 12
        table = self.file.read(min(entries, 65_536) * size)
        (following,) = self._unpack_next("Q" if self.big else "I", missing=0)
        tags: dict[int, tuple[float, ...]] = {}
        for at in range(0, len(table) - size + 1, size):
            tag, form, count = struct.unpack_from(f"{self.order}HH{'Q' if self.big else 'I'}", table, at)
            if tag in _USED and form in _FORMATS and 0 < count <= _MOST_VALUES:
                value = table[at + (12 if self.big else 8) : at + size]
                tags.setdefault(tag, self._tag_values(form, count, value))
            elif tag in _USED:
                tags.setdefault(tag, ())
        return tags, following

    def _tag_values(self, form: int, count: int, inline: bytes) -> tuple[float, ...]:
        """Return the numbers of a tag: those in the entry, or those at the offset that the entry has."""
        layout = f"{self.order}{_FORMATS[form] * count}"
        size = struct.calcsize(layout)
        if size > len(inline):
            (at,) = struct.unpack(f"{self.order}{'Q' if self.big else 'I'}", inline)
            self.file.seek(at)
            inline = self.file.read(size)
        numbers = struct.unpack_from(layout, inline)
        if form == 5:
            return tuple(above / below for above, below in zip(numbers[0::2], numbers[1::2], strict=True))
        return numbers

    def _unpack_next(self, layout: str, missing: int | None = None) -> tuple[Any, ...]:
        """Return the next values of the file, or `missing` at its end."""
        data = self.file.read(struct.calcsize(layout))
        if missing is not None and len(data) < struct.calcsize(layout):
            return (missing,)
        return struct.unpack(self.order + layout, data)
