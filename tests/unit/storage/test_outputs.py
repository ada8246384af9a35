"""Outputs on disk: the old one or the new one is at the place at any moment, and nothing else is deleted."""

import errno
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from support.outputs import LONG, make, names, nothing, put, read

from dask_nmf.cli.process.exit_codes import exit_code
from dask_nmf.errors import RunLocked
from dask_nmf.storage.local import filesystem
from dask_nmf.storage.local.atomic_output import atomic_output
from dask_nmf.storage.locations import locate, locate_file

KINDS = {"folder": True, "file": False}
kinds = pytest.mark.parametrize("is_folder", KINDS.values(), ids=KINDS)


def write(path: Path, is_folder: bool, act: Callable[[], Any] = nothing, content: str = "ours") -> None:
    """Write an output, and do something before it is put at its place."""
    with atomic_output(path, nothing) as new:
        make(new, content, is_folder)
        act()


@pytest.fixture(params=["exchange", "renames"])
def system(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """A system, or a file system, with renameat2 and its flags, and one without."""
    if request.param == "renames":
        monkeypatch.setattr(filesystem, "_renameat2", lambda *_: False)
    return str(request.param)


@kinds
def test_an_output_appears_whole_and_replaces_the_old_one(
    tmp_path: Path, system: str, is_folder: bool
) -> None:
    path = tmp_path / "out"
    for content, old in (("1", None), ("2", "1")):
        with atomic_output(path, nothing) as new:
            make(new, content, is_folder)
            assert read(path) == old
            with pytest.raises(RunLocked), atomic_output(path, nothing):
                raise AssertionError
        assert read(path) == content
        assert names(tmp_path) == ["out"]


def test_an_empty_folder_is_a_place_for_a_folder(tmp_path: Path, system: str) -> None:
    (tmp_path / "out").mkdir()
    write(tmp_path / "out", True)
    assert read(tmp_path / "out") == "ours"
    assert names(tmp_path) == ["out"]


def test_an_empty_folder_is_not_replaced_by_a_file(tmp_path: Path, system: str) -> None:
    (tmp_path / "out").mkdir()
    for act in (lambda: write(tmp_path / "out", False), lambda: locate_file(tmp_path / "out")):
        with pytest.raises(FileExistsError, match="out is a folder, and the output is a file; give the path"):
            act()
        assert (tmp_path / "out").is_dir()
        assert names(tmp_path) == ["out"]


@kinds
@pytest.mark.parametrize("came", ["file", "folder", "link"])
@pytest.mark.parametrize("old", [False, True], ids=["", "replacing"])
def test_what_comes_to_the_place_meanwhile_is_left_as_it_is(
    tmp_path: Path, system: str, is_folder: bool, came: str, old: bool
) -> None:
    path = tmp_path / "out"
    if old:
        make(path, "old", is_folder)
    with pytest.raises(FileExistsError, match="was made or changed by another process meanwhile") as refused:
        write(path, is_folder, lambda: put(path, came))
    assert exit_code(refused.value) == 2
    assert read(path) == "theirs"
    assert names(tmp_path) == ["out"]


@kinds
@pytest.mark.parametrize("came", ["file", "folder", "link"])
@pytest.mark.parametrize("old", [False, True], ids=["", "replacing"])
def test_so_is_what_comes_in_the_last_instant(
    tmp_path: Path, is_folder: bool, came: str, old: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, real, came_yet = tmp_path / "out", filesystem._renameat2, []
    if old:
        make(path, "old", is_folder)

    def late(*given: Any) -> bool:
        if not came_yet:
            came_yet.append(put(path, came))
        return real(*given)

    monkeypatch.setattr(filesystem, "_renameat2", late)
    with pytest.raises(FileExistsError, match="meanwhile"), atomic_output(path, nothing) as new:
        make(new, "ours", is_folder)
    assert read(path) == "theirs"
    assert names(tmp_path) == ["out"]


def test_a_change_within_the_old_output_is_one_too(tmp_path: Path, system: str) -> None:
    path = tmp_path / "out"
    make(path, "old", True)
    with pytest.raises(FileExistsError, match="meanwhile"):
        write(path, True, lambda: (path / "W" / "1").write_text("another chunk"))
    assert read(path) == "old"


@kinds
def test_the_target_of_a_link_is_replaced_and_the_link_stays(
    tmp_path: Path, system: str, is_folder: bool
) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "link").symlink_to("data/out")
    for content in "12":  # the target is not there yet, and is there
        with atomic_output(tmp_path / "link", nothing) as new:
            make(new, content, is_folder)
        assert os.readlink(tmp_path / "link") == "data/out"
        assert read(tmp_path / "data" / "out") == content
        assert (names(tmp_path), names(tmp_path / "data")) == (["data", "link"], ["out"])


@kinds
@pytest.mark.parametrize("name", LONG, ids=len)
def test_a_name_may_be_as_long_as_names_may_be(
    tmp_path: Path, system: str, is_folder: bool, name: str
) -> None:
    for content in "12":
        with atomic_output(tmp_path / name, nothing) as new:
            make(new, content, is_folder)
        assert read(tmp_path / name) == content
        assert names(tmp_path) == [name]


CHANGES: list[tuple[Any, str]] = [
    (filesystem, "_renameat2"),
    (Path, "rename"),
    (Path, "replace"),
    (Path, "unlink"),
    (os, "link"),
    (os, "fsync"),
    (shutil, "rmtree"),
]


def before_each_change(patch: pytest.MonkeyPatch, act: Callable[[], None]) -> None:
    """Call something before whatever changes names, or synchronises them."""

    def acting(change: Callable[..., Any]) -> Callable[..., Any]:
        def changed(*given: Any, **named: Any) -> Any:
            act()
            return change(*given, **named)

        return changed

    for where, name in CHANGES:
        patch.setattr(where, name, acting(getattr(where, name)))


@kinds
@pytest.mark.parametrize("for_ever", [False, True], ids=["once", "for ever"])
def test_a_failure_at_any_point_leaves_the_old_one_or_the_new_one(
    tmp_path: Path, system: str, is_folder: bool, for_ever: bool
) -> None:
    number, failed = 0, True
    while failed:
        folder, count = tmp_path / str(number), iter(range(1000))
        folder.mkdir()
        make(folder / "out", "old", is_folder)

        def fail(count: Any = count, number: int = number) -> None:
            now = next(count)
            if now == number or (for_ever and now > number):
                raise OSError(errno.EIO, os.strerror(errno.EIO))

        with pytest.MonkeyPatch.context() as patch, suppress(OSError):
            write(folder / "out", is_folder, lambda patch=patch, fail=fail: before_each_change(patch, fail))
        failed = next(count) > number
        content = read(folder / "out")
        assert content in ("old", "ours") or (for_ever and is_folder and system == "renames")
        with locate(folder / "out").lock():  # the next command: it sweeps
            assert read(folder / "out") == (content or "old")
            assert names(folder) == ["out", "out.lock"]
        number += 1
    assert number > 4


@kinds
def test_a_kill_at_any_point_leaves_one_of_them_to_readers_or_to_the_next_command(
    tmp_path: Path, system: str, is_folder: bool
) -> None:
    folder, states = tmp_path / "work", tmp_path / "states"
    folder.mkdir()
    states.mkdir()
    make(folder / "out", "old", is_folder)
    seen = []

    def photograph() -> None:
        seen.append(states / str(len(seen)))
        shutil.copytree(folder, seen[-1])

    with pytest.MonkeyPatch.context() as patch:
        write(folder / "out", is_folder, lambda: before_each_change(patch, photograph))
    assert len(seen) > 4
    contents = [read(state / "out") for state in seen]
    assert {"old", "ours"} <= set(contents)
    assert None not in contents or (system == "renames" and is_folder)
    for state, content in zip(seen, contents, strict=True):
        with locate(state / "out").lock():  # which sweeps
            assert read(state / "out") == (content or "old")
            assert names(state) == ["out", "out.lock"]


@kinds
@pytest.mark.parametrize("old", [False, True], ids=["", "replacing"])
def test_all_is_on_the_disk_before_it_appears_and_its_name_is_before_the_old_one_goes(
    tmp_path: Path, system: str, is_folder: bool, old: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, events = tmp_path / "out", []
    if old:
        make(path, "old", is_folder)

    def note(where: Any, name: str, told: Callable[..., str]) -> None:
        change = getattr(where, name)
        monkeypatch.setattr(where, name, lambda *given, **_: (events.append(told(*given)), change(*given))[1])

    with atomic_output(path, nothing) as new:
        make(new, "ours", is_folder)
        built = {str(one) for one in (new, *new.rglob("*"))}
        note(os, "fsync", lambda descriptor: os.readlink(f"/proc/self/fd/{descriptor}"))
        note(filesystem, "_renameat2", lambda *_: "put")
        note(Path, "replace", lambda *_: "put")
        note(Path, "rename", lambda *_: "put")
        note(shutil, "rmtree", lambda *_: "deleted")
        note(Path, "unlink", lambda one: "lock" if one.suffix == ".lock" else "deleted")
    first, last = events.index("put"), len(events) - 1 - events[::-1].index("put")
    assert set(events[:first]) == built | {str(tmp_path)}
    assert events[last + 1] == str(tmp_path)
    assert "deleted" not in events[: last + 2]
    assert read(path) == "ours"


KILLED = """
import os, signal, sys
from pathlib import Path
from dask_nmf.storage.local.atomic_output import atomic_output

with atomic_output(Path(sys.argv[1]), lambda: None) as new:
    new.mkdir()
    (new / "zarr.json").write_text("half")
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize("name", ["out", LONG[1]], ids=len)
def test_what_a_killed_command_leaves_is_swept_by_the_next_and_nothing_else(
    tmp_path: Path, name: str
) -> None:
    others = [".out.partial", "..partial", f".in.{'0' * 32}.partial", f".out.{'0' * 31}.partial", "out.old"]
    for other in others:
        (tmp_path / other).write_text("")
    killed = subprocess.run([sys.executable, "-c", KILLED, tmp_path / name], check=False)
    assert killed.returncode == -signal.SIGKILL
    assert len(names(tmp_path)) == len(others) + 2  # the lock, too
    with atomic_output(tmp_path / name, nothing) as new:
        make(new, "1", True)
    assert names(tmp_path) == sorted([*others, name])
