"""The lines of a text of numbers, counted in one pass."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from dask_nmf.kernels.compiled import compiled

NEWLINE, RETURN, TAB, SPACE, QUOTE, PERCENT = (np.uint8(code) for code in b'\n\r\t "%')
ZERO, NINE, PLUS, MINUS, POINT = (np.uint8(code) for code in b"09+-.")
LOWER = np.uint8(32)  # the bit by which a small letter differs from a capital
LETTER_A, LETTER_E, LETTER_Z = (np.uint8(code) for code in b"aez")
BLANK, SIGN, DIGITS, BARE_POINT, FRACTION, MARK, MARK_SIGN, EXPONENT, WORD = range(9)  # parts of a number


@compiled()
def count_plain_lines(text: NDArray[np.uint8]) -> int:
    """Return the number of lines; -1 if one is empty, ends with a space or a return, or has a ``%``."""
    lines = 0
    before = NEWLINE
    for byte in text:
        if byte == NEWLINE:
            if before in (NEWLINE, SPACE):
                return -1
            lines += 1
        elif byte in (PERCENT, RETURN):
            return -1
        before = byte
    return lines


@compiled()
def first_odd_line(text: NDArray[np.uint8], fields: int, whole: bool) -> int:
    """Return the number, from 0, of the first line that is no entry of a matrix; -1 if each line is one.

    An entry is a row and a column in digits, and a number if there are three fields: with digits and perhaps
    a sign, a point and an exponent, or a word of 3 or 8 letters (nan, inf, infinity).

    Parameters
    ----------
    fields : of each line: 3, or 2 without a number
    whole : whether the number must be an integer
    """
    line, field, part, letters = 0, 0, BLANK, 0
    for byte in text:
        if byte in (NEWLINE, SPACE, TAB):
            if part in (SIGN, BARE_POINT, MARK, MARK_SIGN) or (part == WORD and letters not in (3, 8)):
                return line
            part = BLANK
            if byte == NEWLINE:
                if field != fields:
                    return line
                line, field = line + 1, 0
            continue
        before = part
        if before == BLANK:
            field += 1
        letter = byte | LOWER
        if ZERO <= byte <= NINE:
            if before == WORD:
                return line
            if before <= DIGITS:
                part = DIGITS
            elif before <= FRACTION:
                part = FRACTION
            else:
                part = EXPONENT
        elif field < 3:
            return line
        elif byte in (PLUS, MINUS) and before in (BLANK, MARK):
            part = SIGN if before == BLANK else MARK_SIGN
        elif whole:
            return line
        elif byte == POINT and before <= DIGITS:
            part = FRACTION if before == DIGITS else BARE_POINT
        elif letter == LETTER_E and before in (DIGITS, FRACTION):
            part = MARK
        elif LETTER_A <= letter <= LETTER_Z and before in (BLANK, SIGN, WORD):
            part, letters = WORD, letters + 1 if before == WORD else 1
        else:
            return line
    return -1


@compiled()
def end_of_lines(
    text: NDArray[np.uint8], count: int, empty_too: bool, delimiter: int, quoted: bool
) -> tuple[int, int, bool]:
    """Return where the record ends that is number ``count`` in a text, and how many are left to find.

    A record ends at a newline, at a return, or at a return and a newline, but not inside of a quoted field,
    which begins with a quote at the beginning of a field. Empty records do not count, unless ``empty_too``.
    The text ends with a line.

    Parameters
    ----------
    delimiter : the byte between two fields; -1 if quotes have no meaning
    quoted : whether the text begins inside of a quoted field; returned too, for the text that follows
    """
    is_empty, begins = not quoted, not quoted
    closed = -2  # where a quoted field was closed, unless a second quote follows
    for i in range(len(text)):
        byte = text[i]
        if quoted:
            if byte == QUOTE:
                quoted, closed = False, i
        elif byte == NEWLINE or (byte == RETURN and (i + 1 == len(text) or text[i + 1] != NEWLINE)):
            if empty_too or not is_empty:
                count -= 1
                if count == 0:
                    return i + 1, 0, False
            is_empty = begins = True
        elif byte != RETURN:
            quoted = delimiter >= 0 and byte == QUOTE and (begins or closed == i - 1)
            begins = byte == delimiter
            is_empty = False
    return len(text), count, quoted
