"""The records of a CSV file, whose delimiter is found in its first line."""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Iterator
from functools import partial
from itertools import chain
from pathlib import Path
from typing import TextIO

from dask_nmf.errors import DataError

DELIMITERS = ",\t"
QUOTED = '"(?:[^"]|"")*"?'  # a field in quotes, which may go on in the next line
LONGEST = 2**16  # characters of a line, at most


def records(path: Path, is_first: Callable[[list[str]], bool]) -> Iterator[tuple[int, list[str]]]:
    """Yield the number and the fields of each line that is not blank.

    Blanks before a field belong to it, because a name may begin with some, unless the first line has one
    before a quote: then blanks that follow a delimiter are left out in all lines.

    Parameters
    ----------
    is_first : whether fields are those of a header or a record, which tells the delimiter of the first line.
    """
    with open(path, encoding="utf-8-sig", errors="replace", newline="") as file:
        lines = _lines(file, path)
        first = []
        for line in lines:
            first.append(line)
            if not line.isspace():
                break
        first_line = "".join(first[-1:])
        delimiter = _delimiter(first_line, is_first)
        spaced = _is_spaced(first_line, delimiter)
        reader = csv.reader(chain(first, lines), delimiter=delimiter, skipinitialspace=spaced)
        try:
            for fields in reader:
                if len(fields) > 1 or "".join(fields).strip():
                    yield reader.line_num, fields
        except csv.Error as error:
            raise DataError(f"{path}, line {reader.line_num}: {error}; write a CSV file") from None


def _lines(file: TextIO, path: Path) -> Iterator[str]:
    """Yield the lines of a file; refuse a line that is too long."""
    for number, line in enumerate(iter(partial(file.readline, LONGEST), ""), 1):
        if len(line) == LONGEST and not line.endswith(("\n", "\r")):
            raise DataError(f"{path}, line {number}: {line[:60]!r}... is longer than {LONGEST} characters")
        yield line


def _is_spaced(line: str, delimiter: str) -> bool:
    """Return whether a blank stands before the quote of a field, and not only inside of quotes."""
    unquoted = re.sub(f"(?:^|(?<={delimiter})){QUOTED}", "", line)
    return re.search(f'(?:^|{delimiter}) +"', unquoted) is not None


def _delimiter(line: str, is_first: Callable[[list[str]], bool]) -> str:
    """Return the delimiter with which the first line is a header or a record."""
    for delimiter in DELIMITERS:
        spaced = _is_spaced(line, delimiter)
        if is_first(next(csv.reader([line], delimiter=delimiter, skipinitialspace=spaced), [])):
            return delimiter
    return DELIMITERS[0] if DELIMITERS[0] in line else DELIMITERS[1]
