"""The lines of a text of numbers, counted in one pass."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from dask_nmf.kernels.compiled import compiled

NEWLINE, RETURN, SPACE, QUOTE, PERCENT = (np.uint8(code) for code in b'\n\r "%')


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
