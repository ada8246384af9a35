"""A conversion that was stopped goes on after the entries that were sorted, and gives the same bits."""

from __future__ import annotations

import gzip
import itertools
import logging
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pyarrow
import pyarrow.csv
import pyarrow.parquet
import pytest
import scipy.io
import scipy.sparse
from support.converted import bytes_of, matrix_of

from dask_nmf.errors import DataError
from dask_nmf.ingest import convert
from dask_nmf.ingest.entries import journal, sorting
from dask_nmf.ingest.entries.sorting import Run
from dask_nmf.ingest.formats.matrices import market_text, matrix_rows
from dask_nmf.ingest.formats.tables import csv_table, csv_text, parquet_table

V = scipy.sparse.random_array((90, 40), density=0.5, rng=np.random.default_rng(0), format="csc")
V.data = np.ceil(9 * V.data)
ENTRIES: dict[str, Any] = {"row": "user", "column": "item", "value": "rating"}
KINDS = ["v.csv", "v.csv.gz", "v.parquet", "v.mtx", "v.mtx.gz", "v.h5", "turned.h5"]


def write(path: Path) -> dict[str, Any]:
    """Write V as a file of the kind that its suffix tells; return the options of its conversion."""
    plain = path.with_suffix("") if path.suffix == ".gz" else path
    entries = V.tocoo()
    if plain.suffix in (".csv", ".parquet"):
        order = np.random.default_rng(1).permutation(V.nnz)
        rows, columns = (
            [f"{name}{i}" for i in part[order]] for name, part in zip("ui", entries.coords, strict=True)
        )
        records = pyarrow.table({"user": rows, "item": columns, "rating": entries.data[order]})
        if plain.suffix == ".csv":
            pyarrow.csv.write_csv(records, plain)
        else:
            pyarrow.parquet.write_table(records, plain, row_group_size=300)
    elif plain.suffix == ".mtx":
        scipy.io.mmwrite(plain, entries)
    else:
        with h5py.File(plain, "w") as file:
            turned = path.stem == "turned"
            stored = V.tocsr() if turned else V
            group = file.create_group("X")
            group.attrs.update({"encoding-type": f"{stored.format}_matrix", "shape": V.shape})
            for part in ("data", "indices", "indptr"):
                group[part] = getattr(stored, part)
            file.create_group("obs").attrs["_index"] = "_index"
            file["obs/_index"] = [f"u{i}" for i in range(V.shape[0])]
        return {"transpose": turned}
    if path.suffix == ".gz":
        path.write_bytes(gzip.compress(plain.read_bytes()))
        plain.unlink()
    return ENTRIES if plain.suffix in (".csv", ".parquet") else {}


@pytest.fixture(autouse=True)
def _small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(csv_table, "BLOCK", 1000)
    monkeypatch.setattr(parquet_table, "RECORDS", 100)
    monkeypatch.setattr(market_text, "TEXT", 1000)
    monkeypatch.setattr(matrix_rows, "BATCH", 1000)
    monkeypatch.setattr(journal, "SECONDS", 0)
    monkeypatch.setattr(sorting.RowSorter.__init__, "__defaults__", (200, 100))


def stopped_after(runs: int, monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[Path]]:
    """Return a conversion that is stopped after a number of runs, and returns those that it wrote."""

    def converted(*given: Any, **options: Any) -> list[Path]:
        written: list[Path] = []

        def write_run(path: Path, entries: sorting.Entries) -> Run:
            if len(written) == runs:
                raise KeyboardInterrupt
            written.append(path)
            return original(path, entries)

        original = Run.written
        with monkeypatch.context() as patch:
            patch.setattr(Run, "written", write_run)
            with suppress(KeyboardInterrupt):
                convert(*given, **options)
        return written

    return converted


@pytest.mark.parametrize("name", KINDS)
def test_the_bits_are_those_of_one_that_was_not_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    options = write(tmp_path / name)
    convert(tmp_path / name, tmp_path / "expected.zarr", **options)
    assert stopped_after(3, monkeypatch)(tmp_path / name, tmp_path / "v.zarr", **options)
    assert not (tmp_path / "v.zarr").exists()
    assert stopped_after(2, monkeypatch)(tmp_path / name, tmp_path / "v.zarr", **options)[0].name == "3"
    again = stopped_after(99, monkeypatch)(tmp_path / name, tmp_path / "v.zarr", **options)
    assert again[0].name == "5"
    assert bytes_of(tmp_path / "v.zarr") == bytes_of(tmp_path / "expected.zarr")
    assert {path.name for path in tmp_path.iterdir()} == {name, "v.zarr", "expected.zarr"}


