"""Fits of V in object stores, with runs there: what goes wrong now and then changes nothing."""

from __future__ import annotations

import logging
import random
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import obstore
import pytest
import zarr
from distributed import Client
from support import faults
from support.buckets import PASSES, V, fit, only_moto, same_factors, store
from support.matrices import Array, read
from support.servers import needs

from dask_nmf import Run
from dask_nmf.cluster import sharing
from dask_nmf.errors import (
    DataError,
    RunMismatch,
    StoreAccessError,
    StoreUnavailableError,
)
from dask_nmf.sources.registry import open_matrix
from dask_nmf.storage.locations import locate
from dask_nmf.storage.objects import object_store, requests
from dask_nmf.storage.objects.object_store import ObjectStore
from dask_nmf.types import Orientation

OFTEN = ("500", "503", "429", faults.CUT, faults.TRUNCATED, faults.LATE, faults.LOST)

pytestmark = needs("moto_server", "rclone")


def test_workers_are_asked_whether_they_share_a_bucket_and_leave_no_note(
    client: Client, server: faults.Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each reads a note and writes one, below the URL that the run is below."""
    bucket = requests.connect("s3://bucket")
    before = {told["path"] for some in obstore.list(bucket) for told in some}
    sharing.check_shared(locate("s3://bucket/run.zarr"))
    assert server.seen["well"] >= 3 * 3  # this process and two workers write, are read, and are removed
    monkeypatch.setattr(sharing, "answer_probe", refuse)
    with pytest.raises(ValueError, match=r"does not share s3://bucket .*no credentials"):
        sharing.check_shared(locate("s3://bucket/run.zarr"))
    assert {told["path"] for some in obstore.list(bucket) for told in some} == before


def refuse(place: str, name: str, text: str) -> str:
    raise StoreAccessError("no credentials")


def now_and_then(share: float, kinds: tuple[str, ...]) -> faults.Fault:
    """One of some faults, at random."""
    chances = random.Random(0)
    return lambda method, path: chances.choice(kinds) if chances.random() < share else None


def test_what_goes_wrong_now_and_then_changes_nothing(server: faults.Proxy, on_disk: Path) -> None:
    server.fault = now_and_then(0.2, OFTEN)
    fit(V, "s3://bucket/run.zarr")
    server.fault = lambda method, path: None
    assert {kind for kind in OFTEN if server.seen[kind]} == set(OFTEN)
    same_factors("s3://bucket/run.zarr", on_disk)


@only_moto
def test_a_body_that_is_short_and_says_nothing_of_it_is_found(
    server: faults.Proxy, several_panels: None
) -> None:
    server.fault = lambda method, path: faults.SHORT if path.endswith("v.zarr/c/5/0") else None
    with pytest.raises(DataError, match=r"v\.zarr: panel rows 300 to 600 cannot be read .*; restore"):
        fit(V, "s3://bucket/run.zarr")
    server.fault = lambda method, path: None
    assert not locate("s3://bucket/run.zarr").exists()


def test_a_store_that_is_gone_for_long_ends_the_fit_which_goes_on_later(
    server: faults.Proxy, on_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(requests.RETRIES, "max_retries", 2)
    run, commits = "s3://bucket/run.zarr", 0

    def down_after_two_passes(method: str, path: str) -> str | None:
        nonlocal commits
        commits += method == "PUT" and path.endswith("run.zarr/zarr.json")
        return "503" if commits > 4 else None  # begun, the start, two passes

    server.fault = down_after_two_passes
    with pytest.raises(
        StoreUnavailableError, match=r"s3://bucket/.*: the store does not answer as it should \(503"
    ):
        fit(V, run)
    server.fault = lambda method, path: None
    passes = Run.load(run).passes
    assert passes is not None
    assert 0 < passes < PASSES
    obstore.delete(requests.connect("s3://bucket"), "run.zarr.lock")  # of a process that is dead by then
    fit(V, run)
    same_factors(run, on_disk)


@only_moto
def test_overwriting_leaves_nothing_of_the_old_run(
    server: faults.Proxy, on_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = "s3://bucket/run.zarr"
    monkeypatch.setattr(object_store, "PAGE", 4)  # names come in many answers
    fit(V, run, max_iter=1, solver="mu")
    with pytest.raises(ValueError, match="holds another fit"):
        fit(V, run)
    fit(V, run, overwrite=True)
    same_factors(run, on_disk)
    names = {
        told["path"].split("/")[1]
        for told in obstore.list(requests.connect("s3://bucket"), "run.zarr/").collect()
    }
    assert names == {"zarr.json", "W", "H", "error_history", "seconds_history", "data"}


def test_the_same_v_in_a_store_is_known_by_its_listing_and_another_by_its_content(
    server: faults.Proxy, v: Array, several_panels: None, caplog: pytest.LogCaptureFixture
) -> None:
    run, bucket = "s3://bucket/run.zarr", requests.connect("s3://bucket")
    caplog.set_level(logging.INFO, "dask_nmf")
    first = fit(V, run)
    obstore.put(bucket, "v.zarr/c/.DS_Store", b"\0")
    again = fit(V, run)
    assert "reading V once" not in caplog.text
    np.testing.assert_array_equal(again.H, first.H)
    store(ObjectStore("s3://bucket/elsewhere.zarr"), v)
    fit("s3://bucket/elsewhere.zarr", run)
    zarr.open_array(ObjectStore(V), mode="r+")[450, 3] += 1
    with pytest.raises(RunMismatch, match="V is not the same in row 450;"):
        fit(V, run)
    with pytest.raises(ValueError, match="inside of V"):
        fit(V, f"{V}/run.zarr")


@only_moto
@pytest.mark.parametrize("order", ["C", "F"])
def test_numpy_files_in_a_store(server: faults.Proxy, v: Array, order: str, tmp_path: Path) -> None:
    stored, other = Orientation if order == "C" else reversed(Orientation)
    given = np.asarray(v, order=order)  # type: ignore[call-overload]
    np.save(tmp_path / "v.npy", given)
    np.savez(tmp_path / "v.npz", given)
    bucket = requests.connect("s3://bucket")
    for name in ("v.npy", "v.npz"):
        obstore.put(bucket, name, tmp_path / name)
        matrix = open_matrix(f"s3://bucket/{name}")
        np.testing.assert_array_equal(read(matrix), v)
    assert open_matrix("s3://bucket/v.npy").orientation is stored
    with pytest.raises(DataError, match="cut the other way"):
        open_matrix("s3://bucket/v.npy", orientation=other)


@pytest.mark.parametrize("scheme", ["http", "file"])
def test_other_urls_are_read(scheme: str, on_disk: Path, tmp_path: Path) -> None:
    run = tmp_path / "other.zarr"
    if scheme == "file":
        fit(f"file://{tmp_path}/v.zarr", f"file://{run}")
    else:
        serve = partial(SimpleHTTPRequestHandler, directory=tmp_path)
        with ThreadingHTTPServer(("127.0.0.1", 0), serve) as files:
            threading.Thread(target=files.serve_forever, daemon=True).start()
            fit(f"http://127.0.0.1:{files.server_port}/v.zarr", run)
            files.shutdown()
    same_factors(run, on_disk)
