"""Find the type of a column of text in a CSV file, batch by batch, and convert the column to it.

A type is chosen only if no value loses anything: `007`, a number with more digits than a double holds, and a
mix of types remain text. The whole file is read for this, because pyarrow's streaming reader infers the types
from its first block alone (apache/arrow#46223).
"""

from dataclasses import dataclass
from decimal import Decimal
from math import isfinite
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from millpond.tasks.files.contract import ColumnType

#: Texts that mean "no value" in a column that is not text.
_NO_VALUE = ("", "NA", "N/A", "NULL", "null", "NaN", "nan")

_TIMESTAMP = pa.timestamp("us")
_ZONED_TIMESTAMP = pa.timestamp("us", tz="UTC")
#: The types of undeclared columns, in the order in which they are tried.
_CANDIDATES = (pa.bool_(), pa.int64(), pa.float64(), pa.date32(), _TIMESTAMP, _ZONED_TIMESTAMP)
#: The type that replaces another if a later batch does not fit that: it fits all earlier batches, too.
_WIDER = {pa.int64(): pa.float64(), pa.date32(): _TIMESTAMP}
#: The possible Arrow types of each declared type; the first one if the column has no value.
ARROW_TYPES: dict[ColumnType, tuple[Any, ...]] = {
    "string": (pa.string(),),
    "int64": (pa.int64(),),
    "float64": (pa.float64(),),
    "bool": (pa.bool_(),),
    "date": (pa.date32(),),
    "timestamp": (_TIMESTAMP, _ZONED_TIMESTAMP),
}
#: Numbers in the notation of doubles, with at most 15 digits before the point.
_DECIMAL = r"^-?(0|[1-9][0-9]{0,14})(\.[0-9]+)?([eE][+-]?[0-9]{1,3})?$"
_DECIMAL_CHARACTERS = 24
_WORD_BOOLEAN = r"^([tT]rue|TRUE|[fF]alse|FALSE)$"
#: A number of at most this many characters, without an exponent, loses no digit in a double.
_SURELY_EXACT_CHARACTERS = 16
#: A double holds every integer up to this one.
MAX_EXACT_INTEGER = 2**53


@dataclass
class Column:
    """Learns the type of one column from its record batches, in order. `declared` is a type to keep to."""

    name: str
    declared: ColumnType | None = None
    #: The Arrow type that all values so far fit; None before the first value.
    type: Any = None
    #: True if the column has an integer that a double would round.
    _has_wide_integers: bool = False

    def learn_type(self, texts: Any) -> bool:
        """Learn from the texts of one record batch. Return False if one does not fit the declared type."""
        if texts.null_count == len(texts) or self.type == pa.string():
            return True
        if self.declared:
            return self._learn_declared(texts)
        wider = _WIDER.get(self.type)
        candidates: tuple[Any, ...] = _CANDIDATES
        if self.type is not None:
            candidates = (self.type,) if wider is None or self._has_wide_integers else (self.type, wider)
        values = _empty_to_null(texts)
        if values.null_count == len(values):
            return True
        for candidate in candidates:
            converted = _cast_exactly(values, candidate)
            if converted is not None:
                self.type = candidate
                self._has_wide_integers = self._has_wide_integers or has_wide_integer(converted)
                return True
        self.type = pa.string()
        return True

    def _learn_declared(self, texts: Any) -> bool:
        """Choose the first Arrow type of the declared type that fits a batch. Return False if none fits.

        A batch without any value fits each, so it chooses none.
        """
        assert self.declared is not None
        if _empty_to_null(texts).null_count == len(texts):
            return True
        for candidate in (self.type,) if self.type is not None else ARROW_TYPES[self.declared]:
            if convert_column(texts, candidate) is not None:
                self.type = candidate
                return True
        return False

    @property
    def field(self) -> Any:
        """The Arrow field. A column without any value has its declared type, or else is text."""
        default = ARROW_TYPES[self.declared][0] if self.declared else pa.string()
        return pa.field(self.name, self.type if self.type is not None else default)


