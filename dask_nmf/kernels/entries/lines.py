"""The lines of a text of numbers, counted in one pass."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from dask_nmf.kernels.compiled import compiled

NEWLINE, RETURN, SPACE, PERCENT = np.uint8(10), np.uint8(13), np.uint8(32), np.uint8(37)


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
def end_of_lines(text: NDArray[np.uint8], count: int, empty_too: bool) -> tuple[int, int]:
    """Return where the line ends that is number ``count`` in a text, and how many lines are left to find.

    Lines without anything but a return do not count, unless ``empty_too``. The text ends with a line.
    """
    is_empty = True
    for i in range(len(text)):
        if text[i] == NEWLINE:
            if empty_too or not is_empty:
                count -= 1
                if count == 0:
                    return i + 1, 0
            is_empty = True
        elif text[i] != RETURN:
            is_empty = False
    return len(text), count
