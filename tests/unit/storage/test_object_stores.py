"""V and runs in object stores, on two real servers: one honours conditions of writes, one checks keys."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import pickle
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, nullcontext, suppress
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import boto3
import numpy as np
import obstore
import pytest
import zarr
from distributed import Client
from support import faults
from support.matrices import Array
from support.servers import free_port, listens, needs, process, until

from dask_nmf import Result, Run, nmf, transform
from dask_nmf.cluster import sharing
from dask_nmf.errors import (
    ConcurrentCommitError,
    DataError,
    InvalidRunError,
    RunLocked,
    RunMismatch,
    StoreAccessError,
    StoreUnavailableError,
)
from dask_nmf.execution import partition
from dask_nmf.execution.executor import Step
from dask_nmf.fitting.starts import initialize
from dask_nmf.inference import transform as transform_module
from dask_nmf.sources.registry import open_matrix
from dask_nmf.storage import leases, locations
from dask_nmf.storage.locations import locate
from dask_nmf.storage.objects import object_store, requests
from dask_nmf.storage.objects.atomic_upload import atomic_upload
from dask_nmf.storage.objects.object_lock import object_lock
from dask_nmf.storage.objects.object_store import ObjectStore
from dask_nmf.storage.objects.requests import remove

KEY, SECRET = "one-key", "a-secret-that-nobody-else-has"
V = "s3://bucket/v.zarr"
SHAPE, CHUNKS = (900, 50), (100, 50)
PASSES = 4
COMMAND = [sys.executable, "-c", "from dask_nmf.cli.main import main; main()"]
OFTEN = ("500", "503", "429", faults.CUT, faults.TRUNCATED, faults.LATE, faults.LOST)
pytestmark = [pytest.mark.real, needs("moto_server", "rclone")]


@pytest.fixture(scope="module")
def ports(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, int]]:
    """Of both servers, each with a bucket."""
    folder = tmp_path_factory.mktemp("servers")
    moto, rclone = free_port(), free_port()
    (folder / "buckets" / "bucket").mkdir(parents=True)
    (folder / "tmp").mkdir()
    serve = ["rclone", "serve", "s3", folder / "buckets", "--addr", f"127.0.0.1:{rclone}"]
    environment = os.environ | {"TMPDIR": str(folder / "tmp")}
    with ExitStack() as stack:
        for name, command in (
            ("moto", ["moto_server", "-H", "127.0.0.1", "-p", moto]),
            ("rclone", [*serve, "--auth-key", f"{KEY},{SECRET}", "--vfs-cache-mode", "off", "--config", ""]),
        ):
            stack.enter_context(process(*command, log=folder / f"{name}.log", env=environment))
        until(lambda: listens(moto) and listens(rclone))
        address = f"http://127.0.0.1:{moto}"
        boto3.client("s3", "us-east-1", None, True, None, address, KEY, SECRET).create_bucket(Bucket="bucket")
        yield {"moto": moto, "rclone": rclone}


@pytest.fixture(scope="module")
def v() -> Array:
    rng = np.random.default_rng(0)
    w, h = (rng.gamma(0.5, size=size).astype(np.float32) for size in ((SHAPE[0], 5), (5, SHAPE[1])))
    made: Array = (w @ h) * rng.random(SHAPE, dtype=np.float32)
    return made


def enter(monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    for name, value in {
        "AWS_ENDPOINT_URL": address,
        "AWS_ACCESS_KEY_ID": KEY,
        "AWS_SECRET_ACCESS_KEY": SECRET,
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ALLOW_HTTP": "true",
    }.items():
        monkeypatch.setenv(name, value)


@pytest.fixture(params=["moto", "rclone"])
def server(
    request: pytest.FixtureRequest, ports: dict[str, int], v: Array, monkeypatch: pytest.MonkeyPatch
) -> Iterator[faults.Proxy]:
    """A proxy before a server that has V, with nothing else in its bucket."""
    with faults.proxy(ports[request.param]) as proxy:
        enter(monkeypatch, proxy.url)
        bucket = requests.connect("s3://bucket")
        for some in obstore.list(bucket):
            obstore.delete(bucket, [told["path"] for told in some])
        store(ObjectStore(V), v)
        proxy.seen.clear()
        yield proxy


only_moto = pytest.mark.parametrize("server", ["moto"], indirect=True)
only_rclone = pytest.mark.parametrize("server", ["rclone"], indirect=True)


def store(where: ObjectStore | Path, v: Array) -> None:
    zarr.create_array(where, shape=v.shape, chunks=CHUNKS, dtype=v.dtype)[:] = v


def fit(matrix: str | Path, output: str | Path, **settings: object) -> Result:
    return nmf(matrix, 5, store=output, tol=0, **{"max_iter": PASSES, **settings})  # type: ignore[arg-type]


@pytest.fixture
def on_disk(v: Array, tmp_path: Path, several_panels: None) -> Path:
    """A run on disk, of the same V."""
    store(tmp_path / "v.zarr", v)
    fit(tmp_path / "v.zarr", tmp_path / "run.zarr")
    return tmp_path / "run.zarr"


def same_factors(one: str | Path, other: str | Path) -> None:
    for name in ("W", "H"):
        np.testing.assert_array_equal(
            Run.load_answer(str(one)).array(name)[:], Run.load_answer(str(other)).array(name)[:]
        )


def test_workers_are_asked_whether_they_share_a_bucket_and_leave_no_note(
    client: Client, server: faults.Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each reads a note and writes one, below the URL that the run is below."""
    bucket = requests.connect("s3://bucket")
    before = {told["path"] for some in obstore.list(bucket) for told in some}
    partition.check_shared("s3://bucket/run.zarr")
    assert server.seen["well"] >= 3 * 3  # this process and two workers write, are read, and are removed
    monkeypatch.setattr(sharing, "answer_probe", refuse)
    with pytest.raises(ValueError, match=r"does not share s3://bucket .*no credentials"):
        partition.check_shared("s3://bucket/run.zarr")
    assert {told["path"] for some in obstore.list(bucket) for told in some} == before


