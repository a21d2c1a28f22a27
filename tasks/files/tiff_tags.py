"""Read the tags of a TIFF, to choose the page that is the picture and refuse one that would look wrong.

libvips ignores the tags of colours: it treats all samples as RGB or grey. It also treats the first page as
the picture. The tags are defined by TIFF 6.0 (1992), BigTIFF and Adobe's technical notes.
"""

import struct
from dataclasses import dataclass
from typing import Any, BinaryIO

#: The numbers of the tags that are used.
_SUBFILE, _OLD_SUBFILE, _BITS, _COMPRESSION, _PHOTOMETRIC = 254, 255, 258, 259, 262
_SAMPLES, _PLANAR, _SUB_IFDS, _INK_SET, _EXTRA, _SAMPLE_FORMAT = 277, 284, 330, 332, 338, 339
_TILE_WIDTH, _COEFFICIENTS, _SUBSAMPLING, _REFERENCE, _DNG_VERSION = 322, 529, 530, 532, 50706
_USED_TAGS = {
    *(_SUBFILE, _OLD_SUBFILE, _BITS, _COMPRESSION, _PHOTOMETRIC, _SAMPLES, _PLANAR, _SUB_IFDS, _INK_SET),
    *(_EXTRA, _SAMPLE_FORMAT, _TILE_WIDTH, _COEFFICIENTS, _SUBSAMPLING, _REFERENCE, _DNG_VERSION),
}
#: The format of a value for `struct`, by its type: bytes, shorts, longs, rationals, and BigTIFF's longs.
_VALUE_FORMATS = {1: "B", 3: "H", 4: "I", 5: "II", 13: "I", 16: "Q", 18: "Q"}
_RATIONAL = 5
_MAX_PAGES = 1_000
#: A tag with more values, or of another type, counts as a tag without values.
_MAX_VALUES = 64

#: Values of tags: flags of a subfile, compressions, and photometric interpretations.
_REDUCED, _MASK = 1, 4
_OLD_JPEG, _JPEG = 6, 7
_RGB, _PALETTE, _CMYK, _YCBCR, _CIELAB = 2, 3, 5, 6, 8
#: The number of samples that are colours, for each photometric interpretation that is supported.
_COLOUR_COUNTS = {0: 1, 1: 1, _RGB: 3, _PALETTE: 1, _CMYK: 4, _YCBCR: 3, _CIELAB: 3}
#: The names of other photometric interpretations.
_OTHER_COLOURS = {
    4: "a transparency mask",
    9: "ICC L*a*b* colours",
    10: "ITU L*a*b* colours",
    32803: "a camera's raw samples (CFA)",
    32844: "CIE Log L samples",
    32845: "CIE Log Luv samples",
    34892: "a camera's raw samples (linear raw)",
}


class Unsupported(Exception):
    """A TIFF that may be valid, but would look wrong. The message is the reason."""


@dataclass(frozen=True)
class Page:
    """One page of a TIFF: its number from 0, and the values of its tags."""

    number: int
    tags: dict[int, tuple[float, ...]]

    def first_value(self, tag: int, default: int) -> int:
        """Return the first value of a tag as an integer. Return `default` if the page lacks it."""
        return int((self.tags.get(tag) or (default,))[0])

    @property
    def is_whole_picture(self) -> bool:
        """True unless the page is marked as a mask, or as a smaller version of another page."""
        is_partial = self.first_value(_SUBFILE, 0) & (_REDUCED | _MASK)
        return not is_partial and self.first_value(_OLD_SUBFILE, 1) != 2

    @property
    def is_tiled(self) -> bool:
        """True if the samples are in tiles, and not in strips."""
        return _TILE_WIDTH in self.tags

    @property
    def colour_count(self) -> int:
        """The number of colour samples of a pixel, as it is read: 3 for a palette."""
        photometric = self.first_value(_PHOTOMETRIC, 1)
        return 3 if photometric == _PALETTE else _COLOUR_COUNTS[photometric]

    @property
    def has_alpha(self) -> bool:
        """True if the sample after the colours is transparency. Without the tag, it is."""
        return self.first_value(_EXTRA, 2) in (1, 2)

    @property
    def ycbcr(self) -> "YCbCr | None":
        """The constants for the conversion to RGB. None if libvips converts, or nothing has to be."""
        if self.first_value(_PHOTOMETRIC, 1) != _YCBCR or self.first_value(_COMPRESSION, 1) == _JPEG:
            return None
        return YCbCr(
            self.tags.get(_COEFFICIENTS, (0.299, 0.587, 0.114)),
            self.tags.get(_REFERENCE, (0.0, 255.0, 128.0, 255.0, 128.0, 255.0)),
        )


