"""A conversion that was stopped goes on after the rows that were written, and gives the same bits."""

from __future__ import annotations

import gzip
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pyarrow
import pyarrow.csv
import pyarrow.parquet
import pytest
import scipy.sparse
import zarr
from PIL import Image
from support.converted import bytes_of, matrix_of

from dask_nmf.ingest import convert
from dask_nmf.ingest.formats import images
from dask_nmf.ingest.formats.documents import counting, texts
from dask_nmf.ingest.formats.matrices import hierarchies, matrix_rows, transposed
from dask_nmf.ingest.formats.tables import csv_table, csv_text, parquet_table
from dask_nmf.ingest.output import checkpoint, growing
from dask_nmf.ingest.output.growing import GrowingArray

V = np.random.default_rng(0).integers(0, 9, (90, 6)).astype(np.float32)
WORDS = np.array(["tea", "rice", "milk", "rain", "hills", "café"])


def write_table(path: Path, v: np.ndarray = V) -> None:
    columns = {"name": [f"é{i}" for i in range(len(v))]} | {f"c{j}": v[:, j] for j in range(v.shape[1])}
    if path.suffix == ".parquet":
        pyarrow.parquet.write_table(pyarrow.table(columns), path, row_group_size=40)
    else:
        pyarrow.csv.write_csv(pyarrow.table(columns), path)


def write_hdf5(path: Path) -> None:
    with h5py.File(path, "w") as file:
        if path.suffix == ".h5ad":
            file["X"] = V
            return
        csr = scipy.sparse.csr_array(V)
        group = file.create_group("matrix")
        for part in ("data", "indices", "indptr"):
            group[part] = getattr(csr, part)
        group["shape"] = V.shape[::-1]
        group["barcodes"] = [f"cell{i}" for i in range(90)]
        group["features/id"] = [f"gene{j}" for j in range(6)]


def write_images(path: Path) -> None:
    path.mkdir()
    frames = [Image.fromarray(row.reshape(2, 3).astype(np.uint8)) for row in V]
    for i in range(0, 60, 3):
        frames[i].save(path / f"{i:02}.png")
    frames[60].save(path / "stack.tif", save_all=True, append_images=frames[61:])


def write_texts(path: Path) -> None:
    lines = [" ".join(np.repeat(WORDS, row.astype(int))) for row in V]
    if path.suffix == ".jsonl":
        path.write_text("".join(f'{{"id": "t{i}", "body": "{line}"}}\n' for i, line in enumerate(lines)))
        return
    path.mkdir()
    for i, line in enumerate(lines[:20]):
        (path / f"{i}.txt").write_text(line)


def write_zipped(path: Path) -> None:
    write_table(path.with_suffix(""))
    path.write_bytes(gzip.compress(path.with_suffix("").read_bytes()))
    path.with_suffix("").unlink()


def write_parts(path: Path) -> None:
    path.mkdir()
    for number in range(3):
        write_table(path / f"{number}.csv", V[30 * number : 30 * (number + 1)])


def write_spaced(path: Path) -> None:
    write_table(path)
    path.write_text(path.read_text().replace("\n", "\n\n"))


KINDS: dict[str, tuple[Callable[[Path], Any], dict[str, Any]]] = {
    "v.csv": (write_table, {"row": "name"}),
    "spaced.csv": (write_spaced, {"row": "name"}),
    "v.csv.gz": (write_zipped, {"row": "name"}),
    "v.parquet": (write_table, {"row": "name"}),
    "parts": (write_parts, {"row": "name"}),
    "v.npy": (lambda path: np.save(path, V), {}),
    "v.zarr": (lambda path: zarr.create_array(path, data=V, chunks=(7, 3)), {}),
    "v.h5ad": (write_hdf5, {}),
    "v.h5": (write_hdf5, {"chunks": 40}),
    "v.npz": (lambda path: scipy.sparse.save_npz(path, scipy.sparse.csr_array(V)), {"chunks": 40}),
    "images": (write_images, {}),
    "texts": (write_texts, {"chunks": 20}),
    "v.jsonl": (write_texts, {"text": "body", "row": "id", "chunks": 40}),
    "turned.csv": (write_table, {"row": "name", "transpose": True, "chunks": 1}),
    "turned.npy": (lambda path: np.save(path, V), {"transpose": True, "chunks": 1}),
    "steps.npy": (lambda path: np.save(path, V), {"scale_columns": "max", "chunks": 7}),
    "steps.jsonl": (write_texts, {"text": "body", "tfidf": True, "chunks": 100}),
}