def refuse(place: str, name: str, text: str) -> str:
    raise StoreAccessError("no credentials")


def now_and_then(share: float, kinds: tuple[str, ...]) -> faults.Fault:
    """One of some faults, at random."""
    chances = random.Random(0)
    return lambda method, path: chances.choice(kinds) if chances.random() < share else None


def command(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*COMMAND, *words], capture_output=True, text=True, check=False, timeout=200)


def test_the_command_from_store_to_store(server: faults.Proxy, on_disk: Path, v: Array) -> None:
    run, output = "s3://bucket/run.zarr", "s3://bucket/W.zarr"
    asked = ["--rank", "5", "--tol", "0", "--max-iter", str(PASSES), "--workers", "2", "--debug"]
    done = command("fit", V, "--output", run, *asked)
    assert done.returncode == 0, done.stderr
    turned = command("transform", run, V, "--output", output)
    assert turned.returncode == 0, turned.stderr
    H = Run.load_answer(run).array("H")[:]
    np.testing.assert_allclose(
        H, Run.load_answer(str(on_disk)).array("H")[:], rtol=2e-2, atol=1e-2
    )  # another cut
    W = zarr.open_group(ObjectStore(output), mode="r")["W"][:]
    np.testing.assert_array_equal(W, transform(v, H).compute())
    assert "exists" in command("transform", run, V, "--output", output).stderr
    assert command("transform", run, V, "--output", output, "--overwrite").returncode == 0
    bucket = requests.connect("s3://bucket")
    stored = {
        told["path"]: bytes(obstore.get(bucket, told["path"]).bytes())
        for told in obstore.list(bucket).collect()
    }
    assert {name.partition("/")[0] for name in stored} == {"v.zarr", "run.zarr", "W.zarr"}  # and no lock
    tasks = pickle.dumps(open_matrix(V).reader)
    for text in (*stored.values(), done.stderr.encode(), turned.stderr.encode(), tasks):
        assert SECRET.encode() not in text
        assert KEY.encode() not in text


@only_rclone
def test_a_wrong_key_is_one_line(server: faults.Proxy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "another")
    done = command("fit", V, "--output", "s3://bucket/run.zarr", "--rank", "5")
    assert done.returncode == 74
    assert done.stderr.startswith(
        f"dask-nmf: {V}: the store refuses access (403 Forbidden); give credentials"
    )
    assert len(done.stderr.splitlines()) == 1
    with pytest.raises(StoreAccessError):
        open_matrix(V)


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


def test_a_run_that_another_process_has_taken_over_is_left_to_it(server: faults.Proxy, v: Array) -> None:
    run = "s3://bucket/run.zarr"
    fit(V, run, max_iter=2, time_limit=0)
    mine, others = Run.load(run), Run.load(run)
    others.recover()
    with pytest.raises(ConcurrentCommitError, match=r"run\.zarr was changed by another process"):
        mine.recover()
    assert Run.load(run).record == others.record


