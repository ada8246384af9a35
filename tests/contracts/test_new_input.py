"""An input kind is one opener and one line in the registry: here one that the package does not have."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.matrices import Array, low_rank
from support.reader_contract import ReaderCase, ReaderContract
from support.runs import Crash, assert_same_bits, crash_after

from dask_nmf import NMF, nmf
from dask_nmf.planning.worker_memory import Layout
from dask_nmf.sources import registry
from dask_nmf.sources.matrix import Matrix
from dask_nmf.sources.opener import Opener, OpenOptions, ends_with
from dask_nmf.sources.reader import Box, ReaderDefaults
from dask_nmf.storage.local.local_location import LocalLocation
from dask_nmf.types import Orientation

V = low_rank(90, 25, 3, dtype=np.float32)
FIT: dict[str, Any] = {"random_state": 3, "max_iter": 15, "tol": 0}

# ---- the new kind: numbers of 32 bits without a header, row after row; the name tells how many are a row


@dataclass(frozen=True)
class RawRows(ReaderDefaults):
    """Rows of a file of raw numbers."""

    path: Path
    shape: tuple[int, int]
    dtype: np.dtype[Any] = field(default=np.dtype(np.float32), init=False)
    any_box: bool = field(default=False, init=False)

    def __getitem__(self, index: Box) -> Array:
        first, last, _ = index[0].indices(self.shape[0])
        count, offset = (size * self.shape[1] for size in (last - first, 4 * first))
        return np.fromfile(self.path, self.dtype, count, offset=offset).reshape(-1, self.shape[1])


def open_raw(location: LocalLocation, options: OpenOptions) -> Matrix:
    columns = int(location.path.stem.rpartition("-")[2])
    shape = location.path.stat().st_size // (4 * columns), columns
    reader = RawRows(location.path, shape)
    return Matrix(shape, reader.dtype, location.name, Orientation.ROWS, Layout(*shape, 4), reader)


RAW = Opener(lambda source: ends_with(source, ".raw"), open_raw)

# ---- its one line in the registry, and its tests


@pytest.fixture
def raw(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(registry, "OPENERS", (RAW, *registry.OPENERS))
    V.tofile(tmp_path / "v-25.raw")
    return tmp_path / "v-25.raw"


class TestRawRows(ReaderContract):
    @pytest.fixture
    def case(self, raw: Path) -> ReaderCase:
        return ReaderCase(registry.open_matrix(raw).reader, V)


@pytest.mark.usefixtures("several_panels")
def test_a_new_kind_is_fitted_and_resumed_as_an_array_is(raw: Path, tmp_path: Path) -> None:
    expected, store = nmf(V, 3, **FIT), tmp_path / "run.zarr"
    assert_same_bits(nmf(raw, 3, **FIT), expected)
    with pytest.raises(Crash):
        nmf(raw, 3, store=store, callback=crash_after(4), **FIT)
    assert_same_bits(nmf(raw, 3, store=store, **FIT), expected)


def test_the_estimator_takes_a_new_kind(raw: Path) -> None:
    model, expected = NMF(3, **FIT).fit(str(raw)), NMF(3, **FIT).fit(V)
    np.testing.assert_array_equal(model.components_, expected.components_)
    np.testing.assert_array_equal(model.transform(str(raw)).compute(), expected.transform(V))


def test_without_its_line_the_kind_is_unknown(tmp_path: Path) -> None:
    V.tofile(tmp_path / "v-25.raw")
    with pytest.raises(ValueError, match=r"another kind; give a Zarr array.* first \(dask-nmf convert\)"):
        nmf(tmp_path / "v-25.raw", 3)