def test_nothing_is_sorted_twice_if_it_was_stopped_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = write(tmp_path / "v.csv")
    convert(tmp_path / "v.csv", tmp_path / "expected.zarr", **options)

    def interrupted(*given: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(sorting, "_block", interrupted)
        with pytest.raises(KeyboardInterrupt):
            convert(tmp_path / "v.csv", tmp_path / "v.zarr", **options)
    assert stopped_after(99, monkeypatch)(tmp_path / "v.csv", tmp_path / "v.zarr", **options) == []
    assert bytes_of(tmp_path / "v.zarr") == bytes_of(tmp_path / "expected.zarr")


@pytest.mark.parametrize("ends", ["\r", "\r\n", "\n\n", "mixed", "quoted"])
def test_lines_that_end_with_returns_and_quoted_fields_that_span_lines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ends: str
) -> None:
    options = write(tmp_path / "v.csv")
    header, *lines = (tmp_path / "v.csv").read_text().splitlines()
    if ends == "quoted":  # in a column that is not read
        notes = ['"a ""b\n,\r\n"' if i % 3 == 2 else "" for i in range(len(lines))]
        lines = [f"{line},{note}" for line, note in zip(lines, notes, strict=True)]
        text = "\n".join([f"{header},note", *lines])
    elif ends == "mixed":
        each = itertools.cycle(["\r", "\n", "\r\n", "\r\n\r"])
        text = header + "".join(end + line for line, end in zip(lines, each, strict=False))
    else:
        text = "".join(f"{line}{ends}" for line in [header, *lines])
    (tmp_path / "v.csv").write_text(text, newline="")
    convert(tmp_path / "v.csv", tmp_path / "expected.zarr", **options)
    assert stopped_after(3, monkeypatch)(tmp_path / "v.csv", tmp_path / "v.zarr", **options)
    assert stopped_after(99, monkeypatch)(tmp_path / "v.csv", tmp_path / "v.zarr", **options)[0].name == "3"
    assert bytes_of(tmp_path / "v.zarr") == bytes_of(tmp_path / "expected.zarr")
    assert matrix_of(tmp_path / "v.zarr").sum() == V.sum()


def test_a_file_that_ends_before_the_record_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "v.csv")
    layout = csv_text.read_layout(tmp_path / "v.csv")
    assert csv_text.offset_of(tmp_path / "v.csv", layout, V.nnz) is None
    with pytest.raises(DataError, match="2 records fewer"):
        csv_text.offset_of(tmp_path / "v.csv", layout, V.nnz + 2)


def test_an_empty_line_after_a_record_is_not_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(csv_text, "BUFFER", 16)
    (tmp_path / "v.csv").write_text("r,x,y\n\n" + "".join(f"a{i},{i},1\n\n" for i in range(5)))
    layout = csv_text.read_layout(tmp_path / "v.csv")
    offsets = [csv_text.offset_of(tmp_path / "v.csv", layout, record) for record in range(6)]
    assert offsets == [6, 14, 22, 30, 38, None]


def test_a_line_of_the_journal_that_is_not_whole_is_left_out(tmp_path: Path) -> None:
    (tmp_path / journal.FILE).write_text('{"count": 1}\n{"cou')
    journal.Journal(tmp_path).add({"count": 2})
    assert [record["count"] for record in journal.Journal(tmp_path).entered] == [1, 2]


@pytest.mark.parametrize(("file", "damage"), [("runs.jsonl", b"\xff\n"), ("1", b"\0"), ("r-0-*.npz", b"")])
def test_damaged_files_begin_anew(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    file: str,
    damage: bytes,
) -> None:
    options = write(tmp_path / "v.csv")
    convert(tmp_path / "v.csv", tmp_path / "expected.zarr", **options)
    stopped_after(3, monkeypatch)(tmp_path / "v.csv", tmp_path / "v.zarr", **options)
    for path in tmp_path.glob(f".v.zarr.*.partial/scratch/{file}"):
        path.write_bytes(damage)
    with caplog.at_level(logging.INFO, "dask_nmf"):
        convert(tmp_path / "v.csv", tmp_path / "v.zarr", **options)
    assert caplog.text.count("that was stopped are damaged") == 1
    assert bytes_of(tmp_path / "v.zarr") == bytes_of(tmp_path / "expected.zarr")


@pytest.mark.parametrize("change", ["source", "options"])
def test_other_sources_or_options_begin_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, change: str
) -> None:
    options = write(tmp_path / "v.csv")
    stop = stopped_after(3, monkeypatch)
    stop(tmp_path / "v.csv", tmp_path / "v.zarr", **options)
    if change == "source":
        with (tmp_path / "v.csv").open("a") as file:
            file.write("u0,new,1\n")
    else:
        options = {**options, "duplicates": "sum"}
    with caplog.at_level(logging.INFO, "dask_nmf"):
        assert (
            stopped_after(99, monkeypatch)(tmp_path / "v.csv", tmp_path / "v.zarr", **options)[0].name == "0"
        )
    assert "begins anew" in caplog.text
    assert {path.name for path in tmp_path.iterdir()} == {"v.csv", "v.zarr"}


def test_what_has_not_begun_and_what_fails_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "v.csv")
    stopped_after(0, monkeypatch)(tmp_path / "v.csv", tmp_path / "v.zarr", **ENTRIES)
    assert {path.name for path in tmp_path.iterdir()} == {"v.csv"}
    with (tmp_path / "v.csv").open("a") as file:
        file.write("id0,id0,x\n")
    with pytest.raises(ValueError, match="'x'"):
        convert(tmp_path / "v.csv", tmp_path / "v.zarr", **ENTRIES)
    assert {path.name for path in tmp_path.iterdir()} == {"v.csv"}
