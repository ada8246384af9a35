"""Records of entries are those that pyarrow reads, whether a compiled function parses them or not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dask_nmf.errors import DataError
from dask_nmf.ingest.formats.tables import csv_table, csv_text
from dask_nmf.ingest.formats.tables.csv_table import CsvTable
from dask_nmf.ingest.formats.tables.records import Fields, plain_records
from dask_nmf.ingest.reading import ReadProgress

FIELDS = Fields(1, 0, 3)  # of the columns item, user, note, rating
IDS = st.text("ab é7", min_size=1, max_size=20) | st.sampled_from(
    ['a"b', "NA", '"a,b"', '"ab"', "a" * 8, "b" * 17]
)
ODD_IDS = st.sampled_from(["", '""', '"a""b"', '"a"b', '"a', "a\r"])
NUMBERS = (
    st.integers(0, 10**17).map(str)
    | st.decimals(0, 100, allow_nan=False, places=16).map(str)
    | st.floats(0, allow_infinity=False).map(repr)
)
ODD_NUMBERS = st.sampled_from(
    ["", "NA", "1.", ".5", " 2", "-1", "+1", "1e3", "0x1", "1_0", '"2"', "12 3", "٣", "1e400"]
)
NOTES = st.sampled_from(["", "x", '"a,b"', '"c""d"', "e f", '"g\nh,i\r\n""\n\n"'])
ENDS = st.sampled_from(["\n"] * 8 + ["\r\n", "\n\n", "\r"])


def lines(ids: st.SearchStrategy[str], numbers: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    fields = st.tuples(ids, ids, NOTES, numbers).map(",".join)
    return st.tuples(fields, ENDS).map("".join)


PLAIN = st.lists(lines(IDS, NUMBERS), max_size=20)
MIXED = st.lists(lines(IDS | ODD_IDS, NUMBERS | ODD_NUMBERS) | st.just("a,b\n"), max_size=4)


def outcome(table: CsvTable, by_pyarrow: bool) -> list[tuple[str, str, float]] | str:
    """Return the records of a table, or the message about it."""
    found: list[tuple[str, str, float]] = []
    progress = ReadProgress([table.path])
    try:
        if by_pyarrow:
            for values, rows, columns in table.batches([FIELDS.value], [FIELDS.row, FIELDS.column], progress):
                found += zip(rows.to_pylist(), columns.to_pylist(), values.to_numpy(False), strict=True)
        else:
            for records in table.records(FIELDS, progress):
                ids = [
                    [
                        bytes(part.data[begin:end]).decode()
                        for begin, end in zip(part.starts, part.ends, strict=True)
                    ]
                    for part in records[1:]
                ]
                found += zip(*ids, records.values, strict=True)
    except DataError as error:
        return str(error)
    return found


@given(PLAIN, MIXED, PLAIN, st.integers(50, 400))
def test_records_are_those_of_pyarrow(
    tmp_path_factory: pytest.TempPathFactory,
    before: list[str],
    between: list[str],
    after: list[str],
    size: int,
) -> None:
    path = tmp_path_factory.getbasetemp() / "records.csv"
    path.write_text("item,user,note,rating\n" + "".join([*before, *between, *after]), newline="")
    table = CsvTable(path)
    expected, found = outcome(table, True), None
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(csv_table, "BLOCK", size)
        found = outcome(table, False)
    if not isinstance(expected, str) and any(not row or not column for row, column, _ in expected):
        expected = "an id is empty"
    if isinstance(expected, str):
        assert isinstance(found, str)
    else:
        np.testing.assert_equal(found, expected)


@pytest.mark.parametrize(("rest", "most"), [("", 2**26), ('"', 300)])
def test_a_quote_that_nothing_closes_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rest: str, most: int
) -> None:
    monkeypatch.setattr(csv_table, "BLOCK", 100)
    monkeypatch.setattr(csv_text, "LONGEST_QUOTED", most)
    path = tmp_path / "v.csv"
    path.write_text('item,user,rating,note\na,b,1,"c\nd"\na,b,1,"c\n' + "e,f,2,\n" * 99 + rest)
    with pytest.raises(DataError, match="line 4: a field begins with a quote, which nothing closes"):
        list(CsvTable(path).records(Fields(1, 0, 2), ReadProgress([path])))


def test_pieces_of_plain_lines_need_no_pyarrow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    roles = FIELDS.roles(4)
    for text in "a,b,,1\n", '"a","b","c,",1.5\nü,b,x,0012.50\r\n', "a,b,,9007199254740992\n":
        assert plain_records(text.encode(), ",", roles) is not None
    for text in (
        "a,b,,9007199254740993\n",
        "a,b,,1e5\n",
        "a,,,1\n",
        "a,b,,\n",
        "a,b,,1,\n",
        "a,b,,1\r",
        '"a""","b",,1\n',
    ):
        assert plain_records(text.encode(), ",", roles) is None
    assert plain_records(b"a,\xff,,1\n", ",", roles) is None
