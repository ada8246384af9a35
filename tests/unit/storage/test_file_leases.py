"""Leases in files: the lock of a disk without flock, taken over from owners that have died."""

import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from support.servers import until
from support.threads import run_in_threads

from dask_nmf.errors import RunLocked
from dask_nmf.storage import leases
from dask_nmf.storage.local.file_lease import file_lease


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leases, "WATCH_TIME", 0.02)
    monkeypatch.setattr(leases, "RENEWAL", 0.05)


def told(path: Path, **changed: Any) -> dict[str, Any]:
    """Write the lease of another process, that is dead and of this machine, but for what is changed."""
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    content = {"owner": "x", "host": leases._host(), "process": dead.pid, "expires": time.time() + 30}
    path.write_text(json.dumps({**content, **changed}))
    return content | changed


def test_a_machine_of_the_same_name_is_another_one(
    tmp_path: Path, quick: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "run.zarr.lock"
    told(path)
    with file_lease(path, "run.zarr"):  # its process is dead
        pass
    there = tmp_path / "boot_id"
    there.write_text("another\n")
    with monkeypatch.context() as patch:
        patch.setattr(leases, "BOOT", there)
        told(path)
    with pytest.raises(RunLocked), file_lease(path, "run.zarr"):
        raise AssertionError
    with monkeypatch.context() as patch:  # machines that do not tell are never taken for one
        patch.setattr(leases, "BOOT", tmp_path / "none")
        patch.setattr(leases, "HERE", "another process")
        told(path)
        patch.undo()
        patch.setattr(leases, "BOOT", tmp_path / "none")
        with pytest.raises(RunLocked), file_lease(path, "run.zarr"):
            raise AssertionError


@pytest.mark.parametrize("expires", ["soon", None, [], {}, float("nan"), float("inf"), -1, 10**400, True])
def test_an_end_that_is_no_time_is_over_unless_it_is_renewed(
    tmp_path: Path, quick: None, expires: object
) -> None:
    path = tmp_path / "run.zarr.lock"
    told(path, host="another", expires=expires)
    with file_lease(path, "run.zarr"):
        assert json.loads(path.read_text())["process"] == os.getpid()
    assert list(tmp_path.iterdir()) == []


def test_an_owner_that_renews_is_alive_whatever_the_clocks_say(
    tmp_path: Path, quick: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, real = tmp_path / "run.zarr.lock", leases._host
    monkeypatch.setattr(leases, "DURATION", -1e4)
    monkeypatch.setattr(leases, "_host", lambda: "another")

    def renewed(seconds: float) -> None:
        before = path.read_bytes()
        until(lambda: path.read_bytes() != before)

    with file_lease(path, "run.zarr") as check_held:
        renewed(0)
        monkeypatch.setattr(leases, "_host", real)
        monkeypatch.setattr(leases, "time", SimpleNamespace(time=time.time, sleep=renewed))
        with pytest.raises(RunLocked), file_lease(path, "run.zarr"):
            raise AssertionError
        check_held()


def test_who_was_taken_for_dead_is_told_and_changes_nothing(
    tmp_path: Path, quick: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "run.zarr.lock"
    monkeypatch.setattr(leases._Lease, "renew_until", lambda lease, stop: stop.wait(5))
    monkeypatch.setattr(leases, "DURATION", -1)
    mine = file_lease(path, "run.zarr")
    check_held = mine.__enter__()
    check_held()
    with file_lease(path, "run.zarr") as check_theirs:
        with pytest.raises(RunLocked, match="has taken over run"):
            check_held()
        mine.__exit__(None, None, None)  # it deletes nothing of another's
        check_theirs()
    assert list(tmp_path.iterdir()) == []


def test_of_many_that_find_a_dead_owner_one_follows(tmp_path: Path, quick: None) -> None:
    path, had, refused = tmp_path / "run.zarr.lock", [], []
    told(path)
    told(tmp_path / "run.zarr.lock.claim")  # of one that died while it was taking over
    together = threading.Barrier(6)

    def follow() -> None:
        together.wait()
        try:
            with file_lease(path, "run.zarr"):
                had.append(1)
                until(lambda: len(refused) == 5)
        except RunLocked:
            refused.append(1)

    run_in_threads(follow, 6)
    assert had == [1]
    assert list(tmp_path.iterdir()) == []
