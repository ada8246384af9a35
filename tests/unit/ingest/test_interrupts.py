"""A conversion that is interrupted stops reading at once, and leaves nothing behind."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import h5py
import numpy as np
import pytest
import scipy.io
import scipy.sparse

from dask_nmf.ingest import convert
from dask_nmf.ingest.entries.sorting import RowSorter
from dask_nmf.ingest.formats.matrices import market_text, matrix_rows
from dask_nmf.ingest.formats.tables import csv_table
from dask_nmf.ingest.rows import read_ahead

STEPS = 150  # of 0.02 s each, of a source that is read to its end


def write_source(folder: Path, name: str) -> Path:
    v = scipy.sparse.random_array((STEPS, STEPS), density=0.5, rng=np.random.default_rng(0), format="csc")
    path = folder / name
    if name == "v.mtx":
        scipy.io.mmwrite(path, v)
    elif name == "v.h5":
        with h5py.File(path, "w") as file:
            group = file.create_group("X")
            group.attrs.update({"encoding-type": "csc_matrix", "shape": v.shape})
            for part in ("data", "indices", "indptr"):
                group[part] = getattr(v, part)
    else:
        lines = (f"{row},{column},1\n" for row in range(STEPS) for column in range(STEPS))
        path.write_text("user,item,rating\n" + "".join(lines))
    return path


@pytest.fixture
def python_interrupts() -> Iterator[None]:
    """SIGINT raises `KeyboardInterrupt`, also where dask-jobqueue was imported, which has its own handler."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("python_interrupts")
@pytest.mark.parametrize("name", ["v.mtx", "v.csv", "v.h5"])
def test_a_source_that_is_read_whole_before_its_first_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    path = write_source(tmp_path, name)
    monkeypatch.setattr(market_text, "TEXT", 1000)
    monkeypatch.setattr(csv_table, "BLOCK", 1000)
    monkeypatch.setattr(matrix_rows, "BATCH", 1000)
    monkeypatch.setattr(RowSorter.__init__, "__defaults__", (1, 1))
    main, read = threading.get_ident(), []

    def add(sorter: RowSorter, entries: object, position: object) -> None:
        read.append(entries)
        if len(read) == 10:
            signal.pthread_kill(main, signal.SIGINT)
        time.sleep(0.02)

    monkeypatch.setattr(RowSorter, "add", add)
    options = {"row": "user", "column": "item", "value": "rating"} if name == "v.csv" else {}
    with pytest.raises(KeyboardInterrupt):
        convert(path, tmp_path / "v.zarr", **options)
    assert 10 <= len(read) < STEPS / 2
    assert list(tmp_path.iterdir()) == [path]


def test_an_iteration_that_ends_early_closes_what_it_reads() -> None:
    closed = []

    def numbers() -> Iterator[int]:
        try:
            yield from range(9)
        finally:
            closed.append(True)

    items = read_ahead(numbers())
    assert next(items) == 0
    items.close()
    assert closed == [True]
