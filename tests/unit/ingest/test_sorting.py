"""Entries in any order become CSR blocks, however they are cut into batches, runs and blocks."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
import scipy.sparse
from hypothesis import given
from hypothesis import strategies as st

from dask_nmf.ingest.entries.sorting import Duplicate, Entries, RowSorter

SHAPE = (9, 7)
cells = st.lists(st.tuples(st.integers(0, 8), st.integers(0, 6), st.integers(1, 9)), max_size=60)
RULES = {"sum": sum, "mean": lambda values: sum(values) / len(values), "last": lambda values: values[-1]}


def sorted_rows(
    entries: list[tuple[int, int, int]], cut: int, sizes: tuple[int, int], rule: str
) -> np.ndarray:
    with TemporaryDirectory() as folder:
        sorter = RowSorter(Path(folder), *sizes)
        for first in range(-cut, len(entries), cut):  # the first ones are none
            rows, columns, values = np.array(entries[max(0, first) : max(0, first + cut)]).reshape(-1, 3).T
            sorter.add(Entries(rows.astype("i4"), columns.astype("i4"), values.astype("f8")))
        blocks = list(sorter.blocks(SHAPE, rule))
    assert all(block.has_canonical_format for block in blocks)
    return scipy.sparse.vstack(blocks).toarray()


@given(cells, st.integers(1, 20), st.integers(1, 40), st.integers(1, 40), st.sampled_from(sorted(RULES)))
def test_blocks_are_the_matrix(
    entries: list[tuple[int, int, int]], cut: int, run: int, merged: int, rule: str
) -> None:
    by_cell: dict[tuple[int, int], list[int]] = {}
    for row, column, value in entries:
        by_cell.setdefault((row, column), []).append(value)
    expected = np.zeros(SHAPE)
    for cell, values in by_cell.items():
        expected[cell] = RULES[rule](values)
    np.testing.assert_allclose(sorted_rows(entries, cut, (run, merged), rule), expected)


def test_a_second_entry_of_a_cell_is_named() -> None:
    with pytest.raises(Duplicate) as found:
        sorted_rows([(1, 2, 3), (8, 6, 1), (1, 2, 3)], 1, (1, 1), "error")
    assert (found.value.row, found.value.column) == (1, 2)
