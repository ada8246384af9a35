"""Whether it is the same V: a run goes on with the same content wherever it is, and never with another."""

import logging
import os
import shutil
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import pytest
import scipy.sparse
import zarr
from support.command import Forks
from support.cuts import cut_both_ways
from support.matrices import SOURCES, Array, low_rank, sparse
from support.runs import Crash, assert_same_bits, crash_after, files
from zarr.storage import LocalStore

from dask_nmf import Result, Run, nmf
from dask_nmf.errors import InvalidEntryError, RunMismatch
from dask_nmf.sources.registry import open_matrix

V = low_rank(30, 20, 3)
READ = "reading V once"

pytestmark = pytest.mark.usefixtures("several_panels")


@pytest.fixture(autouse=True)
def told(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.INFO, "dask_nmf")
    return caplog


def fit(v: Any, folder: Path, **options: Any) -> Result:
    return nmf(v, 3, store=folder / "run.zarr", **{"max_iter": 2, "tol": 0, **options})


def changed(v: Array, row: int = 11, column: int = 7) -> Array:
    """Another V, in one entry, which is in none of its first, middle and last rows and columns."""
    other = v.copy()
    other[row, column] += 1
    return other


def dense(v: Array, path: Path, **options: Any) -> str:
    array = zarr.create_array(str(path), shape=v.shape, dtype=v.dtype, **{"chunks": (7, 9), **options})
    array[...] = v
    return str(path)


@pytest.mark.parametrize(
    ("kind", "shape"), [(kind, ((30, 20), (20, 30))[number % 2]) for number, kind in enumerate(SOURCES)]
)
def test_one_entry_of_any_kind_of_v_that_changes_is_named(
    kind: str, shape: tuple[int, int], tmp_path: Path
) -> None:
    v, make = sparse(*shape) + 0.1, SOURCES[kind]
    source = make(v, tmp_path / "v")
    place = "column 7" if open_matrix(source).transposed else "row 11"
    first = fit(source, tmp_path, max_iter=1)
    assert_same_bits(fit(make(v, tmp_path / "same"), tmp_path, max_iter=1), first)
    with pytest.raises(RunMismatch, match=f"holds another fit: V is not the same in {place}; .*--overwrite"):
        fit(make(changed(v), tmp_path / "other"), tmp_path, max_iter=1)


def test_rows_that_are_written_anew_in_place_end_the_command(tmp_path: Path, forks: Forks) -> None:
    """A finished run of 37,500 rows, of which 35,900 change but for the first, the middle and the last."""
    v = np.random.default_rng(0).random((37_500, 4), dtype=np.float32)
    dense(v, tmp_path / "v.zarr", chunks=(1000, 4))
    command = ["fit", "v.zarr", "-k", "2", "--max-iter", "1", "-o", "run.zarr"]
    assert forks.call(command, tmp_path).returncode == 0
    assert "finished already" in forks.call(command, tmp_path).stderr
    rows = np.setdiff1d(np.arange(1000, 36_901), [18_750])
    v[rows] += 1
    zarr.open_array(str(tmp_path / "v.zarr"), mode="r+")[...] = v
    before = files(tmp_path / "run.zarr")
    done = forks.call(command, tmp_path)
    assert done.returncode == 2
    assert "V is not the same in rows 1000 to 18749, 18751 to 36900;" in done.stderr
    assert files(tmp_path / "run.zarr") == before
    assert forks.call([*command, "--overwrite"], tmp_path).returncode == 0


def count_chunks(patch: pytest.MonkeyPatch) -> list[str]:
    """The chunks of V that are read from here on."""
    read: list[str] = []
    real = LocalStore.get

    async def counted(self: LocalStore, key: str, *args: Any, **options: Any) -> Any:
        if key[-1].isdigit() and "run.zarr" not in str(self.root):
            read.append(key)
        return await real(self, key, *args, **options)

    patch.setattr(LocalStore, "get", counted)
    return read


def written_again(path: Path) -> Path:
    for file in path.rglob("*"):
        os.utime(file)
    return path


def copied(path: Path, keep: bool) -> Path:
    place = path.with_name("elsewhere")
    shutil.copytree(path, place, copy_function=shutil.copy2 if keep else shutil.copy)
    return place