# Without a lease that tells, who was overtaken may first miss what the other has deleted.
REFUSED = (ConcurrentCommitError, InvalidRunError, FileNotFoundError)


class Pause:
    """The writes of a process to object stores, one of which waits until it is let go.

    Counted are those between `begin` and `end`, from 0. Nothing else may write meanwhile.
    """

    def __init__(self, at: int, patch: pytest.MonkeyPatch) -> None:
        self.at, self.count, self.counts = at, 0, False
        self.reached, self.goes_on = threading.Event(), threading.Event()
        for name in ("set", "copy", "delete", "delete_dir"):
            patch.setattr(ObjectStore, name, self.before(getattr(ObjectStore, name)))

    def begin(self) -> None:
        self.counts = True

    def end(self) -> None:
        self.counts = False

    def before(self, change: Callable[..., Any]) -> Callable[..., Any]:
        async def changed(store: ObjectStore, *asked: Any) -> None:
            mine, self.count = self.count, self.count + self.counts
            if self.counts and mine == self.at:
                self.end()
                self.reached.set()
                await asyncio.to_thread(self.goes_on.wait)
            await change(store, *asked)

        return changed


def overtaken(run: str, number: int, first: int, last: int, other: Callable[[], object]) -> Exception | None:
    """Pause a fit at a write between two of its passes while another call does something, and let it go on.

    The lease is of no use: it was lost just after it was looked at. Returns what the first fit raises, if
    anything. Where it writes less than that often, nothing else is done.
    """
    raised: list[Exception] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(locations.ObjectStoreLocation, "lock", lambda _: nullcontext(leases.always_held))
        pause = Pause(number, patch)

        def callback(step: Step) -> None:
            if step.number == first:
                pause.begin()
            elif step.number == last and not pause.reached.is_set():
                pause.end()
                raise InterruptedError

        def work() -> None:
            try:
                fit(V, run, solver="mu", callback=callback)
            except Exception as error:
                raised.append(error)

        thread = threading.Thread(target=work)
        thread.start()
        until(lambda: pause.reached.is_set() or not thread.is_alive())
        if pause.reached.is_set():
            other()
        pause.goes_on.set()
        thread.join()
        return raised[0] if pause.reached.is_set() and raised else None


EACH = 5  # so many writes on from one at which a process is overtaken to the next: a fit takes seconds here


@only_moto
def test_who_lost_the_lease_at_any_write_of_a_pass_changes_nothing(
    server: faults.Proxy, several_panels: None
) -> None:
    whole = "s3://bucket/whole.zarr"
    fit(V, whole, solver="mu")

    def dies(step: Step) -> None:
        if step.number == 3:
            raise InterruptedError

    def goes_on() -> None:
        if number % 2:
            fit(V, run, solver="mu")
        else:
            with pytest.raises(InterruptedError):
                fit(V, run, solver="mu", callback=dies)
        left.append(Run.load(run).record)

    for number in range(0, 1000, EACH):
        run, left = f"s3://bucket/{number}.zarr", []
        error = overtaken(run, number, 1, 2, goes_on)
        if error is None:
            break
        assert isinstance(error, REFUSED), error
        assert Run.load(run).record == left[0]
        fit(V, run, solver="mu")
        same_factors(run, whole)
        data = {key.split("/")[2] for key in keys() if key.startswith(f"{number}.zarr/data")}
        assert {name.split("-")[0] for name in data} == {"answer", "layout"}
    assert number > 10


@only_moto
def test_who_lost_the_lease_at_any_write_of_the_answer_changes_nothing(
    server: faults.Proxy, several_panels: None
) -> None:
    """Another call finishes the fit, or has overwritten it by one of another rank."""
    whole = {rank: f"s3://bucket/whole-{rank}.zarr" for rank in (5, 4)}
    for rank, place in whole.items():
        nmf(V, rank, store=place, tol=0, max_iter=PASSES, solver="mu")
    refused = 0
    for number in range(1, 1000, EACH):
        run, rank, reached = f"s3://bucket/{number}.zarr", 4 + number % 2, []

        def other(run: str = run, rank: int = rank, reached: list[int] = reached) -> None:
            nmf(V, rank, store=run, tol=0, max_iter=PASSES, solver="mu", overwrite=rank == 4)
            reached.append(rank)

        error = overtaken(run, number, PASSES, PASSES + 1, other)
        if not reached:
            break
        assert error is None or isinstance(error, REFUSED), error
        refused += error is not None
        same_factors(run, whole[rank])
        nmf(V, rank, store=run, tol=0, max_iter=PASSES, solver="mu")
        H = zarr.open_array(ObjectStore(run), path="H", mode="r")
        assert H.shape == (rank, SHAPE[1])
    assert refused >= 3


