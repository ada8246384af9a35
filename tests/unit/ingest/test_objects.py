"""Sources in object stores: the same rows as from files, by ranges, and messages with the URL."""

from __future__ import annotations

import gzip
from pathlib import Path
from unittest.mock import Mock

import h5py
import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
import scipy.io
import scipy.sparse
from obstore.store import MemoryStore
from support.converted import matrix_of, names_of

from dask_nmf.errors import DataError
from dask_nmf.ingest import convert
from dask_nmf.ingest.files import ObjectPath, open_binary
from dask_nmf.storage.objects import object_file, requests

FOLDER = "s3://bucket/in"
V = np.random.default_rng(0).integers(1, 9, (60, 7))


@pytest.fixture
def stored(monkeypatch: pytest.MonkeyPatch) -> MemoryStore:
    """A store of the objects in one folder, which are fetched by ranges of 64 bytes."""
    store = MemoryStore()
    monkeypatch.setattr(requests, "connect", lambda url: store)
    monkeypatch.setattr(object_file, "RANGE", 64)
    return store


def content_of(path: Path, name: str) -> bytes:
    """Return V as a file of the kind that its suffix tells."""
    path = path / name
    if name.endswith(".parquet"):
        pyarrow.parquet.write_table(pyarrow.table({str(j): V[:, j] for j in range(7)}), path)
    elif name.endswith(".mtx"):
        scipy.io.mmwrite(path, scipy.sparse.csr_array(V))
    elif name.endswith(".h5ad"):
        with h5py.File(path, "w") as file:
            file["X"] = V.astype(np.float32)
    else:
        np.savetxt(path, V, fmt="%d", delimiter=",")
    return path.read_bytes()


@pytest.mark.parametrize("name", ["v.csv", "v.csv.gz", "v.parquet", "v.mtx", "v.mtx.gz", "v.h5ad"])
def test_an_object_is_read_as_a_file_is(tmp_path: Path, stored: MemoryStore, name: str) -> None:
    content = content_of(tmp_path, name.removesuffix(".gz"))
    stored.put(name, gzip.compress(content) if name.endswith(".gz") else content)
    convert(f"{FOLDER}/{name}", tmp_path / "v.zarr")
    np.testing.assert_array_equal(matrix_of(tmp_path / "v.zarr"), V)


@pytest.mark.parametrize("source", [f"{FOLDER}/part-*.csv", FOLDER])
def test_wildcards_and_folders(tmp_path: Path, stored: MemoryStore, source: str) -> None:
    for number in range(3):
        lines = "".join(
            f"u{number},{item},{number + item + 1}\n" for item in "012"[: number + 1] for item in [int(item)]
        )
        stored.put(f"part-{number}.csv", b"user,item,rating\n" + lines.encode())
    stored.put("note.txt", b"no table")
    convert(source, tmp_path / "v.zarr", row="user", column="item", value="rating")
    np.testing.assert_array_equal(matrix_of(tmp_path / "v.zarr"), [[1, 0, 0], [2, 3, 0], [3, 4, 5]])
    assert names_of(tmp_path / "v.zarr", "obs") == ["u0", "u1", "u2"]


def test_what_is_wrong_is_named_by_its_url(tmp_path: Path, stored: MemoryStore) -> None:
    stored.put("v.csv", b"1,2\n3,x\n")
    with pytest.raises(DataError, match=f"{FOLDER}/v.csv, line 2: 'x'"):
        convert(f"{FOLDER}/v.csv", tmp_path / "v.zarr")
    stored.put("v.h5", content_of(tmp_path, "v.h5ad"))
    with pytest.raises(DataError, match=f"{FOLDER}/v.h5 has nothing at raw/X"):
        convert(f"{FOLDER}/v.h5", tmp_path / "v.zarr", dataset="raw/X")
    with pytest.raises(FileNotFoundError, match="no object matches"):
        convert(f"{FOLDER}/w*.csv", tmp_path / "v.zarr")
    with pytest.raises(ValueError, match="copy it to a disk"):
        convert(f"{FOLDER}/v.jsonl", tmp_path / "v.zarr", text="body")


def test_an_object_that_is_replaced_meanwhile_is_refused(stored: MemoryStore) -> None:
    stored.put("v.csv", b"1" * 100_000)
    with open_binary(ObjectPath(f"{FOLDER}/v.csv")) as file:
        file.read(1)
        stored.put("v.csv", b"2" * 100_000)
        file.seek(90_000)
        with pytest.raises(DataError, match="replaced while it was read"):
            file.read()


def test_what_follows_is_fetched_ahead_and_what_is_done_is_forgotten(
    stored: MemoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored.put("v.csv", bytes(range(200)) * 64)
    fetched = Mock(side_effect=object_file.fetch_version)
    monkeypatch.setattr(object_file, "fetch_version", fetched)
    with object_file.ObjectFile(f"{FOLDER}/v.csv") as file:
        assert file.readall() == bytes(range(200)) * 64
        assert len(file._ranges) <= object_file.KEPT
    assert fetched.call_count == 200  # each range once