@pytest.fixture(autouse=True)
def _small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    for module, name, number in (
        (csv_table, "BLOCK", 300),
        (csv_text, "BUFFER", 100),
        (parquet_table, "RECORDS", 9),
        (parquet_table, "BATCH", 500),
        (matrix_rows, "BATCH", 200),
        (hierarchies, "BATCH", 200),
        (images, "BATCH", 100),
        (counting, "TEXTS", 7),
        (counting, "SECONDS", 0),
        (texts, "RECORDS", 9),
        (growing, "AT_ONCE", 1),
        (transposed, "BATCH", 500),
        (transposed, "CHUNK", 100),
        (transposed, "TALLEST", 8),
        (checkpoint, "SECONDS", 0),
        (checkpoint, "SHARE", 0),
    ):
        monkeypatch.setattr(module, name, number)


def stopped_at(write: int, monkeypatch: pytest.MonkeyPatch, *given: Any, **options: Any) -> bool:
    """Convert; stop at a write of an array, before it or, if its number is odd, after it. Return whether."""
    number = 0

    def written(array: GrowingArray, count: int) -> None:
        nonlocal number
        number += 1
        if number == write and write % 2 == 0:
            raise KeyboardInterrupt
        original(array, count)
        if number == write:
            raise KeyboardInterrupt

    original = GrowingArray._write
    with monkeypatch.context() as patch:
        patch.setattr(GrowingArray, "_write", written)
        try:
            convert(*given, **options)
        except KeyboardInterrupt:
            return True
    return False


@pytest.mark.parametrize("name", KINDS)
def test_the_bits_are_those_of_one_that_was_not_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    write, options = KINDS[name]
    source = tmp_path / name
    write(source)
    options = {"chunks": 3, **options}
    convert(source, tmp_path / "expected.zarr", **options)
    number = 2
    with caplog.at_level(logging.INFO, "dask_nmf"):
        while stopped_at(number, monkeypatch, source, tmp_path / "out.zarr", **options):
            number += 1
            assert not (tmp_path / "out.zarr").exists()
    assert number > 2
    assert caplog.text.count("it goes on") >= 1
    assert bytes_of(tmp_path / "out.zarr") == bytes_of(tmp_path / "expected.zarr")
    assert {path.name for path in tmp_path.iterdir()} == {name, "out.zarr", "expected.zarr"}


def test_a_source_that_changed_begins_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    np.save(tmp_path / "v.npy", V)
    assert stopped_at(5, monkeypatch, tmp_path / "v.npy", tmp_path / "v.zarr", chunks=3)
    np.save(tmp_path / "v.npy", V + 1)
    with caplog.at_level(logging.INFO, "dask_nmf"):
        convert(tmp_path / "v.npy", tmp_path / "v.zarr", chunks=3)
    assert "had other sources, options or another version of dask_nmf; this one begins anew" in caplog.text
    np.testing.assert_array_equal(matrix_of(tmp_path / "v.zarr"), V + 1)
    assert {path.name for path in tmp_path.iterdir()} == {"v.npy", "v.zarr"}


@pytest.mark.parametrize(
    ("file", "stage"),
    [("scratch/transposed_begun/checkpoint.npz", 9), ("scratch/checkpoint.npz", 17), ("zarr.json", 17)],
)
def test_damaged_files_begin_anew(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    file: str,
    stage: int,
) -> None:
    np.save(tmp_path / "v.npy", V)
    options = {"transpose": True, "chunks": 1}
    convert(tmp_path / "v.npy", tmp_path / "expected.zarr", **options)
    assert stopped_at(stage, monkeypatch, tmp_path / "v.npy", tmp_path / "v.zarr", **options)
    (partial,) = tmp_path.glob(".v.zarr.*.partial")
    assert (partial / file).exists()
    (partial / file).write_bytes(b"")
    with caplog.at_level(logging.INFO, "dask_nmf"):
        convert(tmp_path / "v.npy", tmp_path / "v.zarr", **options)
    assert caplog.text.count("that was stopped are damaged") == 1
    assert bytes_of(tmp_path / "v.zarr") == bytes_of(tmp_path / "expected.zarr")


def test_texts_that_are_named_from_another_folder_begin_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "all").mkdir()
    write_texts(tmp_path / "all" / "texts")
    files = tmp_path / "all" / "texts" / "*.txt"
    assert stopped_at(5, monkeypatch, tmp_path / "all", tmp_path / "v.zarr", chunks=20)
    convert(files, tmp_path / "v.zarr", chunks=20)
    convert(files, tmp_path / "expected.zarr", chunks=20)
    assert bytes_of(tmp_path / "v.zarr") == bytes_of(tmp_path / "expected.zarr")
