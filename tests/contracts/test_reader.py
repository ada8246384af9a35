"""Every reader of the package fulfils the contract of readers."""

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from support.matrices import LIBRARIES, SOURCES, sparse
from support.reader_contract import ReaderCase, ReaderContract

from dask_nmf.execution.tasks.block_cache import CachingReader
from dask_nmf.sources.registry import open_matrix

KINDS = SOURCES | LIBRARIES
SHAPES = {"tall": (60, 25), "wide": (25, 60)}


def reopened(source: Any) -> Any:
    """Return a source as a reader finds it: one of HDF5 is no longer open for writing."""
    if not isinstance(source, h5py.Dataset | h5py.Group):
        return source
    file, name = source.file.filename, source.name
    source.file.close()
    return h5py.File(file, "r")[name]


def opened_case(kind: str, shape: tuple[int, int], folder: Path) -> ReaderCase:
    v = sparse(*shape)
    opened = open_matrix(reopened(KINDS[kind](v, folder / "v")))
    return ReaderCase(opened.reader, opened.orientation.turn_array(v))


@pytest.fixture(scope="module", params=[(kind, name) for kind in KINDS for name in SHAPES], ids="-".join)
def opened(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> ReaderCase:
    kind, name = request.param
    return opened_case(kind, SHAPES[name], tmp_path_factory.mktemp("reader"))


class TestReaders(ReaderContract):
    """The reader that `open_matrix` gives for each source."""

    @pytest.fixture
    def case(self, opened: ReaderCase) -> ReaderCase:
        return opened


class TestCachingReader(ReaderContract):
    """The reader that keeps blocks where they were read, around dense and sparse ones."""

    @pytest.fixture(params=["zarr v3", "csr in zarr"])
    def case(self, request: pytest.FixtureRequest, tmp_path: Path) -> ReaderCase:
        inner = opened_case(request.param, SHAPES["tall"], tmp_path)
        return ReaderCase(CachingReader(inner.reader, "a fit", 0), inner.expected)


def test_integers_become_floats(tmp_path: Path) -> None:
    v = np.arange(1500, dtype=np.int16).reshape(60, 25)
    reader = open_matrix(SOURCES["npy"](v, tmp_path / "v")).reader
    block = reader[slice(0, 60), slice(0, 25)]
    assert block.dtype == reader.dtype == np.float32
    np.testing.assert_array_equal(block, v)