@dataclass(frozen=True)
class YCbCr:
    """The constants for the conversion of Y, Cb and Cr to RGB (TIFF 6.0, section 21).

    `coefficients` are the parts of red, green and blue in Y. `reference` has the samples of black and white
    for each of Y, Cb and Cr.
    """

    coefficients: tuple[float, ...]
    reference: tuple[float, ...]

    @property
    def scales_and_offsets(self) -> tuple[list[float], list[float]]:
        """The scales and offsets that map samples to Y from 0 to 255, and to Cb and Cr from -127 to 127."""
        blacks, whites = self.reference[0::2], self.reference[1::2]
        ranges = zip((255, 127, 127), blacks, whites, strict=True)
        scales = [maximum / (white - black) for maximum, black, white in ranges]
        return scales, [-black * scale for black, scale in zip(blacks, scales, strict=True)]

    @property
    def rgb_matrix(self) -> list[list[float]]:
        """The matrix that converts Y, Cb and Cr to RGB."""
        red, green, blue = self.coefficients
        cr_to_red, cb_to_blue = 2 - 2 * red, 2 - 2 * blue
        return [
            [1, 0, cr_to_red],
            [1, -blue * cb_to_blue / green, -red * cr_to_red / green],
            [1, cb_to_blue, 0],
        ]


def choose_page(file: BinaryIO) -> Page:
    """Return the page that is the picture. Raises `Unsupported` if it would look wrong.

    Raises `EOFError` for a file that is damaged or truncated.
    """
    pages = _read_pages(file)
    page = next((page for page in pages if page.is_whole_picture), pages[0])
    if _DNG_VERSION in pages[0].tags or (not page.is_whole_picture and _SUB_IFDS in page.tags):
        raise Unsupported("its picture is a camera's raw one, beside a preview")
    if reason := _find_unsupported_reason(page):
        raise Unsupported(reason)
    return page


def _find_unsupported_reason(page: Page) -> str | None:
    """Return why a page would look wrong. Return None if it would look right."""
    photometric, compression = page.first_value(_PHOTOMETRIC, 1), page.first_value(_COMPRESSION, 1)
    bits = set(page.tags.get(_BITS, (1,)))
    samples = page.first_value(_SAMPLES, 1)
    if photometric not in _COLOUR_COUNTS:
        return f"it holds {_OTHER_COLOURS.get(photometric, f'samples of kind {photometric}')}"
    if compression == _OLD_JPEG:
        return "it is compressed by the JPEG of TIFF 6.0, which is long withdrawn"
    if set(page.tags.get(_SAMPLE_FORMAT, (1,))) - {1, 4}:
        return "its samples are floating-point or signed numbers, without a colour of their own"
    if not bits <= ({1, 2, 4, 8, 16} if samples == 1 else {8, 16}) or len(bits) > 1:
        return f"its samples have {', '.join(str(int(count)) for count in sorted(bits))} bits"
    if samples > _COLOUR_COUNTS[photometric] and photometric == _PALETTE:
        return "it has a palette and transparency"
    if photometric == _CMYK and (page.first_value(_INK_SET, 1) != 1 or samples < 4):
        return "its inks are not cyan, magenta, yellow and black"
    if photometric == _CIELAB and bits != {16}:
        return "it holds CIE L*a*b* colours of 8 bits"
    return _find_unsupported_ycbcr_reason(page) if page.ycbcr else None


def _find_unsupported_ycbcr_reason(page: Page) -> str | None:
    """Return why a page in Y, Cb and Cr would look wrong. Return None if it would look right."""
    # Without the tag, Cb and Cr have half the width and height.
    if page.tags.get(_SUBSAMPLING, (2, 2)) != (1, 1):
        return "its colours (Cb, Cr) have fewer samples than its brightness, and are not in JPEG"
    if page.first_value(_PLANAR, 1) != 1 or page.tags.get(_BITS, (1,)) != (8, 8, 8):
        return "its samples (Y, Cb, Cr) lie in planes, or have not 8 bits"
    assert page.ycbcr is not None
    coefficients, reference = page.ycbcr.coefficients, page.ycbcr.reference
    has_ranges = all(black < white for black, white in zip(reference[0::2], reference[1::2], strict=False))
    if len(reference) != 6 or len(coefficients) != 3 or not coefficients[1] or not has_ranges:
        return "its colours (Y, Cb, Cr) are defined in a way that makes no sense"
    return None