def convert_column(texts: Any, type_: Any) -> Any | None:
    """Return a column of text converted to an Arrow type. Return None if a value does not fit."""
    if type_ == pa.string():
        return texts
    try:
        return _empty_to_null(texts).cast(type_)
    except pa.ArrowInvalid:
        return None


def find_first_misfit(texts: Any, type_: Any) -> int:
    """Return the index of the first text that does not fit an Arrow type, by bisection. There must be one."""
    low, high = 0, len(texts)
    while high - low > 1:
        middle = (low + high) // 2
        if convert_column(texts.slice(low, middle - low), type_) is None:
            high = middle
        else:
            low = middle
    return low


def describe_misfit(text: Any, type_: Any, declared: ColumnType) -> str:
    """Return why a text does not fit the Arrow type of its column, as words that follow the text.

    `text` is an array of that text alone.
    """
    if type_ == _TIMESTAMP and convert_column(text, _ZONED_TIMESTAMP) is not None:
        return "has a time zone, and other values have none: give all of them one, or none"
    if type_ == _ZONED_TIMESTAMP and convert_column(text, _TIMESTAMP) is not None:
        return "has no time zone, and other values have one: give all of them one, or none"
    return f"is no {declared}"


def _empty_to_null(texts: Any) -> Any:
    """Return a column of text with null for each text that means "no value"."""
    is_empty = pc.is_in(texts, value_set=pa.array(_NO_VALUE))
    return pc.if_else(is_empty, pa.scalar(None, pa.string()), texts) if pc.any(is_empty).as_py() else texts


def _cast_exactly(values: Any, type_: Any) -> Any | None:
    """Return texts as `type_`. Return None if one does not fit, or if it would be written otherwise again."""
    if type_ == pa.float64() and not _all_true(_mask_short_decimals(values)):
        return None
    if type_ == pa.bool_() and not _all_true(pc.match_substring_regex(values, _WORD_BOOLEAN)):
        return None
    try:
        converted = values.cast(type_)
    except pa.ArrowInvalid:
        return None
    if type_ == pa.int64() and not _all_true(pc.equal(converted.cast(pa.string()), values)):
        return None
    if type_ == pa.float64() and not _keeps_all_digits(values, converted):
        return None
    return converted


def is_exact_double(digits: str) -> bool:
    """True if a number with these digits is finite as a double and loses none of them."""
    number = float(digits)
    return isfinite(number) and Decimal(repr(number)) == Decimal(digits)


def largest_magnitude(numbers: Any) -> float:
    """Return the largest absolute value in an array of numbers; 0 if there is none."""
    extremes = pc.min_max(numbers).as_py().values()
    return max((abs(extreme) for extreme in extremes if extreme is not None), default=0)


def has_wide_integer(array: Any) -> bool:
    """True if an array is one of integers, and a double would round one of them."""
    return bool(array.type == pa.int64() and largest_magnitude(array) > MAX_EXACT_INTEGER)


def _keeps_all_digits(values: Any, doubles: Any) -> bool:
    """True if every double is finite and has all the digits of its text."""
    if not _all_true(pc.is_finite(doubles)):
        return False
    is_long = pc.greater(pc.binary_length(values), _SURELY_EXACT_CHARACTERS)
    is_doubtful = pc.or_(is_long, pc.match_substring_regex(values, "[eE]"))
    is_doubtful = pc.and_(is_doubtful, pc.not_equal(doubles.cast(pa.string()), values))
    return all(is_exact_double(digits) for digits in values.filter(is_doubtful).to_pylist())


def _mask_short_decimals(texts: Any) -> Any:
    """Return a boolean array: True for each text that is a decimal number of few characters."""
    is_short = pc.less_equal(pc.binary_length(texts), _DECIMAL_CHARACTERS)
    return pc.and_(is_short, pc.match_substring_regex(texts, _DECIMAL))


def _all_true(flags: Any) -> bool:
    """True if no value of a boolean array is false. Nulls do not count."""
    return bool(pc.all(flags).as_py())