@only_moto
@pytest.mark.parametrize("overwrite", [False, True])
def test_a_run_that_another_began_while_v_was_read_is_left_to_it(
    server: faults.Proxy, several_panels: None, monkeypatch: pytest.MonkeyPatch, overwrite: bool
) -> None:
    run, first_read = "s3://bucket/run.zarr", initialize.first_read
    fit(V, "s3://bucket/whole.zarr")
    if overwrite:
        nmf(V, 3, store=run, tol=0, max_iter=1)

    def slow(*asked: Any) -> Any:
        found = first_read(*asked)
        monkeypatch.setattr(initialize, "first_read", first_read)
        fit(V, run, overwrite=overwrite)
        return found

    monkeypatch.setattr(locations.ObjectStoreLocation, "lock", lambda _: nullcontext(leases.always_held))
    monkeypatch.setattr(initialize, "first_read", slow)
    with pytest.raises(ConcurrentCommitError):
        nmf(V, 4, store=run, tol=0, max_iter=2, overwrite=overwrite)
    same_factors(run, "s3://bucket/whole.zarr")


def test_a_second_process_is_told_to_wait_and_a_dead_one_is_followed(
    server: faults.Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = "s3://bucket/run.zarr"
    monkeypatch.setattr(leases, "WATCH_TIME", 0.5)
    with object_lock(run):
        with pytest.raises(RunLocked, match=rf"works on {run} \(process {os.getpid()} on"), object_lock(run):
            raise AssertionError
        told = content("run.zarr.lock")
        assert 0 < told["expires"] - time.time() <= leases.DURATION
    assert not obstore.list(requests.connect("s3://bucket"), prefix="run.zarr.lock").collect()
    for expires in (time.time() - 1, time.time() + 1e6):  # a clock that was wrong
        put("run.zarr.lock", {**told, "host": "another", "expires": expires})
        with object_lock(run):
            assert content("run.zarr.lock")["owner"] != told["owner"]
    put("run.zarr.lock", {**told, "host": "another", "expires": time.time() + 30})
    with pytest.raises(RunLocked, match="on another"), object_lock(run):
        raise AssertionError
    obstore.delete(requests.connect("s3://bucket"), "run.zarr.lock")


def test_an_owner_whose_clock_is_wrong_keeps_the_lock(
    server: faults.Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = "s3://bucket/run.zarr"
    monkeypatch.setattr(leases, "WATCH_TIME", 1.5)
    monkeypatch.setattr(leases, "RENEWAL", 0.3)
    real = leases._host  # another machine, as far as the lock tells
    with object_lock(run):
        monkeypatch.setattr(leases, "_host", lambda: "another")
        monkeypatch.setattr(leases, "DURATION", -1e4)
        time.sleep(0.7)
        assert content("run.zarr.lock")["expires"] < time.time()
        monkeypatch.setattr(leases, "_host", real)
        with pytest.raises(RunLocked), object_lock(run):
            raise AssertionError


def test_of_two_that_begin_at_once_one_has_the_lock(server: faults.Proxy) -> None:
    both, had = threading.Barrier(2), []

    def try_it() -> None:
        both.wait()
        try:
            with object_lock("s3://bucket/run.zarr"):
                had.append(True)
                time.sleep(2)
        except RunLocked:
            had.append(False)

    threads = [threading.Thread(target=try_it) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(had) == [False, True]


@only_moto
def test_sigkill_of_everything_then_the_same_command(server: faults.Proxy, v: Array, tmp_path: Path) -> None:
    asked = ["--rank", "5", "--tol", "0", "--max-iter", "30", "--workers", "2", "--log-format", "json"]
    whole, run = "s3://bucket/whole.zarr", "s3://bucket/run.zarr"
    assert command("fit", V, "--output", whole, *asked).returncode == 0
    moments = random.Random(0)
    for _ in range(2):
        started = subprocess.Popen(
            [*COMMAND, "fit", V, "--output", run, *asked],
            stderr=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            text=True,
            start_new_session=True,
        )
        assert started.stderr is not None
        for line in started.stderr:
            if json.loads(line)["event"] == "pass":
                break
        time.sleep(moments.uniform(0, 0.5))
        os.killpg(started.pid, signal.SIGKILL)
        started.communicate()
    done = command("fit", V, "--output", run, *asked)
    assert done.returncode == 0, done.stderr
    assert "resuming" in done.stderr
    same_factors(run, whole)


OUTPUT = "s3://bucket/W.zarr"


def upload(value: float, act: Callable[[], object] = lambda: None, overwrite: bool = False) -> None:
    """Make an output as `transform` does, of one value, and do something before it appears."""
    place = locate(OUTPUT)
    check = partial(locations.check_replaceable, place, overwrite, transform_module._is_ours, "transform")
    with place.atomic_output(check) as inside:
        encoding = transform_module._unused_encoding(place.store())
        mark = {"settings": {"missing": None}, "of": value}
        w, _ = transform_module._new_weights(inside, mark, encoding, (4, 2), 2, np.dtype("f4"))
        for first in (0, 2):
            w.write(first, np.full((2, 2), value, "f4"))
        act()


def seen_by_readers() -> list[float | None]:
    """What the output is by its root's metadata, and by that of W; None where it is not there."""
    seen: list[float | None] = []
    for look in (
        lambda: zarr.open_group(ObjectStore(OUTPUT, read_only=True), mode="r")["W"],
        lambda: zarr.open_array(ObjectStore(OUTPUT, read_only=True), path="W", mode="r"),
    ):
        try:
            (value,) = set(look()[:].ravel().tolist())
        except (FileNotFoundError, KeyError):
            value = None
        seen.append(value)
    return seen


def keys() -> set[str]:
    found = obstore.list(requests.connect("s3://bucket")).collect()
    return {told["path"] for told in found if not told["path"].startswith("v.zarr")}


def test_an_output_is_not_seen_before_it_is_whole(server: faults.Proxy) -> None:
    def interrupt() -> None:
        assert seen_by_readers() == [None, None]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        upload(1, interrupt)
    assert not keys()


def test_a_second_transform_leaves_the_first_one_its_output(server: faults.Proxy) -> None:
    with pytest.raises(RunLocked, match=r"works on s3://bucket/W\.zarr"):
        upload(1, lambda: upload(2))  # it is told at once, before it has computed anything
    assert not keys()
    upload(1)
    with pytest.raises(FileExistsError, match="exists; give another output"):
        upload(2)
    assert seen_by_readers() == [1, 1]
    before = keys()
    upload(2, overwrite=True)
    assert seen_by_readers() == [2, 2]
    assert len(keys()) == len(before)


@pytest.mark.parametrize("overwrite", [False, True])
def test_what_comes_to_an_output_meanwhile_is_left_as_it_is(server: faults.Proxy, overwrite: bool) -> None:
    def theirs() -> None:
        group = zarr.create_group(ObjectStore(OUTPUT), overwrite=True)
        group.create_array("W", shape=(4, 2), chunks=(2, 2), dtype="f4")[:] = 7

    if overwrite:
        upload(1)
    with pytest.raises(FileExistsError, match="made or changed by another process meanwhile"):
        upload(2, theirs, overwrite)
    assert seen_by_readers()[1] == 7
    assert {key.partition("/")[0] for key in keys()} == {"W.zarr"}


@pytest.mark.parametrize("old", [False, True])
def test_a_kill_at_any_request_leaves_readers_the_old_output_or_the_new_one(
    server: faults.Proxy, old: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The store is gone from some request on, so that nothing is cleaned up either."""
    monkeypatch.setitem(requests.RETRIES, "max_retries", 0)
    seen, number, failed = set(), 0, True
    while failed:
        if old:
            upload(1, overwrite=True)
        started, count = threading.Event(), iter(range(1000))

        def gone(
            method: str, _: str, number: int = number, started: Any = started, count: Any = count
        ) -> Any:
            changes = started.is_set() and method not in ("GET", "HEAD")
            return "503" if changes and next(count) >= number else None

        server.fault = gone
        with suppress(StoreUnavailableError):
            upload(2, started.set, overwrite=True)
        failed = next(count) > number
        server.fault = lambda method, path: None
        obstore.delete(requests.connect("s3://bucket"), "W.zarr.lock")  # of a process that is dead by then
        state = seen_by_readers()
        seen.add(tuple(state))
        assert set(state) <= {1 if old else None, 2}
        upload(3, overwrite=True)  # the next command, which sweeps
        assert seen_by_readers() == [3, 3]
        assert len(keys()) == 4
        remove("s3://bucket/W.zarr", [key.removeprefix("W.zarr/") for key in keys()])
        number += 1
    assert (2, 2) in seen
    assert (1, 1) in seen if old else (None, None) in seen


def test_a_reader_of_the_old_output_gets_no_numbers_of_the_new_one(server: faults.Proxy) -> None:
    upload(1)
    for value in (2, 3, 4, 5):
        old = zarr.open_group(ObjectStore(OUTPUT), mode="r")["W"]
        upload(value, overwrite=True)
        assert isinstance(old, zarr.Array)
        assert np.isnan(old[:]).all()
        assert seen_by_readers() == [value, value]


def test_names_with_escapes_are_the_same_place_to_all(server: faults.Proxy) -> None:
    with object_lock("s3://bucket/a%20b"), pytest.raises(RunLocked), object_lock("s3://bucket/a b"):
        raise AssertionError
    with atomic_upload("s3://bucket/a%3Bb", lambda: None) as inside:
        zarr.create_group(inside)
    assert keys() == {"a;b/zarr.json"}


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
    given = np.asarray(v, order=order)  # type: ignore[call-overload]
    np.save(tmp_path / "v.npy", given)
    np.savez(tmp_path / "v.npz", given)
    bucket = requests.connect("s3://bucket")
    for name in ("v.npy", "v.npz"):
        obstore.put(bucket, name, tmp_path / name)
        matrix = open_matrix(f"s3://bucket/{name}")
        edges = (0, 10, matrix.layout.rows)
        read = matrix.panels(edges).compute()
        np.testing.assert_array_equal(read.T if matrix.transposed else read, v)
    assert open_matrix("s3://bucket/v.npy").transposed == (order == "F")
    with pytest.raises(DataError, match="cut the other way"):
        open_matrix("s3://bucket/v.npy", transposed=order == "C")


@only_moto
def test_what_is_not_there_is_one_line(server: faults.Proxy, v: Array, tmp_path: Path) -> None:
    store(tmp_path / "v.zarr", v)
    here = str(tmp_path / "v.zarr")
    for words, code, told in (
        (["fit", "s3://bucket/no.zarr", "-k", "5", "-o", "s3://bucket/r"], 2, "there is nothing at s3://bucket/no.zarr"),
        (["fit", "s3://bucket/no.npy", "-k", "5", "-o", "s3://bucket/r"], 2, "there is nothing at s3://bucket/no.npy"),
        (["fit", here, "-k", "5", "-o", "s3://no/r"], 2, "s3://no/r: there is no such bucket"),
        (["fit", here, "-k", "5", "-o", "http://127.0.0.1:1/r"], 2, "http://127.0.0.1:1/r can be read only"),
        (["info", "s3://bucket/r"], 2, "there is no run at s3://bucket/r"),
        (["info", V], 2, f"{V} is not a run"),
    ):  # fmt: skip
        done = command(*words)
        assert (done.returncode, len(done.stderr.splitlines())) == (code, 1), done.stderr
        assert done.stderr.startswith(f"dask-nmf: {told}")


@pytest.mark.parametrize(
    "url", ["s3://me:hidden@bucket/v", "https://a.example/v?sig=hidden", "ftp://hidden/v"]
)
def test_a_secret_in_a_url_is_refused_and_not_shown(url: str) -> None:
    with pytest.raises(ValueError, match=r"leave them out|no store that is known") as refused:
        locate(url)
    assert "hidden" not in str(refused.value)


def test_a_machine_without_certificates_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    enter(monkeypatch, "http://127.0.0.1:9")
    for name in ("SSL_CERT_FILE", "SSL_CERT_DIR"):
        monkeypatch.setenv(name, "/nothing")
    done = command("info", "s3://bucket/run.zarr")
    assert done.returncode == 2
    assert done.stderr.startswith("dask-nmf: s3://bucket/run.zarr: no certificates of authorities are found")


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


def content(key: str) -> dict[str, float]:
    found: dict[str, float] = json.loads(bytes(obstore.get(requests.connect("s3://bucket"), key).bytes()))
    return found


def put(key: str, told: object) -> None:
    obstore.put(requests.connect("s3://bucket"), key, json.dumps(told).encode())
