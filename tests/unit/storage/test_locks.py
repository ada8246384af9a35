"""Locks on paths: one process holds a place, by whatever name and on whatever file system."""

import errno
import fcntl
import os
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from support.threads import run_in_threads

from dask_nmf.errors import RunLocked
from dask_nmf.storage import leases
from dask_nmf.storage.local.file_lock import file_lock
from dask_nmf.storage.locations import locate

WITHOUT = [errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK, errno.EINVAL]
HOLDER = """
import errno, fcntl, os, sys
from pathlib import Path
from dask_nmf.storage.local.file_lock import file_lock

def refused(*_):
    raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

if sys.argv[2] == "without":
    fcntl.flock = refused
with file_lock(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def refuse(number: int) -> Any:
    def refused(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    return refused


@pytest.fixture(params=["flock", "without"])
def kind(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """With flock, and on a file system that has none."""
    if request.param == "without":
        monkeypatch.setattr(fcntl, "flock", refuse(errno.ENOSYS))
    monkeypatch.setattr(leases, "WATCH_TIME", 0.02)
    monkeypatch.setattr(leases, "RENEWAL", 0.05)
    return str(request.param)


def other(path: Path, kind: str) -> subprocess.Popen[str]:
    """Another process, that holds the lock until it is ended."""
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, path, kind], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    return holder


@pytest.mark.parametrize("number", WITHOUT)
def test_a_place_can_be_locked_where_there_is_no_flock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    monkeypatch.setattr(fcntl, "flock", refuse(number))
    for _ in range(2):
        with file_lock(tmp_path / "run.zarr"), pytest.raises(RunLocked, match=r"run\.zarr"):
            file_lock(tmp_path / "run.zarr").__enter__()
    assert list(tmp_path.iterdir()) == []


def test_another_process_is_waited_for_alive_and_not_dead(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "run.zarr"
    with other(path, kind) as holder:
        with pytest.raises(RunLocked, match="another process works on"), file_lock(path):
            raise AssertionError
        holder.kill()
        holder.wait()
        assert (tmp_path / "run.zarr.lock").exists()  # of a process that was killed
        monkeypatch.setattr(leases, "time", SimpleNamespace(time=time.time))  # there is nothing to wait for:
        with file_lock(path):  # its death is known on this machine
            pass
    assert list(tmp_path.iterdir()) == []


def test_what_is_left_of_a_lock_does_no_harm(tmp_path: Path, kind: str) -> None:
    for content in (b"", b"not json", b"[]", b'{"expires": "soon"}', b'{"expires": null}', b"\xff" * 600):
        (tmp_path / "run.zarr.lock").write_bytes(content)
        with file_lock(tmp_path / "run.zarr"):
            pass
    assert list(tmp_path.iterdir()) == []


def test_of_many_that_come_and_go_one_has_the_lock_at_a_time(tmp_path: Path, kind: str) -> None:
    inside, most, had = [], [], []

    def come_and_go() -> None:
        while len(had) < 12:
            try:
                with file_lock(tmp_path / "run.zarr"):
                    inside.append(1)
                    most.append(len(inside))
                    time.sleep(0)
                    had.append(1)
                    inside.pop()
            except RunLocked:
                pass

    run_in_threads(come_and_go, 8)
    assert set(most) == {1}
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_was_deleted_by_who_held_it_is_no_lock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between opening it and flock it is deleted by its holder, and a third process holds a new one."""
    path, flock, made = tmp_path / "run.zarr.lock", fcntl.flock, []

    def flock_late(descriptor: int, operation: int) -> None:
        if not made:
            path.unlink()
            made.append(os.open(path, os.O_RDWR | os.O_CREAT))
            flock(made[0], fcntl.LOCK_EX)
        flock(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", flock_late)
    with pytest.raises(RunLocked), file_lock(tmp_path / "run.zarr"):
        raise AssertionError
    os.close(made[0])
    with file_lock(tmp_path / "run.zarr"):
        pass


def test_links_to_a_place_share_its_lock(tmp_path: Path, kind: str) -> None:
    (tmp_path / "data" / "run.zarr").mkdir(parents=True)
    (tmp_path / "run").symlink_to("data/run.zarr")
    (tmp_path / "folder").symlink_to("data")
    names = [tmp_path / "data" / "run.zarr", tmp_path / "run", tmp_path / "folder" / "run.zarr"]
    for one in names:
        with locate(one).lock():
            for another in names:
                with pytest.raises(RunLocked), locate(another).lock():
                    raise AssertionError
    with locate(tmp_path / "data" / "next.zarr").lock():
        (tmp_path / "next").symlink_to("data/next.zarr")  # to nothing yet
        with pytest.raises(RunLocked), locate(tmp_path / "next").lock():
            raise AssertionError


def test_a_lock_that_cannot_be_deleted_is_let_go(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch, file_lock(tmp_path / "run.zarr"):
        patch.setattr(Path, "unlink", refuse(errno.EROFS))
        patch.setattr(os, "unlink", refuse(errno.EROFS))
    assert not open_descriptors(tmp_path)
    if kind == "flock":
        with file_lock(tmp_path / "run.zarr"):
            pass
        assert list(tmp_path.iterdir()) == []


def open_descriptors(folder: Path) -> list[str]:
    found = []
    for one in Path("/proc/self/fd").iterdir():
        try:
            found.append(os.readlink(one))
        except FileNotFoundError:  # that of the listing
            continue
    return [path for path in found if path.startswith(str(folder))]


@pytest.mark.parametrize("number", [errno.EIO, errno.EBADF])
def test_other_errors_of_flock_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    monkeypatch.setattr(fcntl, "flock", refuse(number))
    with pytest.raises(OSError, match=os.strerror(number)), file_lock(tmp_path / "run.zarr"):
        raise AssertionError
    assert not open_descriptors(tmp_path)


def test_a_name_as_long_as_names_may_be_is_locked(tmp_path: Path, kind: str) -> None:
    names = ["n" * 250, "n" * 255, "ä" * 127, "n" * 254 + "m"]
    for name in names:
        with file_lock(tmp_path / name):
            for another in names:
                if another != name:
                    with file_lock(tmp_path / another):
                        pass
            with pytest.raises(RunLocked), file_lock(tmp_path / name):
                raise AssertionError
    assert list(tmp_path.iterdir()) == []