def _read_pages(file: BinaryIO) -> list[Page]:
    """Return the pages of a TIFF, at least one. Raises `EOFError` for a damaged or empty file."""
    try:
        reader = _open_reader(file)
        pages: list[Page] = []
        offset, seen = reader.first_offset(), set[int]()
        while offset and offset not in seen and len(pages) < _MAX_PAGES:
            seen.add(offset)
            tags, offset = reader.read_directory(offset)
            pages.append(Page(len(pages), tags))
    except (struct.error, ArithmeticError, ValueError, OSError) as error:
        raise EOFError("a TIFF directory lies outside the file") from error
    if not pages:
        raise EOFError("it has no TIFF directory")
    return pages


def _open_reader(file: BinaryIO) -> "_TagReader":
    """Return a reader for the byte order and the version that are in the header of a TIFF."""
    file.seek(0)
    head = file.read(4)
    return _TagReader(file, "<" if head[:1] == b"I" else ">", b"+" in head)


@dataclass(frozen=True)
class _TagReader:
    """Reads the directories of a TIFF: of its byte order, as `struct` has it, and its version."""

    file: BinaryIO
    byte_order: str
    is_bigtiff: bool

    def first_offset(self) -> int:
        """Return the offset of the first directory."""
        self.file.seek(8 if self.is_bigtiff else 4)
        return int(self._unpack_next(self._offset_format)[0])

    @property
    def _offset_format(self) -> str:
        """The format for `struct` of offsets, and of the number of a tag's values."""
        return "Q" if self.is_bigtiff else "I"

    def read_directory(self, offset: int) -> tuple[dict[int, tuple[float, ...]], int]:
        """Return the values of the used tags in a directory, and the offset of the next directory, or 0."""
        self.file.seek(offset)
        (entries,) = self._unpack_next("Q" if self.is_bigtiff else "H")
        size = 20 if self.is_bigtiff else 12
        table = self.file.read(min(entries, 65_536) * size)
        (following,) = self._unpack_next(self._offset_format, missing=0)
        tags: dict[int, tuple[float, ...]] = {}
        entry_format = f"{self.byte_order}HH{self._offset_format}"
        for start in range(0, len(table) - size + 1, size):
            tag, type_, count = struct.unpack_from(entry_format, table, start)
            if tag in _USED_TAGS and type_ in _VALUE_FORMATS and 0 < count <= _MAX_VALUES:
                value = table[start + struct.calcsize(entry_format) : start + size]
                tags.setdefault(tag, self._tag_values(type_, count, value))
            elif tag in _USED_TAGS:
                tags.setdefault(tag, ())
        return tags, following

    def _tag_values(self, type_: int, count: int, value: bytes) -> tuple[float, ...]:
        """Return the numbers of a tag. `value` has them if they fit there, and otherwise their offset.

        A rational with the denominator 0 is no number. Its tag counts as one without values.
        """
        layout = f"{self.byte_order}{_VALUE_FORMATS[type_] * count}"
        size = struct.calcsize(layout)
        if size > len(value):
            (offset,) = struct.unpack(self.byte_order + self._offset_format, value)
            self.file.seek(offset)
            value = self.file.read(size)
        numbers = struct.unpack_from(layout, value)
        if type_ == _RATIONAL:
            if 0 in numbers[1::2]:
                return ()
            fractions = zip(numbers[0::2], numbers[1::2], strict=True)
            return tuple(numerator / denominator for numerator, denominator in fractions)
        return numbers

    def _unpack_next(self, layout: str, missing: int | None = None) -> tuple[Any, ...]:
        """Return the next values of the file, in this layout; at its end, `missing` alone."""
        data = self.file.read(struct.calcsize(layout))
        if missing is not None and len(data) < struct.calcsize(layout):
            return (missing,)
        return struct.unpack(self.byte_order + layout, data)
