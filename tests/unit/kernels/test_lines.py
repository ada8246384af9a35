"""Lines of entries are told from others as a regular expression tells them."""

from __future__ import annotations

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dask_nmf.kernels.entries.lines import first_odd_line

INTEGER = r"[+-]?\d+"
REAL = r"[+-]?(\d+\.?\d*([eE][+-]?\d+)?|\.\d+([eE][+-]?\d+)?|[A-Za-z]{3}|[A-Za-z]{8})"
LINES = {
    (3, False): re.compile(rf"[ \t]*\d+[ \t]+\d+[ \t]+{REAL}[ \t]*", re.ASCII),
    (3, True): re.compile(rf"[ \t]*\d+[ \t]+\d+[ \t]+{INTEGER}[ \t]*", re.ASCII),
    (2, False): re.compile(r"[ \t]*\d+[ \t]+\d+[ \t]*", re.ASCII),
}
FIELDS = st.one_of(st.from_regex(rf"\A{REAL}\Z"), st.text("01+-.eEnaf%x", max_size=5), st.integers().map(str))
TEXTS = st.tuples(st.integers(0, 99).map(str), st.integers(0, 99).map(str), FIELDS).map(" ".join)


@pytest.mark.parametrize("kind", LINES)
@given(lines=st.lists(st.one_of(TEXTS, st.text("01 \t.-e", max_size=9), st.just("1\t20 ")), max_size=5))
def test_the_first_line_that_is_no_entry(kind: tuple[int, bool], lines: list[str]) -> None:
    text = np.frombuffer("".join(f"{line}\n" for line in lines).encode(), np.uint8)
    odd = [number for number, line in enumerate(lines) if not LINES[kind].fullmatch(line)]
    assert first_odd_line(text, *kind) == (odd[0] if odd else -1)