@pytest.mark.parametrize("finished", [True, False])
@pytest.mark.parametrize(
    ("move", "reads"),
    [
        (lambda path: path, 0),
        (lambda path: copied(path, keep=True), 0),  # cp -a, rsync -t
        (lambda path: copied(path, keep=False), 1),
        (written_again, 1),
    ],
    ids=["as it was", "cp -a", "cp -r", "touch"],
)
def test_the_same_v_is_read_once_where_files_differ_and_then_known(
    move: Callable[[Path], Path], reads: int, finished: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = Path(dense(V, tmp_path / "v.zarr"))
    whole = nmf(path, 3, max_iter=2, tol=0)
    with suppress(Crash):
        fit(path, tmp_path, callback=(lambda step: None) if finished else crash_after(1), cache="off")
    path = move(path)
    read = count_chunks(monkeypatch)
    assert_same_bits(fit(path, tmp_path, cache="off"), whole)
    passes = reads if finished else reads + 2  # the second pass, and that which writes W
    assert {read.count(key) for key in set(read) - {"c/0/0"}} <= {passes, passes + 3}  # or three rows beside
    assert (len(read) > 0) == (passes > 0)
    read.clear()
    assert_same_bits(fit(path, tmp_path), whole)
    assert read == []


def test_a_verifying_read_is_one_pass(tmp_path: Path) -> None:
    rows: list[tuple[int, int]] = []

    def seen(block: Array, block_info: Any = None) -> Array:
        rows.append(block_info[0]["array-location"][0])
        return block

    lazy = da.from_array(V, chunks=(10, 20)).map_blocks(seen, dtype=V.dtype, meta=V[:0])
    fit(lazy, tmp_path)
    rows.clear()
    fit(lazy, tmp_path)
    assert sorted(rows) == [(0, 10), (10, 20), (20, 30)]


@pytest.mark.parametrize("solver", ["hals", "mu", "sgd"])
def test_a_chunk_that_changes_while_the_fit_is_under_way_is_noticed_when_it_goes_on(
    solver: str, tmp_path: Path
) -> None:
    path = dense(V, tmp_path / "v.zarr")

    def change(step: Any) -> None:
        zarr.open_array(path, mode="r+")[15, 3] = 9
        raise Crash

    with suppress(Crash):
        fit(path, tmp_path, solver=solver, callback=change)
    with pytest.raises(RunMismatch, match="V is not the same in row 15;"):
        fit(path, tmp_path, solver=solver)


def test_rows_that_are_appended_are_another_shape(tmp_path: Path) -> None:
    path = dense(V, tmp_path / "v.zarr")
    fit(path, tmp_path)
    zarr.open_array(path, mode="r+").append(V[:7])
    with pytest.raises(RunMismatch, match=r"shape is \[37, 20\], the run has \[30, 20\]"):
        fit(path, tmp_path)


@pytest.mark.parametrize("as_path", [True, False])
def test_weights_that_change_are_noticed(as_path: bool, tmp_path: Path) -> None:
    weights = np.random.default_rng(0).random(V.shape)

    def given(name: str, of: Array) -> Any:
        return dense(of, tmp_path / name) if as_path else of

    first = fit(V, tmp_path, weights=given("weights", weights))
    assert_same_bits(fit(V, tmp_path, weights=given("same", weights)), first)
    with pytest.raises(RunMismatch, match="weights is not the same in row 11;"):
        fit(V, tmp_path, weights=given("other", changed(weights)))
    with pytest.raises(RunMismatch, match="weights is None"):
        fit(V, tmp_path)


@pytest.mark.parametrize(
    ("name", "as_path"), [("W", True), ("H", False), ("fixed_W", False), ("fixed_H", True)]
)
def test_a_factor_that_changes_is_noticed(name: str, as_path: bool, tmp_path: Path) -> None:
    factor = np.random.default_rng(0).random((30, 3) if name.endswith("W") else (3, 20))
    asked = {} if name.startswith("fixed") else {"init": "custom"}

    def given(of: Array) -> Any:
        np.save(tmp_path / "factor.npy", of)
        return str(tmp_path / "factor.npy") if as_path else of

    fit(V, tmp_path, **{name: given(factor)}, **asked)
    fit(V, tmp_path, **{name: given(factor)}, **asked)
    with pytest.raises(RunMismatch, match=f"{name} is"):
        fit(V, tmp_path, **{name: given(changed(factor, 1, 1))}, **asked)


@pytest.mark.parametrize("transposed", [False, True])
def test_a_v_cut_both_ways_is_verified_too(
    transposed: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    v = V.T.copy() if transposed else V
    with monkeypatch.context() as patch:
        cut_both_ways(patch, (0, 14, 30), (0, 9, 20), 2)
        first = fit(dense(v, tmp_path / "v"), tmp_path)
        assert_same_bits(fit(dense(v, tmp_path / "same"), tmp_path), first)
        other = dense(changed(v), tmp_path / "other")
        with pytest.raises(RunMismatch, match="in column 7;" if transposed else "in row 11;"):
            fit(other, tmp_path)
    with pytest.raises(RunMismatch, match="V is not the same"):
        fit(other, tmp_path)


def test_missing_entries_and_stored_zeros_count_as_they_are(tmp_path: Path) -> None:
    v = np.where(np.random.default_rng(0).random(V.shape) < 0.2, np.nan, V)
    first = fit(v, tmp_path, missing="nan")
    assert_same_bits(fit(dense(v, tmp_path / "v"), tmp_path, missing="nan"), first)
    with pytest.raises(RunMismatch, match="V is not the same"):
        fit(np.nan_to_num(v), tmp_path, missing="nan")
    rated = scipy.sparse.csr_array(sparse(30, 20))
    fit(rated, tmp_path, missing="unstored", overwrite=True)
    unrated = rated.copy()
    unrated.data[9] = 0
    fit(unrated, tmp_path, missing="unstored", overwrite=True)
    unrated.eliminate_zeros()
    with pytest.raises(RunMismatch, match="V is not the same"):
        fit(unrated, tmp_path, missing="unstored")


def test_a_v_that_is_stored_in_another_way_is_the_same(tmp_path: Path) -> None:
    v = np.round(3 * V)
    first = fit(dense(v.astype("i2"), tmp_path / "v"), tmp_path, dtype="float64")
    for number, again in enumerate((v, np.asfortranarray(v), scipy.sparse.csr_array(v), da.from_array(v))):
        assert_same_bits(fit(again, tmp_path, dtype="float64"), first)
        assert_same_bits(fit(dense(v, tmp_path / f"v{number}", zarr_format=2 + number % 2), tmp_path), first)


def test_an_entry_that_is_bad_now_is_a_change(tmp_path: Path) -> None:
    fit(V, tmp_path)
    other = V.copy()
    other[[4, 11], 7] = np.nan
    with pytest.raises(RunMismatch, match="in rows 4, 11;"):
        fit(other, tmp_path)
    with pytest.raises(InvalidEntryError):
        fit(other, tmp_path, overwrite=True)


def test_a_store_that_cannot_be_listed_is_read_each_time(
    tmp_path: Path, told: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(SimpleHTTPRequestHandler, "log_message", lambda *_: None)
    path = dense(V, tmp_path / "v.zarr")
    np.savez(tmp_path / "v.npz", V)
    serve = partial(SimpleHTTPRequestHandler, directory=tmp_path)
    with ThreadingHTTPServer(("127.0.0.1", 0), serve) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}"
        first = fit(f"{url}/v.zarr", tmp_path)
        told.clear()
        assert_same_bits(fit(f"{url}/v.zarr", tmp_path), first)
        assert f"it is not known whether V was written since: {READ}" in told.text
        zarr.open_array(path, mode="r+")[11, 7] += 1
        with pytest.raises(RunMismatch, match="V is not the same in row 11;"):
            fit(f"{url}/v.zarr", tmp_path)
        fit(f"{url}/v.npz", tmp_path, overwrite=True)
        told.clear()
        fit(f"{url}/v.npz", tmp_path)
        assert READ not in told.text  # the server says when it was written
        np.savez(tmp_path / "v.npz", changed(V))
        os.utime(tmp_path / "v.npz", (0, 10**9))
        with pytest.raises(RunMismatch, match="V is not the same in row 11;"):
            fit(f"{url}/v.npz", tmp_path)
        server.shutdown()


def test_a_run_that_can_only_be_read_is_verified(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = Path(dense(V, tmp_path / "v.zarr"))
    first = fit(path, tmp_path)
    monkeypatch.setattr(os, "access", lambda place, mode: mode != os.W_OK)
    before = files(tmp_path / "run.zarr")
    assert_same_bits(fit(written_again(path), tmp_path), first)
    assert files(tmp_path / "run.zarr") == before


def test_what_is_in_memory_does_not_hide_how_files_are(
    tmp_path: Path, told: pytest.LogCaptureFixture
) -> None:
    path = dense(V, tmp_path / "v.zarr")
    first = fit(path, tmp_path)
    known = Run.load(str(tmp_path / "run.zarr")).record["listing"]
    assert_same_bits(fit(V, tmp_path), first)
    assert Run.load(str(tmp_path / "run.zarr")).record["listing"] == known != {"V": None}
    told.clear()
    assert_same_bits(fit(path, tmp_path), first)
    assert READ not in told.text
