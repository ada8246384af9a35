"""Files are on the disk when `sync_trees` returns, in an order that a power cut cannot undo."""

import errno
import os
from pathlib import Path

import pytest

from dask_nmf.storage.local.filesystem import link_or_copy, sync_folder, sync_trees


@pytest.fixture
def synced(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Paths in the order in which they are given to fsync."""
    paths: list[Path] = []
    fsync = os.fsync

    def record(descriptor: int) -> None:
        paths.append(Path(os.readlink(f"/proc/self/fd/{descriptor}")))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", record)
    return paths


def refuse(number: int):
    def refused(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    return refused


def test_a_tree_is_synchronised_from_its_files_up_to_the_folder_that_holds_it(
    tmp_path: Path, synced: list[Path]
) -> None:
    run = tmp_path / "run"
    files = [run / "zarr.json", run / "W" / "zarr.json", run / "W" / "c" / "0", run / "W" / "c" / "1"]
    for file in files:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("x")
    (run / "link").symlink_to("/nowhere")
    sync_trees([run])
    assert sorted(synced) == sorted([*files, run / "W" / "c", run / "W", run, tmp_path])
    for path in synced[:-1]:  # whatever names it is written after it
        assert synced.index(path) < synced.index(path.parent)


def test_a_single_file_is_synchronised_and_so_is_its_folder(
    tmp_path: Path, synced: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.csv").write_text("x")
    monkeypatch.chdir(tmp_path)
    sync_trees([Path("a.csv")])
    assert synced == [tmp_path / "a.csv", tmp_path]


@pytest.mark.parametrize("number", [errno.EINVAL, errno.ENOTSUP])
def test_a_file_system_without_fsync_of_folders_is_no_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    monkeypatch.setattr(os, "fsync", refuse(number))
    sync_folder(tmp_path)
    (tmp_path / "file").write_text("x")
    with pytest.raises(OSError, match=os.strerror(number)):  # that of a file is
        sync_trees([tmp_path / "file"])


def test_a_disk_that_fails_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", refuse(errno.EIO))
    with pytest.raises(OSError, match="Input/output error"):
        sync_folder(tmp_path)


def test_a_second_name_is_a_link_to_the_same_bytes(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("x")
    (tmp_path / "to_a").symlink_to("a")
    (tmp_path / "below").mkdir()
    for number, source in enumerate(("a", "to_a")):
        target = tmp_path / "below" / str(number)
        link_or_copy(tmp_path / source, target)
        assert target.samefile(tmp_path / "a")
        assert not target.is_symlink()


@pytest.mark.parametrize("number", [errno.EPERM, errno.ENOTSUP, errno.EMLINK, errno.EXDEV, errno.ENOSYS])
def test_a_second_name_is_a_copy_where_there_are_no_links(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    content = os.urandom(3 * 2**20 + 5)
    (tmp_path / "a").write_bytes(content)
    monkeypatch.setattr(os, "link", refuse(number))
    link_or_copy(tmp_path / "a", tmp_path / "b")
    assert (tmp_path / "b").read_bytes() == content
    with pytest.raises(FileExistsError):
        link_or_copy(tmp_path / "a", tmp_path / "b")
    (tmp_path / "c").mkdir()
    with pytest.raises(FileNotFoundError):
        link_or_copy(tmp_path / "none", tmp_path / "c" / "b")
    assert list((tmp_path / "c").iterdir()) == []


def test_a_copy_that_fails_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a").write_text("x")
    monkeypatch.setattr(os, "link", refuse(errno.EPERM))
    monkeypatch.setattr("shutil.copyfileobj", refuse(errno.ENOSPC))
    with pytest.raises(OSError, match="No space"):
        link_or_copy(tmp_path / "a", tmp_path / "b")
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_other_errors_of_a_link_are_told(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("x")
    (tmp_path / "b").write_text("y")
    with pytest.raises(FileExistsError):
        link_or_copy(tmp_path / "a", tmp_path / "b")
    with pytest.raises(FileNotFoundError):
        link_or_copy(tmp_path / "none", tmp_path / "c")
    assert (tmp_path / "b").read_text() == "y"
