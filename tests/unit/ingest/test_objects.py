"""Sources in object stores: the same rows as from files, by ranges, and messages with the URL."""

from __future__ import annotations

import gzip
import json
import os
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any
from unittest.mock import Mock
from urllib.parse import unquote

import h5py
import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
import scipy.io
import scipy.sparse
from obstore.store import LocalStore, MemoryStore
from PIL import Image
from support.converted import matrix_of, names_of

from dask_nmf.errors import DataError
from dask_nmf.ingest import convert
from dask_nmf.ingest.conversion import convert_to
from dask_nmf.ingest.expansion import expand
from dask_nmf.ingest.files import ObjectPath, open_binary
from dask_nmf.ingest.options import ConvertOptions
from dask_nmf.ingest.output.codecs import Storage
from dask_nmf.storage.locations import locate
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


@pytest.fixture
def bucket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder whose files are the objects of a bucket, in folders, by names with blanks and the like."""
    folder = tmp_path / "bucket"
    monkeypatch.setattr(
        requests, "connect", lambda url: LocalStore(folder / unquote(url.partition("://")[2]))
    )
    (folder / "b" / "in" / "ä b").mkdir(parents=True)
    return folder / "b" / "in"


def write_files(folder: Path, kind: str) -> dict[str, Any]:
    """Write files of a kind, the same wherever they are; return the options of their conversion."""
    pairs = [("1", V[0]), ("2", V[1]), ("ä b/3 #", V[2]), (".hidden", V[3])]
    if kind == "texts":
        for name, row in pairs:
            (folder / f"{name}.txt").write_text(" ".join(f"w{j}" for j in range(7) for _ in range(row[j])))
    elif kind == "images":
        for name, row in pairs:
            Image.fromarray(row.astype(np.uint8).reshape(1, 7)).save(folder / f"{name}.png")
    elif kind == "cells":
        scipy.io.mmwrite(folder / "matrix.mtx", scipy.sparse.csr_array(V))
        (folder / "barcodes.tsv").write_text("".join(f"cell{j}\n" for j in range(7)))
        (folder / "features.tsv").write_text("".join(f"gene{i}\n" for i in range(60)))
    else:
        records = pyarrow.table({"id": ["x", "y"], "body": ["tea and milk", "tea"]})
        for name in ("part1", "part2"):
            if kind == "parquet":
                pyarrow.parquet.write_table(records, folder / f"{name}.parquet")
            else:
                lines = (f"{json.dumps(record)}\n" for record in records.to_pylist())
                (folder / f"{name}.jsonl").write_text("".join(lines))
        return {"text": "body", "row": "id"}
    return {}


@pytest.mark.parametrize("kind", ["texts", "images", "cells", "jsonl", "parquet"])
def test_a_folder_of_a_store_is_read_as_one_of_a_disk(tmp_path: Path, bucket: Path, kind: str) -> None:
    options = write_files(bucket, kind)
    convert(bucket, tmp_path / "expected.zarr", **options)
    convert("s3://b/in", tmp_path / "v.zarr", **options)
    np.testing.assert_array_equal(matrix_of(tmp_path / "v.zarr"), matrix_of(tmp_path / "expected.zarr"))
    for axis in ("obs", "var"):
        assert names_of(tmp_path / "v.zarr", axis) == names_of(tmp_path / "expected.zarr", axis)
    if kind in ("texts", "images"):
        assert names_of(tmp_path / "v.zarr", "obs")[-1].startswith("ä b/3 #.")


def test_objects_of_several_wildcards_are_joined(tmp_path: Path, bucket: Path) -> None:
    write_files(bucket, "texts")
    convert(["s3://b/in/[12].txt", "s3://b/in/%C3%A4%20b/3%20%23*"], tmp_path / "v.zarr")
    np.testing.assert_array_equal(matrix_of(tmp_path / "v.zarr"), V[:3])
    assert names_of(tmp_path / "v.zarr", "obs") == ["1.txt", "2.txt", "ä b/3 #.txt"]


def test_an_object_that_was_replaced_since_it_was_listed_is_refused(
    tmp_path: Path, bucket: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_files(bucket, "texts")
    sources = expand("s3://b/in")
    (bucket / "2.txt").write_text("something else")
    with pytest.raises(DataError, match=r"s3://b/in/2.txt was replaced while it was read"):
        convert_to(sources, locate(tmp_path / "v.zarr"), ConvertOptions(), Storage(), overwrite=False)


def test_tables_in_folders_below_are_named(tmp_path: Path, bucket: Path) -> None:
    (bucket / "ä b" / "v.csv").write_text("a,b\n1,2\n")
    with pytest.raises(DataError, match=r"only 1 table in folders below s3://b/in; .*/in/%C3%A4%20b/\*.csv'"):
        convert("s3://b/in", tmp_path / "v.zarr")


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
    stored.put("v.jsonl", b'{"body": "a"}\n{"title": "b"}\n')
    with pytest.raises(DataError, match=f"{FOLDER}/v.jsonl, line 2: field 'body' is missing"):
        convert(f"{FOLDER}/v.jsonl", tmp_path / "v.zarr", text="body")


def test_an_object_that_is_replaced_meanwhile_is_refused(stored: MemoryStore) -> None:
    stored.put("v.csv", b"1" * 100_000)
    with open_binary(ObjectPath(f"{FOLDER}/v.csv")) as file:
        file.read(1)
        stored.put("v.csv", b"2" * 100_000)
        file.seek(90_000)
        with pytest.raises(DataError, match="replaced while it was read"):
            file.read()


def test_without_e_tags_an_object_that_is_replaced_is_known_by_its_time_or_its_size() -> None:
    """As some web servers answer; a time of 0 stands for none."""
    before = requests.Version(100, None, 1_700_000_000)
    assert not before.is_replaced_by(before)
    assert before.is_replaced_by(before._replace(written=1_700_000_001))
    assert before.is_replaced_by(before._replace(size=101, written=0))
    assert not before.is_replaced_by(before._replace(written=0))
    tagged = before._replace(e_tag="one")
    assert not tagged.is_replaced_by(tagged._replace(written=1_700_000_001))
    assert tagged.is_replaced_by(tagged._replace(e_tag="two"))
    assert not tagged.is_replaced_by(tagged._replace(e_tag='"one"'))


def test_a_web_server_without_e_tags_shows_that_a_file_was_replaced(tmp_path: Path) -> None:
    file = tmp_path / "v.csv"
    file.write_bytes(b"1" * 100)
    os.utime(file, (1_700_000_000, 1_700_000_000))
    handler = partial(SimpleHTTPRequestHandler, directory=tmp_path)
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        with object_file.ObjectFile(f"http://127.0.0.1:{server.server_port}/v.csv") as found:
            file.write_bytes(b"2" * 100)
            with pytest.raises(DataError, match=r"v\.csv was replaced while it was read"):
                found.read(1)
        server.shutdown()


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


def test_a_prefix_without_files_that_are_converted(stored: MemoryStore) -> None:
    assert [place.address for place in expand(FOLDER)] == [FOLDER]  # whoever opens it says that it is empty
    stored.put("notes.bin", b"a")
    with pytest.raises(DataError, match=f"{FOLDER} has no tables, JSON lines, texts or images"):
        expand(FOLDER)
