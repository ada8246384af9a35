"""The contract of a reader as inheritable tests: see `ReaderContract`."""

import pickle
from dataclasses import dataclass

import numpy as np
import pytest
import scipy.sparse
from support.matrices import Array, dense

from dask_nmf.inference.factors import as_dask_array
from dask_nmf.sources.reader import Reader
from dask_nmf.types import Block

HANDLE_BYTES = 6000  # the most bytes of a pickled reader that is a path or a handle
ROWS = [slice(0, 1), slice(3, 11), slice(0, None)]
COLUMNS = [slice(0, 7), slice(4, 5), slice(2, None)]


@dataclass(frozen=True)
class ReaderCase:
    """A reader and the matrix that it must return."""

    reader: Reader
    expected: Array  # in panel orientation and in the dtype of the panels; larger than `HANDLE_BYTES`


class ReaderContract:
    """Tests that every reader passes. A subclass has a fixture ``case``, which returns a `ReaderCase`."""

    @pytest.fixture
    def case(self) -> ReaderCase:
        raise NotImplementedError("a subclass gives the case")

    def test_it_knows_its_shape_and_dtype(self, case: ReaderCase) -> None:
        reader = case.reader
        assert (reader.shape, reader.dtype, reader.ndim) == (case.expected.shape, case.expected.dtype, 2)
        assert all(type(size) is int for size in reader.shape)

    @pytest.mark.parametrize("rows", ROWS, ids=str)
    def test_slices_of_rows_are_those_of_numpy(self, case: ReaderCase, rows: slice) -> None:
        rows = slice(*rows.indices(case.expected.shape[0]))
        check_block(case, case.reader[rows, all_columns(case)], case.expected[rows])

    @pytest.mark.parametrize("columns", COLUMNS, ids=str)
    def test_a_box_is_that_of_numpy_if_any_box_is_read(self, case: ReaderCase, columns: slice) -> None:
        columns = slice(*columns.indices(case.expected.shape[1]))
        across = columns if case.reader.any_box else all_columns(case)
        check_block(case, case.reader[slice(2, 9), across], case.expected[2:9, across])

    def test_several_blocks_are_read_as_each_is(self, case: ReaderCase) -> None:
        rows = [slice(0, 1), slice(4, 9)]
        blocks = case.reader.read_all([(part, all_columns(case)) for part in rows])
        for block, part in zip(blocks, rows, strict=True):
            check_block(case, block, case.expected[part])

    def test_a_dask_array_of_it_has_the_blocks_that_are_wanted(self, case: ReaderCase) -> None:
        rows, columns = case.expected.shape
        heights, own = (6, rows - 11, 5), case.reader.dask_array
        chunks = heights, (columns,)
        array = as_dask_array(case.reader, chunks) if own is None else own.rechunk(chunks)
        assert array.chunks == (heights, (columns,))
        assert scipy.sparse.issparse(array._meta) == case.reader.sparse
        check_block(case, array.blocks[1, 0].compute(scheduler="synchronous"), case.expected[6:-5])

    def test_it_travels_to_other_processes(self, case: ReaderCase) -> None:
        packed = pickle.dumps(case.reader)
        travelled = pickle.loads(packed)
        assert (travelled.shape, travelled.dtype) == (case.reader.shape, case.reader.dtype)
        check_block(case, travelled[slice(3, 8), all_columns(case)], case.expected[3:8])

    def test_its_traits_are_true(self, case: ReaderCase) -> None:
        reader = case.reader
        computed_by_dask = reader.dask_array is not None
        if not reader.in_memory and not computed_by_dask:
            assert case.expected.nbytes > HANDLE_BYTES > len(pickle.dumps(reader))
        assert not (reader.worth_caching and (reader.in_memory or computed_by_dask))
        if reader.dask_array is not None:
            assert reader.dask_array.shape == reader.shape
        if reader.plain_array is not None:
            plain = np.asarray(reader.plain_array[:])
            assert plain.shape in (reader.shape, reader.shape[::-1])
            np.testing.assert_array_equal(plain if plain.shape == reader.shape else plain.T, case.expected)


def all_columns(case: ReaderCase) -> slice:
    return slice(0, case.expected.shape[1])


def check_block(case: ReaderCase, block: Block, expected: Array) -> None:
    """Check that a block has the expected entries and the kind that its reader declares."""
    assert type(block) is (scipy.sparse.csr_array if case.reader.sparse else np.ndarray)
    assert block.dtype == expected.dtype
    if case.reader.sparse:
        assert block.has_canonical_format
    np.testing.assert_array_equal(dense(block), expected)
