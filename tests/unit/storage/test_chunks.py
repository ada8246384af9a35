"""Files beside the chunks of V, metadata that is out of date, and outputs in the folder of V."""

import json
import logging
import re
import shutil
from collections.abc import Callable
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.sparse
import zarr
from support.command import Forks
from support.matrices import SOURCES, Array, low_rank, sparse
from support.runs import OPTIONS, Crash, assert_same_bits, crash_after

from dask_nmf import Run, nmf
from dask_nmf.inference.transform_output import transform_to
from dask_nmf.sources.matrix import Matrix
from dask_nmf.sources.registry import open_matrix
from dask_nmf.storage.arrays import chunks
from dask_nmf.storage.locations import check_apart, locate
from dask_nmf.types import Orientation

FOREIGN = (".DS_Store", "._0", ".nfs0001", "Thumbs.db", "0~", "0.0.swp", "README.txt", "9", "00")
V = low_rank(30, 20, 3)

pytestmark = pytest.mark.usefixtures("several_panels")


def litter(folder: Path) -> None:
    """Put files of operating systems and editors into every folder, and chunks that are out of the grid."""
    for place in [folder, *(path for path in folder.rglob("*") if path.is_dir())]:
        for name in FOREIGN:
            (place / name).write_bytes(b"\0")


def dense(v: Array, path: Path, **options: Any) -> str:
    zarr.create_array(str(path), shape=v.shape, dtype=v.dtype, chunks=(7, 9), **options)[...] = v
    return str(path)


KINDS: dict[str, Callable[[Array, Path], Any]] = {
    "zarr v2 /": lambda v, path: dense(
        v, path, zarr_format=2, chunk_key_encoding={"name": "v2", "separator": "/"}
    ),
    "zarr v3 .": lambda v, path: dense(v, path, chunk_key_encoding={"name": "default", "separator": "."}),
    "zarr v3 as v2": lambda v, path: dense(v, path, chunk_key_encoding={"name": "v2", "separator": "."}),
    **{kind: SOURCES[kind] for kind in ("zarr v2", "zarr v3", "zarr shards", "csr in zarr", "csc in zarr")},
}
kinds = pytest.mark.parametrize("kind", KINDS)


def values(opened: Matrix) -> Array:
    rows, columns = (slice(0, size) for size in opened.reader.shape)
    block = opened.reader[rows, columns]
    whole = block.toarray() if scipy.sparse.issparse(block) else block
    return opened.orientation.turn_array(whole)


def arrays(path: Path) -> list[zarr.Array[Any]]:
    parts = [path / name for name in ("data", "indices", "indptr") if (path / name).is_dir()]
    return [zarr.open_array(str(part), mode="r") for part in parts or [path]]


