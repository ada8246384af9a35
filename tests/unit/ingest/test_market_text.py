"""Entries of plain lines of MatrixMarket are those that SciPy reads."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.io import mmread

from dask_nmf.ingest.formats.matrices.market_text import Parsed, plain_entries, read_header

SHAPE = (30, 40)
INTEGERS = st.integers(0, 10**17).map(str)
REALS = (
    INTEGERS
    | st.decimals(0, 100, places=16).map(str)
    | st.floats(0, 1e9).map(repr)
    | st.just("0" * 9 + "1.5")
)
ODD = ["", "-1", "+1", "1.", ".5", "1 2", "nan", "1\r", "1 ", "0x1", "1,5", "1e5"]


def header_of(field: str, entries: int) -> bytes:
    return f"%%MatrixMarket matrix coordinate {field} general\n{SHAPE[0]} {SHAPE[1]} {entries}\n".encode()


def parsed(field: str, lines: list[str]) -> Parsed | None:
    header = read_header(BytesIO(header_of(field, len(lines))), Path("v.mtx"))
    return plain_entries("".join(f"{line}\n" for line in lines).encode(), header)


@pytest.mark.parametrize("field", ["integer", "unsigned-integer", "real", "double"])
@given(data=st.data())
def test_entries_of_plain_lines(field: str, data: st.DataObject) -> None:
    values = INTEGERS if "integer" in field else REALS
    line = st.tuples(
        st.integers(1, SHAPE[0]),
        st.sampled_from([" ", "  ", "\t"]),
        st.integers(1, SHAPE[1]),
        st.just(" "),
        values,
    ).map(lambda parts: "".join(map(str, parts)))
    lines = data.draw(st.lists(line, max_size=9))
    found = parsed(field, lines)
    digits = [line.split()[2].replace(".", "") for line in lines]
    assert (found is not None) == all(one.isdigit() and len(one) < 19 and int(one) <= 2**53 for one in digits)
    if found is not None:
        text = "".join(f"{line}\n" for line in lines).encode()
        expected = mmread(BytesIO(header_of(field, len(lines)) + text), spmatrix=False)
        for one, other in zip(found, (*expected.coords, expected.data), strict=True):
            np.testing.assert_array_equal(one, other)
        assert found.values.dtype == expected.data.dtype


def test_lines_that_are_not_plain() -> None:
    for line in (
        "0 1 1",
        "31 1 1",
        "1 41 1",
        "1 1",
        "1",
        "",
        " 1 1 1",
        "% 1",
        "1  1\t",
        *(f"1 1 {odd}" for odd in ODD),
    ):
        assert parsed("real", ["1 1 1", line, "2 2 2"]) is None
    assert parsed("integer", ["1 1 1.5"]) is None
    assert parsed("pattern", ["1 1"]) is None
