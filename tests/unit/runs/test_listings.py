"""Whether V is read to know that it is the same: not where its files are listed as they were."""

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
import zarr
from support.matrices import Array
from support.runs import Crash, assert_same_bits, crash_after, files
from support.verification import V, changed, dense, fit
from zarr.storage import LocalStore

from dask_nmf import Run, nmf
from dask_nmf.errors import RunMismatch

READ = "reading V once"
pytestmark = pytest.mark.usefixtures("several_panels")


@pytest.fixture(autouse=True)
def told(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.INFO, "dask_nmf")
    return caplog


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