@kinds
def test_only_chunks_count_as_chunks(kind: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "v"
    KINDS[kind](V, path)
    clean = open_matrix(str(path)).listing
    litter(path)
    littered = open_matrix(str(path))
    assert littered.listing == clean is not None
    np.testing.assert_array_equal(values(littered), V)
    for array in arrays(path):
        assert chunks.count_stored(array, 10**6) == chunks.count_chunks(array)
    assert caplog.messages == []


@kinds
def test_foreign_files_do_not_stand_for_chunks_that_are_not_stored(
    kind: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    v, path = V.copy(), tmp_path / "v"
    v[14:28] = 0
    KINDS[kind](v, path)
    litter(path)
    opened = open_matrix(str(path))
    np.testing.assert_array_equal(values(opened), v)
    lacking = sum(
        chunks.count_chunks(array) - (chunks.count_stored(array, 10**6) or 0) for array in arrays(path)
    )
    assert ("the others are read as" in caplog.text) == (lacking > 0) == ("in zarr" not in kind)


@kinds
def test_a_lost_chunk_among_foreign_files_is_still_missed(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "v"
    KINDS[kind](V, path)
    litter(path)
    opened = open_matrix(str(path))
    array = arrays(path)[0]
    folder = path / "data" if (path / "data").is_dir() else path
    (folder / array.metadata.encode_chunk_key((0,) * array.ndim)).unlink()
    with pytest.raises(ValueError, match="was there and is no more"):
        values(opened)


def test_foreign_files_in_a_run_do_no_harm(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path, run = dense(V, tmp_path / "v.zarr"), tmp_path / "run.zarr"
    whole = nmf(path, store=tmp_path / "whole.zarr", **OPTIONS)
    with suppress(Crash):
        nmf(path, store=run, callback=crash_after(2), **OPTIONS)
    litter(tmp_path / "v.zarr")
    litter(run)
    caplog.set_level(logging.INFO)
    assert_same_bits(nmf(path, store=run, **OPTIONS), whole)
    assert "resuming" in caplog.text
    assert_same_bits(nmf(path, store=run, **OPTIONS), whole)
    assert "finished already" in caplog.text
    litter(run)
    assert_same_bits(nmf(path, store=run, overwrite=True, **OPTIONS), whole)


def test_a_folder_that_is_a_link_is_listed(tmp_path: Path) -> None:
    path = dense(V, tmp_path / "v.zarr")
    shutil.move(f"{path}/c", tmp_path / "elsewhere")
    (tmp_path / "v.zarr" / "c").symlink_to(tmp_path / "elsewhere")
    opened = open_matrix(path)
    (tmp_path / "elsewhere" / "0" / "0").unlink()
    with pytest.raises(ValueError, match="was there and is no more"):
        values(opened)


# Metadata that is out of date.


def stale(path: Path, version: int) -> None:
    """Consolidated metadata of a CSR group as they were when it had half of the rows."""
    half = path.with_name("half")
    small = sparse(15, 20)
    for place, v in ((half, small), (path, sparse(30, 20))):
        held = scipy.sparse.csr_array(v)
        attributes = {"encoding-type": "csr_matrix", "encoding-version": "0.1.0", "shape": list(v.shape)}
        group = zarr.create_group(str(place), attributes=attributes, zarr_format=version)  # type: ignore[arg-type]
        for name in ("data", "indices", "indptr"):
            array = getattr(held, name)
            group.create_array(name, shape=array.shape, dtype=array.dtype, chunks=(128,))[...] = array
    if version == 2:
        zarr.consolidate_metadata(str(half), zarr_format=2)
        shutil.copy(half / ".zmetadata", path)
    else:
        with pytest.warns(match="Consolidated metadata"):
            zarr.consolidate_metadata(str(half))
        told, old = (json.loads((place / "zarr.json").read_text()) for place in (path, half))
        told["consolidated_metadata"] = old["consolidated_metadata"]
        (path / "zarr.json").write_text(json.dumps(told))


@pytest.mark.parametrize("version", [2, 3])
@pytest.mark.parametrize("as_weights", [False, True])
def test_the_metadata_of_arrays_win_over_consolidated_ones(
    as_weights: bool, version: int, tmp_path: Path
) -> None:
    stale(tmp_path / "v", version)
    v = sparse(30, 20)
    np.testing.assert_array_equal(values(open_matrix(str(tmp_path / "v"), orientation=Orientation.ROWS)), v)
    if as_weights:
        ours = nmf(V, 2, weights=str(tmp_path / "v"), max_iter=2)
        assert ours.relative_error == nmf(V, 2, weights=scipy.sparse.csr_array(v), max_iter=2).relative_error


def test_the_metadata_of_a_run_s_arrays_win_over_consolidated_ones(tmp_path: Path) -> None:
    run, v2 = tmp_path / "run.zarr", dense(V[:11], tmp_path / "v2.zarr")
    result = nmf(V, store=run, **OPTIONS)
    told = json.loads((run / "zarr.json").read_text())
    told["consolidated_metadata"]["metadata"]["H"]["shape"] = [3, 5]
    del told["consolidated_metadata"]["metadata"]["W"]
    (run / "zarr.json").write_text(json.dumps(told))
    np.testing.assert_array_equal(Run.load_result(run).factors[1][:], result.H)
    transform_to(locate(run), v2, locate(tmp_path / "w.zarr"), False, lambda _: nullcontext())
    assert zarr.open_array(tmp_path / "w.zarr", path="W", mode="r").shape == (11, 3)


# Outputs in the folder of V.


@pytest.fixture
def places(tmp_path: Path) -> Path:
    """A folder with V, a link to it, a run, and a file of cells."""
    dense(V, tmp_path / "v.zarr")
    (tmp_path / "link").symlink_to(tmp_path / "v.zarr")
    nmf(V, store=tmp_path / "run.zarr", **OPTIONS)
    (tmp_path / "cells.csv").write_text("0,1\n")
    return tmp_path


@pytest.mark.parametrize(
    ("words", "inside"),
    [
        ("fit v.zarr -k 2 -o v.zarr/run.zarr", "inside of V"),
        ("fit link -k 2 -o v.zarr/c/run.zarr", "inside of V"),
        ("fit v.zarr -k 2 -o link/run.zarr", "inside of V"),
        ("fit file://{here}/v.zarr -k 2 -o {here}/x/../v.zarr/run.zarr", "inside of V"),
        ("fit run.zarr/W -k 2 -o run.zarr --overwrite", "V, .*, is inside of the output"),
        ("fit v.zarr --weights v2.zarr -k 2 -o v2.zarr/run.zarr", "inside of the weights"),
        ("transform run.zarr v.zarr -o v.zarr/w.zarr", "inside of V"),
        ("transform run.zarr v.zarr -o run.zarr/w.zarr", "inside of run"),
        ("transform run.zarr w.zarr/v.zarr -o w.zarr --overwrite", "V, .*, is inside of the output"),
        ("predict run.zarr cells.csv -o run.zarr/values.csv", "inside of run"),
        ("recommend run.zarr v.zarr -o link/values.csv", "inside of V"),
        ("recommend run.zarr v.zarr -o run.zarr/values.csv", "inside of run"),
    ],
)
def test_an_output_is_apart_from_what_is_read(words: str, inside: str, places: Path, forks: Forks) -> None:
    for name in ("v2.zarr", "w.zarr/v.zarr", "x"):
        if name.split(".")[0] in words:
            shutil.copytree(places / "v.zarr", places / name)
    before = sorted(places.rglob("*"))
    done = forks.call(words.format(here=places).split(), places)
    assert done.returncode == 2, done.stderr
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("dask-nmf: ")]
    assert inside.split(",")[0] in line
    assert "give an output elsewhere" in line
    assert sorted(places.rglob("*")) == before


@pytest.mark.parametrize(
    ("output", "source", "apart"),
    [
        ("s3://bucket/v.zarr/run.zarr", "s3://bucket/v.zarr", False),
        ("s3://bucket/a/../v.zarr/run.zarr", "s3://bucket/v.zarr/", False),
        ("s3://bucket/run.zarr", "s3://bucket/run.zarr/W", False),
        ("s3://bucket/v.zarr2", "s3://bucket/v.zarr", True),
        ("s3://bucket/v.zarr/run.zarr", "s3://other/v.zarr", True),
        ("/data/run.zarr", "s3://bucket/data", True),
        ("/numpy/run.zarr", None, True),
        ("/nowhere/v.zarr/run.zarr", "/nowhere/v.zarr", False),
        ("/nowhere/v.zarr.run", "/nowhere/v.zarr", True),
    ],
)
def test_places_are_apart_by_their_parts(output: str, source: str | None, apart: bool) -> None:
    location = None if source is None else locate(source)
    if apart:
        check_apart(locate(output), V=location)
    else:
        with pytest.raises(ValueError, match="give an output elsewhere"):
            check_apart(locate(output), V=location)


@pytest.mark.parametrize("name", ["v.zarr", "v#1.zarr", "v?1.zarr", "v%31.zarr"])
def test_an_array_of_a_relative_path_is_apart_from_a_run_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    zarr.save_array(name, V)
    v = zarr.open_array(name, mode="r")
    nmf(v, 2, max_iter=2, store="run.zarr")
    with pytest.raises(ValueError, match=re.escape(f"inside of V, {tmp_path / name}; give an output")):
        nmf(v, 2, max_iter=2, store=f"{name}/run.zarr")
