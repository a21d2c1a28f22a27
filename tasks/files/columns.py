"""Find the type of a column of text, batch by batch, and convert it.

A type is taken only if it loses nothing: `007`, a number of which a double would lose digits or a mix stay
text. Types are found over the whole file, so no late value can contradict an early guess (pyarrow's streaming
reader infers from its first block alone: apache/arrow#46223).
"""

from dataclasses import dataclass
from decimal import Decimal
from math import isfinite
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from millpond.tasks.files.contract import ColumnType

#: Texts for "no value" in a column that is not text.
NOTHING = ("", "NA", "N/A", "NULL", "null", "NaN", "nan")

_MOMENT = pa.timestamp("us")
_ZONED_MOMENT = pa.timestamp("us", tz="UTC")
#: In the order in which they are tried.
_CANDIDATES = (pa.bool_(), pa.int64(), pa.float64(), pa.date32(), _MOMENT, _ZONED_MOMENT)
#: The types that a type may turn into when a later batch does not fit: those that fit every earlier one too.
_WIDER = {pa.int64(): pa.float64(), pa.date32(): _MOMENT}
#: The types that a declared type may become; the first one if there is no value.
DECLARED: dict[ColumnType, tuple[Any, ...]] = {
    "string": (pa.string(),),
    "int64": (pa.int64(),),
    "float64": (pa.float64(),),
    "bool": (pa.bool_(),),
    "date": (pa.date32(),),
    "timestamp": (_MOMENT, _ZONED_MOMENT),
}
#: Numbers that a double holds to the last digit that is written, and that are written as doubles are.
_DECIMAL = r"^-?(0|[1-9][0-9]{0,14})(\.[0-9]+)?([eE][+-]?[0-9]{1,3})?$"
_DECIMAL_CHARACTERS = 24
_WORD_BOOLEAN = r"^([tT]rue|TRUE|[fF]alse|FALSE)$"
#: A double prints a number of at most this many characters, without an exponent, unchanged.
_SURELY_EXACT_CHARACTERS = 16
#: Integers up to here are the same as doubles.
EXACT = 2**53


@dataclass
class Column:
    """Infers the type of one column from its record batches, in order, unless `declared` fixes it."""

    name: str
    declared: ColumnType | None = None
    type: Any = None
    _wide: bool = False

    def learn_type(self, texts: Any) -> bool:
        """Learn from one record batch. Return False if a value does not fit the declared type."""
        if texts.null_count == len(texts) or self.type == pa.string():
            return True
        if self.declared:
            return self._learn_declared(texts)
        wider = _WIDER.get(self.type)
        tried: tuple[Any, ...] = _CANDIDATES
        if self.type is not None:
            tried = (self.type,) if wider is None or self._wide else (self.type, wider)
        values = empty_to_null(texts)
        if values.null_count == len(values):
            return True
        for candidate in tried:
            converted = _cast_exactly(values, candidate)
            if converted is not None:
                self.type = candidate
                self._wide = self._wide or _has_wide_integer(converted)
                return True
        self.type = pa.string()
        return True

    def _learn_declared(self, texts: Any) -> bool:
        """Read a batch of a column with a declared type. Return False if a value does not fit the type."""
        assert self.declared is not None
        for candidate in (self.type,) if self.type is not None else DECLARED[self.declared]:
            if convert_column(texts, candidate) is not None:
                self.type = candidate
                return True
        return False

    @property
    def field(self) -> Any:
        """Return the Arrow field. A column without any value is text unless declared otherwise."""
        unseen = DECLARED[self.declared][0] if self.declared else pa.string()
        return pa.field(self.name, self.type if self.type is not None else unseen)


def convert_column(texts: Any, type_: Any) -> Any | None:
    """Return a column of text as `type_`, or None if a value does not fit."""
    if type_ == pa.string():
        return texts
    try:
        return empty_to_null(texts).cast(type_)
    except pa.ArrowInvalid:
        return None


def first_misfit(texts: Any, type_: Any) -> int:
    """Return the index of the first value that `type_` does not fit, by halving."""
    low, high = 0, len(texts)
    while high - low > 1:
        middle = (low + high) // 2
        if convert_column(texts.slice(low, middle - low), type_) is None:
            high = middle
        else:
            low = middle
    return low


def empty_to_null(texts: Any) -> Any:
    """Return the column with null for every spelling of no value."""
    nothing = pc.is_in(texts, value_set=pa.array(NOTHING))
    return pc.if_else(nothing, pa.scalar(None, pa.string()), texts) if pc.any(nothing).as_py() else texts


def _cast_exactly(values: Any, type_: Any) -> Any | None:
    """Return the values as `type_` if nothing of how they are written is lost, else None."""
    if type_ == pa.float64() and not _all_true(_short_decimal_mask(values)):
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
    """True if the double of these digits prints as the same number, so that no digit was lost."""
    number = float(digits)
    return isfinite(number) and Decimal(repr(number)) == Decimal(digits)


def _keeps_all_digits(values: Any, doubles: Any) -> bool:
    """True if every number is finite, and no digit of those that are written was lost."""
    if not _all_true(pc.is_finite(doubles)):
        return False
    long = pc.greater(pc.binary_length(values), _SURELY_EXACT_CHARACTERS)
    doubtful = pc.or_(long, pc.match_substring_regex(values, "[eE]"))
    doubtful = pc.and_(doubtful, pc.not_equal(doubles.cast(pa.string()), values))
    return all(is_exact_double(digits) for digits in values.filter(doubtful).to_pylist())


def _short_decimal_mask(texts: Any) -> Any:
    """Return a boolean array: True for each text that is a decimal number of few characters."""
    short = pc.less_equal(pc.binary_length(texts), _DECIMAL_CHARACTERS)
    return pc.and_(short, pc.match_substring_regex(texts, _DECIMAL))


def _has_wide_integer(converted: Any) -> bool:
    """True if the values contain an integer that a double could not hold."""
    if converted.type != pa.int64():
        return False
    ends = pc.min_max(converted).as_py()
    return bool(max(abs(ends["min"]), abs(ends["max"])) > EXACT)


def _all_true(flags: Any) -> bool:
    return bool(pc.all(flags).as_py())
