"""The fields of plain lines, found by words of 8 bytes: texts with their hashes, and numbers.

A number is plain if it has digits, and perhaps a point and more digits, and float64 holds its integer without
the point: divided by a power of ten that float64 holds too, it gives the nearest float64 (Clinger, "How to
read floating point numbers accurately", 1990). A text must be followed by `PADDING` more bytes.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from dask_nmf.kernels.compiled import compiled
from dask_nmf.kernels.entries.words import EIGHT, ONE, ZERO, Bytes, Words, finished, mixed, word_at
from dask_nmf.types import Array

PADDING = 16  # bytes, none of them a digit
SKIPPED, ROW, COLUMN, VALUE = range(4)  # the roles of fields
NEWLINE, TAB, SPACE, QUOTE, POINT = (np.uint64(code) for code in b'\n\t ".')
DIGIT, NINE, TEN = np.uint64(ord("0")), np.uint64(9), np.uint64(10)
EACH, HIGHEST = (
    np.uint64(0x0101010101010101),
    np.uint64(0x8080808080808080),
)  # 1 and a bit of each byte
SEVEN, TOP, INDICES = np.uint64(7), np.uint64(56), np.uint64(0x0001020304050607)
LONGEST = np.uint64(19)  # characters of a number, whose integer 64 bits hold
EXACT = np.uint64(2**53)
POWERS = 10.0 ** np.arange(LONGEST)


@compiled(inlined=True)
def _has(word: Any, byte: Any) -> Any:
    """Return the highest bit of the first byte of a word that is a given one, and perhaps of later ones."""
    different = word ^ (byte * EACH)
    return (different - EACH) & ~different & HIGHEST


@compiled(inlined=True)
def _digits(text: Bytes, i: Any, number: Any) -> Any:
    """Return the number that more digits make of a number, and where they end."""
    digit = np.uint64(text[i]) - DIGIT
    while digit <= NINE:
        number = number * TEN + digit
        i += ONE
        digit = np.uint64(text[i]) - DIGIT
    return number, i


@compiled(inlined=True)
def _number(text: Bytes, i: Any) -> Any:
    """Return a number without its point, the digits after that, and its end: 0 if it is not plain."""
    number, end = _digits(text, i, ZERO)
    after = ZERO
    is_plain = end > i
    if np.uint64(text[end]) == POINT:
        number, last = _digits(text, end + ONE, number)
        after = last - end - ONE
        is_plain = is_plain and after > ZERO
        end = last
    return number, after, end if is_plain and end - i <= LONGEST and number <= EXACT else ZERO


@compiled()
def split_records(
    text: Bytes, size: int, delimiter: int, roles: Array, starts: Array, ends: Array, hashes: Words,
    values: Array,
) -> int:  # fmt: skip
    """Find the ids of rows and of columns, with their hashes, and the values in lines of fields.

    Returns the number of lines; -1 if one is not plain. A plain line has a field
    for each role, ids that are not empty, a plain number, and quotes around whole fields, with none inside.

    Parameters
    ----------
    size : of the text, which ends with a line
    roles : of the fields of a line
    starts, ends, hashes : those of the ids of rows, and of columns, (2, at least as many as lines)
    """
    i, line = ZERO, 0
    between = np.uint64(delimiter)
    while i < np.uint64(size):
        for field in range(len(roles)):
            role = roles[field]
            if role == VALUE:
                number, after, i = _number(text, i)
                if i == ZERO:
                    return -1
                values[line] = np.float64(number) / POWERS[after]
            else:
                is_quoted = np.uint64(text[i]) == QUOTE
                if is_quoted:
                    i += ONE
                begin, hashed = i, ZERO
                closing = QUOTE if is_quoted else between
                word = word_at(text, i)
                found = _has(word, closing) | _has(word, NEWLINE)
                while found == ZERO:
                    hashed = mixed(hashed, word)
                    i += EIGHT
                    word = word_at(text, i)
                    found = _has(word, closing) | _has(word, NEWLINE)
                lowest = (found & (~found + ONE)) >> SEVEN
                i += (lowest * INDICES) >> TOP
                if role != SKIPPED:
                    if i == begin:
                        return -1
                    id_of = role - ROW
                    starts[id_of, line], ends[id_of, line] = begin, i
                    hashes[id_of, line] = finished(hashed, word & (lowest - ONE), i - begin)
                if is_quoted:
                    if np.uint64(text[i]) != QUOTE:
                        return -1
                    i += ONE
            if np.uint64(text[i]) != (between if field + 1 < len(roles) else NEWLINE):
                return -1
            i += ONE
        line += 1
    return line


@compiled(inlined=True)
def _index(text: Bytes, i: Any, size: Any) -> Any:
    """Return an index, counted from 0, that blanks follow, and where these end: at 0 if it is not plain."""
    number, end = _digits(text, i, ZERO)
    is_plain = end > i and end - i < LONGEST and number - ONE < size
    i = end
    while np.uint64(text[i]) == SPACE or np.uint64(text[i]) == TAB:
        i += ONE
    return number - ONE, i if is_plain and i > end else ZERO


@compiled()
def split_entries(
    text: Bytes, size: int, shape: tuple[int, int], whole: bool, rows: Array, columns: Array, values: Array
) -> int:
    """Fill in the rows and columns, counted from 0, and the values of lines of entries.

    Returns the number of lines; -1 if one is not plain. A plain line has a row and
    a column of a matrix of this shape, and a plain number, with blanks between them.

    Parameters
    ----------
    size : of the text, which ends with a line
    whole : whether a plain number has no point
    """
    i, line = ZERO, 0
    while i < np.uint64(size):
        row, i = _index(text, i, np.uint64(shape[0]))
        if i == ZERO:
            return -1
        column, i = _index(text, i, np.uint64(shape[1]))
        if i == ZERO:
            return -1
        number, after, i = _number(text, i)
        if i == ZERO or np.uint64(text[i]) != NEWLINE or (whole and after > ZERO):
            return -1
        rows[line], columns[line] = row, column
        values[line] = np.float64(number) / POWERS[after]
        i += ONE
        line += 1
    return line
